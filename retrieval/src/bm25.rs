//! BM25 as sparse vectors: the passage's side is stored, the query's side carries the IDF of its knowledge base.
//!
//! score(q, d) = sum over words t of  w_q(t) * idf(t) * tf(t,d) * (k1 + 1) / (tf(t,d) + k1 * (1 - b + b * |d| / avg_len))
//! (Robertson and Zaragoza, 2009), idf(t) = ln(1 + (n - df(t) + 0.5) / (df(t) + 0.5)).
use std::collections::HashMap;

use crate::statistics::Statistics;
use crate::tokenize::{each_word, normalize};

/// Saturation of the term frequency.
pub const K1: f32 = 1.2;
/// Strength of the length normalisation.
pub const B: f32 = 0.75;
/// The length, in words as [`crate::tokenize::words`] counts them, at which the normalisation is neutral. A constant,
/// so that a stored passage never changes when others come and go.
pub const AVERAGE_WORDS: f32 = 80.0;

/// A word with less than this share of the IDF of the query's rarest word is not searched for: it is in nearly all
/// passages, so it moves no ranking and costs the longest list.
const COMMON_SHARE: f32 = 0.1;

/// A sparse vector; indices are ascending and unique.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sparse {
    /// Word ids.
    pub indices: Vec<u32>,
    /// Weights, as many as indices.
    pub values: Vec<f32>,
}

impl Sparse {
    /// Builds one out of weights by word.
    #[must_use]
    pub fn from_weights(weights: impl IntoIterator<Item = (u32, f32)>) -> Self {
        let mut pairs: Vec<(u32, f32)> = weights.into_iter().collect();
        pairs.sort_unstable_by_key(|(index, _)| *index);
        pairs.dedup_by_key(|(index, _)| *index);
        let (indices, values) = pairs.into_iter().unzip();
        Self { indices, values }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Sum of products over the words both have.
    #[must_use]
    pub fn dot(&self, other: &Self) -> f32 {
        let (mut i, mut j, mut sum) = (0, 0, 0.0);
        while i < self.indices.len() && j < other.indices.len() {
            match self.indices[i].cmp(&other.indices[j]) {
                std::cmp::Ordering::Less => i += 1,
                std::cmp::Ordering::Greater => j += 1,
                std::cmp::Ordering::Equal => {
                    sum += self.values[i] * other.values[j];
                    i += 1;
                    j += 1;
                }
            }
        }
        sum
    }
}

/// The id of a word: FNV-1a over its bytes, 64 bits, mixed down to 32.
#[must_use]
pub fn word_id(word: &str) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in word.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The upper half is the mixed one.
    (hash >> 32) as u32
}

/// The stored side of a passage: its saturated, length-normalised term frequencies.
#[must_use]
pub fn passage_vector(text: &str) -> Sparse {
    let mut counts: HashMap<u32, f32> = HashMap::new();
    let mut length = 0.0;
    each_word(text, &mut |word| {
        *counts.entry(word_id(word)).or_default() += 1.0;
        length += 1.0;
    });
    let norm = K1 * (1.0 - B + B * length / AVERAGE_WORDS);
    Sparse::from_weights(counts.into_iter().map(|(id, tf)| (id, tf * (K1 + 1.0) / (tf + norm))))
}

/// A tenant's term expansion, ready for queries.
#[derive(Debug, Clone, Default)]
pub struct Expansion {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// The asker's word, normalised.
    word: String,
    /// Ids of the asker's words, where it is not Chinese.
    ids: Vec<u32>,
    /// Words of the knowledge base.
    added: Vec<u32>,
}

impl Expansion {
    /// Reads `asker's word -> the knowledge base's words`.
    pub fn new<'a>(rules: impl IntoIterator<Item = (&'a String, &'a Vec<String>)>) -> Self {
        let ids = |text: &str| {
            let mut ids = Vec::new();
            each_word(text, &mut |word| ids.push(word_id(word)));
            ids
        };
        let rules = rules.into_iter().map(|(word, added)| Rule {
            word: normalize(word),
            ids: if word.chars().any(crate::tokenize::is_han) { Vec::new() } else { ids(word) },
            added: added.iter().flat_map(|text| ids(text)).collect(),
        });
        Self { rules: rules.collect() }
    }

    fn added(&self, normal: &str, words: &HashMap<u32, f32>) -> Vec<u32> {
        let matches = |rule: &&Rule| {
            if rule.ids.is_empty() {
                !rule.word.is_empty() && normal.contains(&rule.word)
            } else {
                rule.ids.iter().all(|id| words.contains_key(id))
            }
        };
        self.rules.iter().filter(matches).flat_map(|rule| rule.added.iter().copied()).collect()
    }
}

/// The query's side of BM25.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LexicalQuery {
    /// IDF-weighted words, without those that no passage or nearly every passage has.
    pub vector: Sparse,
    /// The score that a passage saturated in every word of the query itself would reach.
    pub max_score: f32,
}

impl LexicalQuery {
    /// The score of a passage as a share of the best that can be: 0 to 1.
    #[must_use]
    pub fn similarity(&self, score: f32) -> f32 {
        if self.max_score > 0.0 { (score / self.max_score).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Weighs the words of a query by their IDF in one knowledge base; expanded words count `expansion_weight` as much.
#[must_use]
pub fn query_vector(
    query: &str,
    statistics: &Statistics,
    expansion: &Expansion,
    expansion_weight: f32,
) -> LexicalQuery {
    let mut weights: HashMap<u32, f32> = HashMap::new();
    each_word(query, &mut |word| {
        weights.insert(word_id(word), 1.0);
    });
    let own_maximum: f32 = weights.keys().map(|id| statistics.idf(*id) * (K1 + 1.0)).sum();
    if !expansion.rules.is_empty() {
        for id in expansion.added(&normalize(query), &weights) {
            weights.entry(id).or_insert(expansion_weight);
        }
    }
    let found: Vec<(u32, f32, f32)> = weights
        .into_iter()
        .filter(|(id, _)| statistics.frequency(*id) > 0)
        .map(|(id, weight)| (id, weight, statistics.idf(id)))
        .collect();
    let rarest = found.iter().fold(0.0_f32, |rarest, (_, _, idf)| rarest.max(*idf));
    let telling = found.into_iter().filter(|(_, _, idf)| *idf >= COMMON_SHARE * rarest);
    LexicalQuery {
        vector: Sparse::from_weights(telling.map(|(id, weight, idf)| (id, weight * idf))),
        max_score: own_maximum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(texts: &[&str]) -> Statistics {
        let mut statistics = Statistics::default();
        texts.iter().for_each(|text| statistics.add(&passage_vector(text)));
        statistics
    }

    #[test]
    fn a_score_is_that_of_the_formula() {
        let texts = ["red shoe", "red red hat", "blue hat"];
        let query = query_vector("red", &statistics(&texts), &Expansion::default(), 0.4);
        // df(red) = 2 of 3: ln(1 + 1.5/2.5); tf = 2, three words
        let idf = (1.0_f32 + 1.5 / 2.5).ln();
        let norm = 1.2 * (0.25 + 0.75 * 3.0 / AVERAGE_WORDS);
        let expected = idf * 2.0 * 2.2 / (2.0 + norm);
        let score = query.vector.dot(&passage_vector(texts[1]));
        assert!((score - expected).abs() < 1e-6, "{score} {expected}");
    }

    #[test]
    fn similarity_stays_within_bounds_and_grows_with_the_score() {
        let texts = ["red shoe", "blue hat"];
        let query = query_vector("red shoe boot", &statistics(&texts), &Expansion::default(), 0.4);
        let full = query.similarity(query.vector.dot(&passage_vector(texts[0])));
        let none = query.similarity(query.vector.dot(&passage_vector(texts[1])));
        assert!(full > 0.3 && full < 1.0 && none == 0.0, "{full} {none}");
        assert_eq!(LexicalQuery::default().similarity(3.0), 0.0);
    }

    #[test]
    fn expansion_adds_the_tenants_words_at_reduced_weight() {
        let rules = [("养老金".to_owned(), vec!["super".to_owned()]), ("ATO".to_owned(), vec!["税局".to_owned()])];
        let expansion = Expansion::new(rules.iter().map(|(word, added)| (word, added)));
        let statistics = statistics(&["super fund", "养老金 规则", "税局 地址"]);
        let query = query_vector("我的养老金在哪", &statistics, &expansion, 0.4);
        let at = query.vector.indices.iter().position(|id| *id == word_id("super"));
        let weight = query.vector.values[at.unwrap()];
        assert!((weight - 0.4 * statistics.idf(word_id("super"))).abs() < 1e-6);
        let query = query_vector("the ato address", &statistics, &expansion, 0.4);
        assert!(query.vector.indices.contains(&word_id("税局")));
    }

    #[test]
    fn word_ids_differ() {
        let ids: std::collections::HashSet<u32> = (0..20_000).map(|n| word_id(&format!("w{n}"))).collect();
        assert!(ids.len() >= 19_999);
    }
}
