//! Which tokens of a batch count, and how losses of tokens become one number.

/// Sequences of tokens laid out one behind the other, and which of the tokens count.
///
/// All functions of this module take values of tokens as one slice in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// End of each sequence within the slice.
    ends: Vec<usize>,
    mask: Vec<bool>,
}

impl Layout {
    /// Sequences of these lengths; every token counts.
    #[must_use]
    pub fn full(lengths: &[usize]) -> Self {
        let mut ends = Vec::with_capacity(lengths.len());
        let mut end = 0;
        for length in lengths {
            end += length;
            ends.push(end);
        }
        Self { ends, mask: vec![true; end] }
    }

    /// As [`Layout::full`], with the tokens that count given; what the mask lacks does not count.
    #[must_use]
    pub fn masked(lengths: &[usize], mask: &[bool]) -> Self {
        let mut layout = Self::full(lengths);
        for (index, counts) in layout.mask.iter_mut().enumerate() {
            *counts = mask.get(index).copied().unwrap_or(false);
        }
        layout
    }

    /// Takes a whole sequence out: it counts neither as tokens nor as a sequence.
    pub fn drop_row(&mut self, row: usize) {
        let range = self.range(row);
        self.mask[range].fill(false);
    }

    /// Number of sequences, those without a counting token among them.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// Number of tokens, those that do not count among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mask.len()
    }

    /// Whether there is no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mask.is_empty()
    }

    /// Places of a sequence's tokens.
    #[must_use]
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        start..self.ends[row]
    }

    /// Whether each token counts.
    #[must_use]
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// Places of the tokens of a sequence that count.
    pub fn counted(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        self.range(row).filter(|place| self.mask[*place])
    }

    /// Number of tokens that count in a sequence.
    #[must_use]
    pub fn count(&self, row: usize) -> usize {
        self.counted(row).count()
    }

    /// Number of tokens that count.
    #[must_use]
    pub fn total(&self) -> usize {
        self.mask.iter().filter(|counts| **counts).count()
    }

    /// Number of sequences with at least one token that counts.
    #[must_use]
    pub fn live_rows(&self) -> usize {
        (0..self.rows()).filter(|row| self.count(*row) > 0).count()
    }

    /// Mean of a sequence's counting tokens; 0 where there is none.
    #[must_use]
    pub fn row_mean(&self, row: usize, values: &[f64]) -> f64 {
        let sum: f64 = self.counted(row).map(|place| values[place]).sum();
        sum / self.count(row).max(1) as f64
    }

    /// Mean over all counting tokens, with `1e-8` in the denominator.
    #[must_use]
    pub fn mean(&self, values: &[f64]) -> f64 {
        self.mean_of(|place| values[place])
    }

    /// As [`Layout::mean`], of a function of the token's place.
    pub fn mean_of(&self, value: impl Fn(usize) -> f64) -> f64 {
        let sum: f64 = (0..self.len()).filter(|place| self.mask[*place]).map(value).sum();
        sum / (self.total() as f64 + 1e-8)
    }

    /// The layout of some of the sequences, in the given order, with the places of their tokens in this one.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> (Self, Vec<usize>) {
        let places: Vec<usize> = rows.iter().flat_map(|row| self.range(*row)).collect();
        let lengths: Vec<usize> = rows.iter().map(|row| self.range(*row).len()).collect();
        let mask: Vec<bool> = places.iter().map(|place| self.mask[*place]).collect();
        (Self::masked(&lengths, &mask), places)
    }

    /// One value a sequence, given to each of its tokens that counts; 0 elsewhere.
    #[must_use]
    pub fn spread(&self, by_row: &[f64]) -> Vec<f64> {
        let mut values = vec![0.0; self.len()];
        for (row, value) in by_row.iter().enumerate().take(self.rows()) {
            for place in self.counted(row) {
                values[place] = *value;
            }
        }
        values
    }
}

/// How losses of tokens become the loss of a batch. Sequences without a counting token are no sequences here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aggregation {
    /// Mean over all tokens of the batch: long sequences weigh more.
    TokenMean,
    /// Sum over all tokens.
    TokenSum,
    /// Mean over sequences of the sums over their tokens.
    SeqMeanTokenSum,
    /// As `SeqMeanTokenSum`, divided by a constant length: Dr.GRPO (Liu et al. 2025) with the longest completion.
    SeqMeanTokenSumNorm(f64),
    /// Mean over sequences of the means over their tokens: GRPO as first published; a wrong answer costs less the
    /// longer it is.
    SeqMeanTokenMean,
}

impl Aggregation {
    /// The weight of each token's loss in the loss of the batch. All aggregations are linear, so a part of a batch
    /// gives its share of loss and gradient under the weights of the whole.
    #[must_use]
    pub fn weights(self, layout: &Layout) -> Vec<f64> {
        let tokens = layout.total().max(1) as f64;
        let rows = layout.live_rows().max(1) as f64;
        let by_row: Vec<f64> = (0..layout.rows())
            .map(|row| match self {
                Self::TokenMean => 1.0 / tokens,
                Self::TokenSum => 1.0,
                Self::SeqMeanTokenSum => 1.0 / rows,
                Self::SeqMeanTokenSumNorm(length) => 1.0 / (rows * length),
                Self::SeqMeanTokenMean => 1.0 / (rows * (layout.count(row) as f64 + 1e-8)),
            })
            .collect();
        layout.spread(&by_row)
    }
}

/// `sum(weights * values)`.
#[must_use]
pub fn weighted(weights: &[f64], values: &[f64]) -> f64 {
    // a token of weight zero may hold anything, infinity among it
    weights.iter().zip(values).filter(|(weight, _)| **weight != 0.0).map(|(weight, value)| weight * value).sum()
}
