//! Sequences of different lengths as one rectangle of token ids.
use std::sync::Arc;

use crate::error::{ModelError, Result};
use crate::ops::Frame;

/// A padded batch of token sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub(crate) ids: Vec<u32>,
    pub(crate) frame: Frame,
}

/// On which side the filling stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Batch {
    /// Sequences that all start in the first column: for training and scoring.
    ///
    /// # Errors
    /// Where there is no sequence, or one is empty.
    pub fn right_padded<S: AsRef<[u32]>>(sequences: &[S]) -> Result<Self> {
        Self::padded(sequences, Side::Right)
    }

    /// Sequences that all end in the last column: for generation, where the next token goes behind it.
    ///
    /// # Errors
    /// Where there is no sequence, or one is empty.
    pub fn left_padded<S: AsRef<[u32]>>(sequences: &[S]) -> Result<Self> {
        Self::padded(sequences, Side::Left)
    }

    fn padded<S: AsRef<[u32]>>(sequences: &[S], side: Side) -> Result<Self> {
        if sequences.is_empty() || sequences.iter().any(|sequence| sequence.as_ref().is_empty()) {
            return Err(ModelError::Invalid("a batch needs sequences of at least one token".into()));
        }
        let rows = sequences.len();
        let width = sequences.iter().map(|sequence| sequence.as_ref().len()).max().unwrap_or(0);
        // the filling may be any token: no real position ever sees it
        let mut ids = vec![0; rows * width];
        let mut starts = Vec::with_capacity(rows);
        let mut ends = Vec::with_capacity(rows);
        for (line, sequence) in ids.chunks_exact_mut(width).zip(sequences) {
            let sequence = sequence.as_ref();
            let start = if side == Side::Left { width - sequence.len() } else { 0 };
            line[start..start + sequence.len()].copy_from_slice(sequence);
            starts.push(start);
            ends.push(start + sequence.len());
        }
        Ok(Self { ids, frame: Frame { rows, width, past: 0, starts: Arc::new(starts), ends: Arc::new(ends) } })
    }

    /// One further token a row, behind what a cache holds.
    pub(crate) fn following(ids: &[u32], past: usize, starts: Arc<Vec<usize>>) -> Self {
        let rows = ids.len();
        let ends = Arc::new(vec![past + 1; rows]);
        Self { ids: ids.to_vec(), frame: Frame { rows, width: 1, past, starts, ends } }
    }

    /// Number of sequences.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.frame.rows
    }

    /// Tokens a row, with the filling.
    #[must_use]
    pub fn width(&self) -> usize {
        self.frame.width
    }

    /// Row of the hidden states (of all `rows * width`) that belongs to token `index` of sequence `row`.
    #[must_use]
    pub fn place(&self, row: usize, index: usize) -> u32 {
        (row * self.frame.width + self.frame.starts[row] + index) as u32
    }

    /// Row of the hidden states that belongs to the last token of sequence `row`.
    #[must_use]
    pub fn last(&self, row: usize) -> u32 {
        (row * self.frame.width + self.frame.ends[row] - self.frame.past - 1) as u32
    }

    /// Number of real tokens of sequence `row`.
    #[must_use]
    pub fn len(&self, row: usize) -> usize {
        self.frame.ends[row] - self.frame.starts[row]
    }

    /// Whether sequence `row` holds no token; never true of a batch that was built.
    #[must_use]
    pub fn is_empty(&self, row: usize) -> bool {
        self.len(row) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_point_at_the_tokens() {
        let sequences = [vec![1, 2, 3], vec![4]];
        for batch in [Batch::right_padded(&sequences).unwrap(), Batch::left_padded(&sequences).unwrap()] {
            assert_eq!((batch.rows(), batch.width()), (2, 3));
            assert_eq!(batch.ids[batch.place(1, 0) as usize], 4);
            assert_eq!(batch.ids[batch.last(0) as usize], 3);
            assert_eq!(batch.last(1), batch.place(1, 0));
            assert_eq!(batch.len(1), 1);
        }
    }

    #[test]
    fn an_empty_sequence_is_refused() {
        assert!(Batch::right_padded(&[vec![1], vec![]]).is_err());
        assert!(Batch::right_padded::<Vec<u32>>(&[]).is_err());
    }
}
