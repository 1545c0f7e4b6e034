//! A small lexical search: what a reranker is validated on, so that its training needs no other model.
use std::collections::HashMap;

/// BM25 over character pairs of Chinese text and whole Latin words and numbers.
#[derive(Debug, Clone)]
pub struct LexicalIndex {
    /// Passages that hold a term, with its count.
    postings: HashMap<String, Vec<(usize, f32)>>,
    lengths: Vec<f32>,
    mean_length: f32,
}

const K1: f32 = 1.2;
const B: f32 = 0.5;

/// Single characters and pairs of a Chinese run; Latin words and numbers whole, in lower case.
fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let mut word = String::new();
    let mut previous: Option<char> = None;
    for c in text.chars().chain(std::iter::once(' ')) {
        if c.is_ascii_alphanumeric() {
            word.push(c.to_ascii_lowercase());
            previous = None;
            continue;
        }
        if !word.is_empty() {
            terms.push(std::mem::take(&mut word));
        }
        if !c.is_alphanumeric() {
            previous = None;
            continue;
        }
        terms.push(c.to_string());
        if let Some(before) = previous {
            terms.push(format!("{before}{c}"));
        }
        previous = Some(c);
    }
    terms
}

impl LexicalIndex {
    /// Indexes texts.
    #[must_use]
    pub fn new<S: AsRef<str>>(texts: &[S]) -> Self {
        let mut postings: HashMap<String, Vec<(usize, f32)>> = HashMap::new();
        let mut lengths = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            let terms = terms(text.as_ref());
            lengths.push(terms.len() as f32);
            let mut counts: HashMap<String, f32> = HashMap::new();
            for term in terms {
                *counts.entry(term).or_default() += 1.0;
            }
            for (term, count) in counts {
                postings.entry(term).or_default().push((place, count));
            }
        }
        let mean_length = lengths.iter().sum::<f32>() / lengths.len().max(1) as f32;
        Self { postings, lengths, mean_length }
    }

    /// The places of the best texts, the best first; equal scores in the order of the texts.
    #[must_use]
    pub fn search(&self, query: &str, most: usize) -> Vec<usize> {
        let mut scores = vec![0f32; self.lengths.len()];
        let count = self.lengths.len() as f32;
        for term in terms(query) {
            let Some(list) = self.postings.get(&term) else { continue };
            let holders = list.len() as f32;
            let rarity = ((count - holders + 0.5) / (holders + 0.5) + 1.0).ln();
            for (place, frequency) in list {
                let length = self.lengths[*place] / self.mean_length.max(1.0);
                scores[*place] += rarity * frequency * (K1 + 1.0) / (frequency + K1 * (1.0 - B + B * length));
            }
        }
        let mut order: Vec<usize> = (0..scores.len()).filter(|place| scores[*place] > 0.0).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        order.truncate(most);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_with_the_rare_words_comes_first() {
        let index = LexicalIndex::new(&["胶原饮每日一次", "钙片每日一次", "钙片 FD21 孕妇慎用", ""]);
        assert_eq!(index.search("胶原饮", 5), [0]);
        assert_eq!(index.search("fd21 钙片", 5), [2, 1]);
        assert_eq!(index.search("钙片一次", 1), [1]);
        assert!(index.search("zzz", 5).is_empty());
    }
}
