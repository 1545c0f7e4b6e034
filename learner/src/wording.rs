//! Fresh wordings: so that the rewriter keeps an asker's words also where it has never read them.
//!
//! Names are drawn fresh to teach copying of names; the same is true of what is asked. Where a question and its rewrite
//! share a stretch of words, the stretch is replaced in both by a phrase from somewhere else.
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use recast_domain::Conversation;

/// Shortest shared stretch, in characters, that counts as the asker's wording.
const SHORTEST: usize = 3;

/// The longest stretch of characters that both texts hold; the first one in `left` of several.
pub fn shared_stretch(left: &str, right: &str) -> String {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let (mut best, mut end) = (0, 0);
    let mut row = vec![0; right.len() + 1];
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = 0;
        for (j, b) in right.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if a == b { diagonal + 1 } else { 0 };
            if row[j + 1] > best {
                (best, end) = (row[j + 1], i + 1);
            }
            diagonal = above;
        }
    }
    left[end - best..end].iter().collect()
}

/// Replaces the shared wording of question and rewrite by `phrase`. Leaves both alone, and returns `false`, where they
/// share none, or where the stretch stands elsewhere in the context too: there it is likely a name.
pub fn reword(conversation: &mut Conversation, rewrite: &mut String, phrase: &str) -> bool {
    let stretch = shared_stretch(&conversation.query, rewrite);
    let stretch = stretch.trim();
    let context = [&conversation.user_profile, &conversation.history_summary, &conversation.thought];
    let elsewhere = context.into_iter().chain(conversation.history.iter().map(|turn| &turn.content));
    if stretch.chars().count() < SHORTEST
        || phrase.is_empty()
        || elsewhere.into_iter().any(|text| text.contains(stretch))
    {
        return false;
    }
    let (query, text) = (conversation.query.replacen(stretch, phrase, 1), rewrite.replacen(stretch, phrase, 1));
    (conversation.query, *rewrite) = (query, text);
    true
}

/// Some consecutive characters of a clause of `text`; empty where it has no clause long enough.
pub fn phrase_of(text: &str, rng: &mut ChaCha8Rng) -> String {
    let clauses: Vec<Vec<char>> = text
        .split(|c: char| c.is_ascii_punctuation() || "，。；：、？！（）【】“”".contains(c))
        .map(|clause| clause.trim().chars().collect::<Vec<char>>())
        .filter(|clause| clause.len() >= SHORTEST)
        .collect();
    if clauses.is_empty() {
        return String::new();
    }
    let clause = &clauses[rng.random_range(0..clauses.len())];
    let length = rng.random_range(SHORTEST..=clause.len().min(9));
    let start = rng.random_range(0..=clause.len() - length);
    clause[start..start + length].iter().collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn the_longest_stretch_is_found() {
        assert_eq!(shared_stretch("那孕妇能喝吗", "胶原饮 孕妇能喝吗"), "孕妇能喝吗");
        assert_eq!(shared_stretch("甲", "乙"), "");
    }

    #[test]
    fn wordings_are_replaced_and_names_are_not() {
        let mut conversation = Conversation { query: "那孕妇能喝吗".into(), ..Conversation::default() };
        let mut rewrite = "胶原饮 孕妇能喝吗".to_owned();
        assert!(reword(&mut conversation, &mut rewrite, "存放于阴凉处"));
        assert_eq!((conversation.query.as_str(), rewrite.as_str()), ("那存放于阴凉处", "胶原饮 存放于阴凉处"));

        conversation.query = "换成胶原饮呢".into();
        conversation.history_summary = "聊过胶原饮".into();
        let mut rewrite = "胶原饮 价格".to_owned();
        assert!(!reword(&mut conversation, &mut rewrite, "存放"));
        assert_eq!(rewrite, "胶原饮 价格");
    }

    #[test]
    fn a_phrase_is_part_of_a_clause() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..50 {
            let phrase = phrase_of("避光保存，30度以下。", &mut rng);
            assert!("避光保存，30度以下。".contains(&phrase) && !phrase.contains('，'), "{phrase}");
        }
        assert_eq!(phrase_of("啊", &mut rng), "");
    }
}
