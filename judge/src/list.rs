//! A list of rewrites in some order under meaningless names, and the answer on it.
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::prompt::Entry;
use crate::verdict::scores;
use crate::{Scores, VerdictFault};

/// Rewrites as one call shows them.
pub(crate) struct Listing<'a> {
    pub entries: Vec<Entry<'a>>,
}

impl<'a> Listing<'a> {
    /// A drawn order with drawn names.
    pub fn shuffled(texts: &[&'a str], dice: &mut ChaCha8Rng) -> Self {
        let mut order = texts.to_vec();
        order.shuffle(dice);
        Self::named(&order, dice)
    }

    /// The other way round, with new names: what stood first stands last.
    pub fn reversed(&self, dice: &mut ChaCha8Rng) -> Self {
        let order: Vec<&str> = self.entries.iter().rev().map(|entry| entry.text).collect();
        Self::named(&order, dice)
    }

    fn named(order: &[&'a str], dice: &mut ChaCha8Rng) -> Self {
        let mut entries: Vec<Entry<'a>> = Vec::with_capacity(order.len());
        for text in order {
            let id = loop {
                // no vowels: the names spell nothing
                let letter = |dice: &mut ChaCha8Rng| char::from(b"bcdfghjkmnpqrstvwxz"[dice.random_range(0..19)]);
                let id: String = (0..4).map(|_| letter(dice)).collect();
                if entries.iter().all(|entry| entry.id != id) {
                    break id;
                }
            };
            entries.push(Entry { id, text });
        }
        Self { entries }
    }
}

/// The scores in the order of `entries`. Each name must occur exactly once: what is lost or double is a broken answer.
pub(crate) fn read_list(answer: &str, entries: &[Entry<'_>]) -> Result<Vec<(Scores, String)>, VerdictFault> {
    let Ok(Value::Object(fields)) = serde_json::from_str(answer) else { return Err(VerdictFault::NotJson) };
    let wrong = |what: String| VerdictFault::Entries(what);
    let Some(Value::Array(rows)) = fields.get("entries") else { return Err(wrong("there is no list".to_owned())) };
    if rows.len() != entries.len() {
        return Err(wrong(format!("{} entries instead of {}", rows.len(), entries.len())));
    }
    let read = |entry: &Entry<'_>| {
        let mut found = rows.iter().filter(|row| row["id"].as_str() == Some(&entry.id));
        match (found.next().and_then(Value::as_object), found.next()) {
            (Some(row), None) => scores(row),
            _ => Err(wrong(format!("{} does not occur exactly once", entry.id))),
        }
    };
    entries.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use serde_json::json;

    use super::*;

    fn row(id: &str, all: i64) -> Value {
        json!({"id": id, "改写质量": all, "领域适配": all, "意图保持": all, "可检索性": all, "评分理由": "r"})
    }

    #[test]
    fn the_second_order_is_the_first_reversed_under_new_names() {
        let texts = ["a", "b", "c", "d"];
        let mut dice = ChaCha8Rng::seed_from_u64(5);
        let first = Listing::shuffled(&texts, &mut dice);
        let second = first.reversed(&mut dice);
        let order =
            |listing: &Listing<'_>| listing.entries.iter().map(|entry| entry.text.to_owned()).collect::<Vec<_>>();
        let mut reversed = order(&second);
        reversed.reverse();
        assert_eq!(order(&first), reversed);
        let names = |listing: &Listing<'_>| listing.entries.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>();
        assert!(names(&first).iter().all(|id| !names(&second).contains(id)));
    }

    #[test]
    fn each_name_must_occur_exactly_once() {
        let entries = ["x", "y"].map(|id| Entry { id: id.to_owned(), text: id });
        let answer = |rows: Vec<Value>| json!({"entries": rows}).to_string();
        let good = read_list(&answer(vec![row("y", 2), row("x", 9)]), &entries).unwrap();
        assert_eq!((good[0].0.overall(), good[1].0.overall()), (5.0, 2.0), "by name, clamped");
        for rows in [vec![row("x", 3)], vec![row("x", 3), row("x", 4)], vec![row("x", 3), row("z", 4)]] {
            assert!(matches!(read_list(&answer(rows), &entries), Err(VerdictFault::Entries(_))));
        }
        assert_eq!(read_list("[]", &entries), Err(VerdictFault::NotJson));
        let mut broken = row("x", 3);
        broken["领域适配"] = json!("5");
        assert!(matches!(read_list(&answer(vec![broken, row("y", 1)]), &entries), Err(VerdictFault::NotInteger(_))));
    }
}
