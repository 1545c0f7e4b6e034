//! Texts as the offline judge compares them.
use std::collections::BTreeSet;

/// Words that carry no question.
const FILLERS: [&str; 24] = [
    "请问",
    "对了",
    "还有",
    "另外",
    "麻烦",
    "嗯",
    "那个",
    "这个",
    "那款",
    "这款",
    "后面",
    "前面",
    "第一个",
    "第二个",
    "还是我问的",
    "还是看我",
    "换成",
    "的话",
    "吗",
    "呢",
    "呀",
    "啊",
    "一下",
    "那要",
];

/// A text without its fillers.
pub(crate) fn stripped(text: &str) -> String {
    FILLERS.iter().fold(text.to_lowercase(), |text, filler| text.replace(filler, " "))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() && c.len_utf8() < 3
}

/// The Latin words (with their digits and hyphens) and the pairs of neighbouring Han characters; a lone one by itself.
fn each_unit(text: &str, mut found: impl FnMut(String)) {
    let chars: Vec<char> = text.to_lowercase().chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        if is_word(chars[at]) {
            while at < chars.len() && (is_word(chars[at]) || (chars[at] == '-' && at > start)) {
                at += 1;
            }
            found(chars[start..at].iter().collect());
        } else if chars[at].is_alphanumeric() {
            while at < chars.len() && chars[at].is_alphanumeric() && !is_word(chars[at]) {
                at += 1;
            }
            let run = &chars[start..at];
            if run.len() == 1 {
                found(run.iter().collect());
            }
            run.windows(2).for_each(|pair| found(pair.iter().collect()));
        } else {
            at += 1;
        }
    }
}

/// The distinct units of a text.
pub(crate) fn units(text: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    each_unit(text, |unit| {
        all.insert(unit);
    });
    all
}

/// How many units a text has, repeated ones counted each time.
pub(crate) fn count(text: &str) -> usize {
    let mut count = 0;
    each_unit(text, |_| count += 1);
    count
}

/// The longest run that `rewrite` shares with `context` and `query` lacks: at least three characters, in lower case.
pub(crate) fn carried_name(rewrite: &str, context: &str, query: &str) -> Option<String> {
    let (rewrite, context, query) = (rewrite.to_lowercase(), context.to_lowercase(), query.to_lowercase());
    let chars: Vec<char> = rewrite.chars().collect();
    let mut best: Option<String> = None;
    for start in 0..chars.len() {
        let least = best.as_ref().map_or(3, |name| name.chars().count() + 1);
        for end in start + least..=chars.len() {
            let run: String = chars[start..end].iter().collect();
            if !context.contains(&run) {
                break;
            }
            if !query.contains(&run) && run.chars().filter(|c| c.is_alphanumeric()).count() >= 3 {
                best = Some(run.clone());
            }
        }
    }
    best.map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_words_and_pairs() {
        let found: Vec<String> = units("SG Rate 2024-25怎么报").into_iter().collect();
        assert_eq!(found, ["2024-25", "rate", "sg", "么报", "怎么"]);
        assert_eq!((count("能能 能能"), units("能能 能能").len()), (2, 1));
    }

    #[test]
    fn a_name_is_carried_from_the_conversation() {
        let context = "胶原蛋白肽饮怎么样 卖得很好";
        assert_eq!(carried_name("孕妇能喝胶原蛋白肽饮吗", context, "孕妇能喝吗").unwrap(), "胶原蛋白肽饮");
        assert_eq!(carried_name("孕妇能喝吗", context, "孕妇能喝吗"), None);
    }
}
