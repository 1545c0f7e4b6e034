//! The operations of the network, each with a gradient.
//!
//! The tensor library's own fused kernels drop gradients without a word, and the operations it does differentiate
//! cost several passes over memory each. So every operation here exists twice: *fused*, one pass forward and one
//! backward over `f32` on the CPU, and *composed* of differentiable tensor operations, which runs on any device and is
//! the reference that the fused one is tested against.
use std::sync::{Arc, RwLockReadGuard};

use candle_core::{CpuStorage, Device, Layout, Result, Storage, Tensor};

mod attention;
mod heads;
pub(crate) mod lane;
mod matmul;
mod norm;
mod swiglu;
mod token_scores;

pub(crate) use attention::{Visible, masked_softmax};
pub(crate) use heads::{Rotary, join_heads, rotate_heads, split_heads};
pub(crate) use matmul::{matmul_frozen, matmul_nt};
pub(crate) use norm::rms_norm;
pub(crate) use swiglu::swiglu;
pub use token_scores::{TokenScores, token_scores};

/// Which implementation of the operations runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// One pass over memory an operation; needs `f32` on the CPU.
    Fused,
    /// Built from tensor operations; any device, slower.
    Composed,
}

impl Kernels {
    /// The faster implementation that the device can run.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        if device.is_cpu() { Self::Fused } else { Self::Composed }
    }
}

/// Where the tokens of a padded batch sit: `rows` sequences of `width` new tokens behind `past` cached ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub rows: usize,
    pub width: usize,
    pub past: usize,
    /// First real column of each row, counted with the cached ones.
    pub starts: Arc<Vec<usize>>,
    /// One behind the last real column of each row.
    pub ends: Arc<Vec<usize>>,
}

impl Frame {
    /// Place of a token in its own text, not counting padding.
    pub(crate) fn position(&self, row: usize, column: usize) -> usize {
        (self.past + column).saturating_sub(self.starts[row])
    }
}

pub(crate) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout, op: &'static str) -> Result<&'a [f32]> {
    let (start, end) = layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op })?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Read access to the numbers of a contiguous tensor on the CPU.
pub(crate) struct Numbers<'a> {
    storage: RwLockReadGuard<'a, Storage>,
    layout: &'a Layout,
}

impl<'a> Numbers<'a> {
    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    pub(crate) fn get(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(storage) => contiguous(storage, self.layout, "numbers"),
            _ => candle_core::bail!("fused operations run on the cpu only"),
        }
    }
}

pub(crate) fn tensor(numbers: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(numbers, like.shape(), &Device::Cpu)
}

#[cfg(test)]
pub(crate) mod testing {
    use candle_core::{Device, Result, Tensor, Var};

    /// Numbers that repeat with no pattern that an error could hide in.
    pub(crate) fn noise(shape: &[usize], seed: u32) -> Var {
        let count = shape.iter().product();
        let number = |i: usize| ((i as f32 + 1.0) * 12.9898 + seed as f32 * 78.233).sin();
        let numbers: Vec<f32> = (0..count).map(number).collect();
        Var::from_tensor(&Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()).unwrap()
    }

    pub(crate) fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32) {
        assert_eq!(found.dims(), expected.dims());
        let difference = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap();
        let worst = difference.max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(worst <= tolerance, "differs by {worst}");
    }

    /// Compares value and all gradients of two implementations, under a loss that weighs every output differently.
    pub(crate) fn same(inputs: &[Var], found: impl Fn() -> Result<Tensor>, expected: impl Fn() -> Result<Tensor>) {
        let (found, expected) = (found().unwrap(), expected().unwrap());
        assert_close(&found.contiguous().unwrap(), &expected.contiguous().unwrap(), 2e-5);
        let weights = noise(expected.dims(), 7);
        let gradients =
            |output: &Tensor| (output * weights.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let (found, expected) = (gradients(&found), gradients(&expected));
        for input in inputs {
            assert_close(found.get(input).unwrap(), &expected.get(input).unwrap().contiguous().unwrap(), 1e-4);
        }
    }
}
