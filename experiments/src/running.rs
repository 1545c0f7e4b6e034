/// Count, mean and spread of a stream, in constant memory (Welford 1962).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Running {
    pub(crate) n: u64,
    pub(crate) mean: f64,
    squares: f64,
}

impl Running {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub(crate) fn push(&mut self, value: f64) {
        self.n += 1;
        let distance = value - self.mean;
        self.mean += distance / self.n as f64;
        self.squares += distance * (value - self.mean);
    }

    pub(crate) fn of(values: &[f64]) -> Self {
        let mut running = Self::default();
        values.iter().for_each(|value| running.push(*value));
        running
    }

    /// The sample variance (n - 1 in the denominator); 0 below two values.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub(crate) fn variance(&self) -> f64 {
        if self.n < 2 { 0.0 } else { self.squares / (self.n - 1) as f64 }
    }
}
