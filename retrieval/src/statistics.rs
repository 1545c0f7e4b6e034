//! How many passages of a knowledge base hold each word: what IDF is computed from.
//!
//! The engine could do it, but only over a filter evaluated anew for every query, and it would not tell the figures
//! that a similarity between 0 and 1 needs. These are kept in memory, rebuilt from the stored vectors at start.
use std::collections::HashMap;

use crate::bm25::Sparse;

/// Document frequencies of one knowledge base.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    passages: u32,
    frequencies: HashMap<u32, u32>,
}

impl Statistics {
    /// Counts a passage in.
    pub fn add(&mut self, passage: &Sparse) {
        self.passages += 1;
        for id in &passage.indices {
            *self.frequencies.entry(*id).or_default() += 1;
        }
    }

    /// Counts a passage out.
    pub fn remove(&mut self, passage: &Sparse) {
        self.passages = self.passages.saturating_sub(1);
        for id in &passage.indices {
            if let Some(count) = self.frequencies.get_mut(id) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.frequencies.remove(id);
                }
            }
        }
    }

    /// Passages counted.
    #[must_use]
    pub fn passages(&self) -> u32 {
        self.passages
    }

    /// Passages that hold the word.
    #[must_use]
    pub fn frequency(&self, word: u32) -> u32 {
        self.frequencies.get(&word).copied().unwrap_or_default()
    }

    /// ln(1 + (n - df + 0.5) / (df + 0.5)); never negative.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts, of which the logarithm is taken")]
    pub fn idf(&self, word: u32) -> f32 {
        let df = self.frequency(word) as f32;
        let n = self.passages as f32;
        (1.0 + (n - df + 0.5) / (df + 0.5)).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_out_undoes_putting_in() {
        let (a, b) = (crate::bm25::passage_vector("x y"), crate::bm25::passage_vector("y z"));
        let mut statistics = Statistics::default();
        statistics.add(&a);
        let before = statistics.clone();
        statistics.add(&b);
        assert_eq!(statistics.frequency(crate::bm25::word_id("y")), 2);
        statistics.remove(&b);
        assert_eq!(statistics, before);
    }
}
