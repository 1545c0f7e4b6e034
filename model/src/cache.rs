use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::config::Qwen3Config;
use crate::error::{ModelError, Result};

/// Keys and values of the tokens already read, so that a further token costs one step.
///
/// Space for `capacity` tokens a row is taken at the start; nothing is copied while it fills.
#[derive(Debug)]
pub struct KvCache {
    /// Keys and values of each layer, `[rows, key heads, capacity, head size]`.
    layers: Vec<(Tensor, Tensor)>,
    starts: Arc<Vec<usize>>,
    len: usize,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for `rows` sequences of at most `capacity` tokens, filling included.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn new(config: &Qwen3Config, rows: usize, capacity: usize, device: &Device) -> Result<Self> {
        let shape = (rows, config.num_key_value_heads, capacity, config.head_dim);
        let empty = || Tensor::zeros(shape, DType::F32, device);
        let layers = (0..config.num_hidden_layers).map(|_| Ok((empty()?, empty()?))).collect::<Result<_>>()?;
        Ok(Self { layers, starts: Arc::new(vec![0; rows]), len: 0, capacity })
    }

    /// Tokens held a row, filling included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was read yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of sequences.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.starts.len()
    }

    pub(crate) fn starts(&self) -> &Arc<Vec<usize>> {
        &self.starts
    }

    pub(crate) fn begin(&mut self, starts: &Arc<Vec<usize>>, new_tokens: usize) -> Result<()> {
        if self.len + new_tokens > self.capacity {
            let message =
                format!("the cache holds {} tokens a row, {} were asked for", self.capacity, self.len + new_tokens);
            return Err(ModelError::Invalid(message));
        }
        self.starts = starts.clone();
        Ok(())
    }

    /// Puts new keys and values of a layer behind the old ones and gives all of them back.
    pub(crate) fn extend(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let (all_keys, all_values) = &self.layers[layer];
        all_keys.slice_set(&keys.contiguous()?, 2, self.len)?;
        all_values.slice_set(&values.contiguous()?, 2, self.len)?;
        let end = self.len + keys.dim(2)?;
        Ok((all_keys.narrow(2, 0, end)?, all_values.narrow(2, 0, end)?))
    }

    pub(crate) fn advance(&mut self, new_tokens: usize) {
        self.len += new_tokens;
    }

    /// A cache whose row `i` is row `rows[i]` of this one: to give each prompt several completions, or to drop rows.
    ///
    /// # Errors
    /// Where a row does not exist.
    pub fn select(&self, rows: &[u32]) -> Result<Self> {
        let device = match self.layers.first() {
            Some((keys, _)) => keys.device(),
            None => &Device::Cpu,
        };
        let index = Tensor::from_slice(rows, rows.len(), device)?;
        let pick = |tensor: &Tensor| tensor.index_select(&index, 0);
        let layers = self.layers.iter().map(|(k, v)| Ok((pick(k)?, pick(v)?))).collect::<Result<_>>()?;
        let starts = rows.iter().map(|row| self.starts[*row as usize]).collect();
        Ok(Self { layers, starts: Arc::new(starts), len: self.len, capacity: self.capacity })
    }
}
