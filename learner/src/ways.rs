//! Other ways to say what every asker says: "and that one?", "the first", "the last".
//!
//! The train dialogues hold a handful of each. A model that knows only those takes any other for a part of the question,
//! so examples say them in more ways than anybody wrote down there. The lists are general language, not taken from data.
use rand::Rng;
use rand::seq::IndexedRandom as _;

use crate::mentions::Piece;
use crate::swap::SplitText;

/// What may stand before and after the name of a thing, when the last question is asked again about it.
const AGAIN: [(&str, &str); 26] = [
    ("", "呢"),
    ("那", "呢"),
    ("那么", "呢"),
    ("还有", "呢"),
    ("换成", "呢"),
    ("换", "呢"),
    ("要换", ""),
    ("那要换", ""),
    ("如果换", ""),
    ("要是换成", ""),
    ("那如果是", "呢"),
    ("如果是", "的话"),
    ("要是", "呢"),
    ("改成", "呢"),
    ("改", "会怎样"),
    ("", "也一样吗"),
    ("", "又怎么样"),
    ("", "的话呢"),
    ("那", "的话"),
    ("我说的是", ""),
    ("不好意思我问的是", ""),
    ("再帮我看下", "的"),
    ("同样的问题，", ""),
    ("", "是不是也这样"),
    ("what about ", ""),
    ("and ", "?"),
];

/// The first of several things.
const FIRST: [&str; 16] = [
    "第一个",
    "第一款",
    "第一门",
    "第一只",
    "第一种",
    "前面那个",
    "前面那款",
    "前一个",
    "前一款",
    "前者",
    "最前面那个",
    "最开始那个",
    "开头那个",
    "头一个",
    "先说的那个",
    "一开始说的那个",
];

/// The last of several things.
const LAST: [&str; 18] = [
    "第二个",
    "第二款",
    "第二门",
    "第二只",
    "第二种",
    "后面那个",
    "后面那款",
    "后面那门",
    "后一个",
    "后一款",
    "后者",
    "最后那个",
    "最后面那个",
    "最末那个",
    "末了那个",
    "末尾那款",
    "后说的那个",
    "刚刚说的后一个",
];

/// Longest text around the name of a question that only names another thing.
const AROUND: usize = 8;

/// Whether a query says no more than the name of another thing.
pub(crate) fn asks_again(query: &SplitText) -> bool {
    let around: usize =
        query.0.iter().map(|piece| if let Piece::Text(words) = piece { words.chars().count() } else { 0 }).sum();
    query.forms().count() == 1 && around <= AROUND
}

/// The name of another thing, asked about in another way.
pub(crate) fn again(query: &SplitText, rng: &mut impl Rng) -> SplitText {
    let (before, after) = AGAIN.choose(rng).copied().unwrap_or_default();
    let name = query.0.iter().find(|piece| matches!(piece, Piece::Name(_)));
    let mut pieces = vec![Piece::Text(before.to_owned())];
    pieces.extend(name.cloned());
    pieces.push(Piece::Text(after.to_owned()));
    SplitText(pieces)
}

/// A query that points at the first or the last of several things, pointing in another way; `None` where it does not.
pub(crate) fn pointing(query: &SplitText, rng: &mut impl Rng) -> Option<SplitText> {
    let said = |list: &[&'static str]| {
        let texts = query.0.iter().filter_map(|piece| if let Piece::Text(words) = piece { Some(words) } else { None });
        let found = texts.flat_map(|words| list.iter().copied().filter(|way| words.contains(way)));
        found.max_by_key(|way| way.chars().count())
    };
    let (way, list): (_, &[&str]) = match (said(&FIRST), said(&LAST)) {
        (Some(way), None) => (way, &FIRST),
        (None, Some(way)) => (way, &LAST),
        _ => return None,
    };
    Some(query.reworded(way, list.choose(rng)?))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::mentions::Mentions;
    use crate::mentions::tests::passage;

    #[test]
    fn only_what_stands_around_the_name_changes() {
        let mentions = Mentions::of(&[passage("1", "胶原饮", &[], "usage", "")]);
        let query = |text| SplitText::new(text, &mentions);
        assert!(asks_again(&query("那胶原饮呢")));
        assert!(!asks_again(&query("胶原饮孕妇能不能喝啊喝几瓶")), "this asks something itself");
        assert!(!asks_again(&query("那个呢")), "nothing is named");
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let ways: std::collections::BTreeSet<String> =
            (0..400).map(|_| again(&query("那胶原饮呢"), &mut rng).original(&mentions)).collect();
        assert_eq!(ways.len(), AGAIN.len());
        assert!(ways.iter().all(|way| way.contains("胶原饮")));
    }

    #[test]
    fn the_first_stays_the_first() {
        let mentions = Mentions::of(&[]);
        let query = |text| SplitText::new(text, &mentions);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..100 {
            let said = pointing(&query("第一个怎么吃"), &mut rng).unwrap().original(&mentions);
            assert!(FIRST.iter().any(|way| said == format!("{way}怎么吃")), "{said}");
        }
        assert!(pointing(&query("怎么吃"), &mut rng).is_none());
        assert!(pointing(&query("第一个和第二个"), &mut rng).is_none(), "both are meant");
    }
}
