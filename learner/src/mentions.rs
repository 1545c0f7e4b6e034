//! Finds the names of products, courses and funds in a text: longest match over all names and aliases.
use std::collections::{BTreeMap, HashMap};

use recast_domain::PassageRecord;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Words between names.
    Text(String),
    /// A name, as an index into [`Mentions`].
    Name(usize),
}

/// One way to write an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// As written.
    pub text: String,
    /// The entity's full name.
    pub entity: String,
}

/// All names and aliases of a tenant's passages.
#[derive(Debug, Clone, Default)]
pub struct Mentions {
    forms: Vec<Form>,
    /// Forms by their first character, longest first.
    by_first: HashMap<char, Vec<usize>>,
}

/// The entity a passage is about; empty for general ones.
pub(crate) fn entity_of(passage: &PassageRecord) -> &str {
    passage.metadata.get("entity").and_then(|value| value.as_str()).unwrap_or_default()
}

/// The aspect a passage treats; empty for general ones.
pub(crate) fn aspect_of(passage: &PassageRecord) -> &str {
    passage.metadata.get("aspect").and_then(|value| value.as_str()).unwrap_or_default()
}

impl Mentions {
    /// Collects the names from the passages' `entity` and `aliases`.
    #[must_use]
    pub fn of(passages: &[PassageRecord]) -> Self {
        let mut entities: BTreeMap<String, String> = BTreeMap::new();
        for passage in passages {
            let entity = entity_of(passage);
            if entity.is_empty() {
                continue;
            }
            entities.insert(entity.to_owned(), entity.to_owned());
            let aliases = passage.metadata.get("aliases").and_then(|value| value.as_array());
            for alias in aliases.into_iter().flatten().filter_map(|alias| alias.as_str()) {
                // an alias of one character would cut ordinary words apart
                if alias.chars().count() > 1 {
                    entities.entry(alias.to_owned()).or_insert_with(|| entity.to_owned());
                }
            }
        }
        let forms: Vec<Form> = entities.into_iter().map(|(text, entity)| Form { text, entity }).collect();
        let mut by_first: HashMap<char, Vec<usize>> = HashMap::new();
        for (index, form) in forms.iter().enumerate() {
            if let Some(first) = form.text.chars().next() {
                by_first.entry(first).or_default().push(index);
            }
        }
        for list in by_first.values_mut() {
            list.sort_by_key(|index| std::cmp::Reverse(forms[*index].text.len()));
        }
        Self { forms, by_first }
    }

    /// The form of an index.
    #[must_use]
    pub fn form(&self, index: usize) -> &Form {
        &self.forms[index]
    }

    /// The form that is written exactly so.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<usize> {
        self.forms.iter().position(|form| form.text == text)
    }

    /// Cuts a text into names and what lies between them.
    #[must_use]
    pub fn split(&self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let (mut start, mut at) = (0, 0);
        while let Some(first) = text[at..].chars().next() {
            let rest = &text[at..];
            let candidates = self.by_first.get(&first).into_iter().flatten();
            let hit = candidates.copied().find(|index| {
                let form = self.forms[*index].text.as_str();
                rest.starts_with(form) && whole_words(text, at, at + form.len())
            });
            let Some(index) = hit else {
                at += first.len_utf8();
                continue;
            };
            if start < at {
                pieces.push(Piece::Text(text[start..at].to_owned()));
            }
            pieces.push(Piece::Name(index));
            at += self.forms[index].text.len();
            start = at;
        }
        if start < text.len() {
            pieces.push(Piece::Text(text[start..].to_owned()));
        }
        pieces
    }
}

/// Whether a match does not begin or end inside a Latin word or a number.
fn whole_words(text: &str, start: usize, end: usize) -> bool {
    let joined = |before: Option<char>, after: Option<char>| {
        before.zip(after).is_some_and(|(a, b)| {
            (a.is_ascii_alphabetic() && b.is_ascii_alphabetic()) || (a.is_ascii_digit() && b.is_ascii_digit())
        })
    };
    !joined(text[..start].chars().next_back(), text[start..].chars().next())
        && !joined(text[..end].chars().next_back(), text[end..].chars().next())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn passage(id: &str, entity: &str, aliases: &[&str], aspect: &str, text: &str) -> PassageRecord {
        let value = serde_json::json!({
            "id": id, "doc_id": id, "text": text,
            "metadata": {"entity": entity, "aliases": aliases, "aspect": aspect},
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_longest_name_wins() {
        let passages =
            [passage("1", "胶原蛋白饮", &["FD21"], "a", ""), passage("2", "胶原蛋白饮无糖版", &["无糖胶原"], "a", "")];
        let mentions = Mentions::of(&passages);
        let read = |text: &str| -> Vec<String> {
            let pieces = mentions.split(text).into_iter();
            pieces
                .map(|piece| match piece {
                    Piece::Text(text) => text,
                    Piece::Name(index) => format!("<{}>", mentions.form(index).text),
                })
                .collect()
        };
        assert_eq!(read("胶原蛋白饮无糖版和胶原蛋白饮吗"), ["<胶原蛋白饮无糖版>", "和", "<胶原蛋白饮>", "吗"]);
        assert_eq!(read("FD21多少钱，FD212呢"), ["<FD21>", "多少钱，FD212呢"]);
        assert_eq!(mentions.form(mentions.find("无糖胶原").unwrap()).entity, "胶原蛋白饮无糖版");
        assert!(read("").is_empty());
    }
}
