use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

use super::lane::{dot, exp, max};
use super::{Frame, Kernels, Numbers, contiguous, tensor};

/// Which keys a query may see, and the scale of its scores.
#[derive(Debug, Clone)]
pub(crate) struct Visible {
    pub frame: Frame,
    pub causal: bool,
    pub scale: f32,
}

impl Visible {
    fn keys(&self) -> usize {
        self.frame.past + self.frame.width
    }

    /// The visible keys of the query at `column` of `row`, as a half-open range (empty for a padding query).
    fn range(&self, row: usize, column: usize) -> (usize, usize) {
        let start = self.frame.starts[row];
        let end = self.frame.ends[row].min(self.keys());
        let end = if self.causal { end.min(self.frame.past + column + 1) } else { end };
        (start.min(end), end)
    }
}

/// Softmax of `scale * scores` over the visible keys, zero elsewhere.
///
/// `scores [rows, key heads, group * width, keys]`: the query heads of one key head lie behind one another.
/// A query that sees no key (padding) gets all zeros from the fused form, and values of no meaning from the composed.
pub(crate) fn masked_softmax(kernels: Kernels, scores: &Tensor, visible: &Visible) -> Result<Tensor> {
    match kernels {
        Kernels::Fused => scores.apply_op1(MaskedSoftmax { visible: visible.clone() }),
        Kernels::Composed => {
            let (rows, _, queries, keys) = scores.dims4()?;
            let mut mask = vec![-1e30f32; rows * queries * keys];
            for (i, line) in mask.chunks_exact_mut(keys).enumerate() {
                let (start, end) = visible.range(i / queries, i % visible.frame.width);
                line[start..end].fill(0.0);
            }
            let mask = Tensor::from_vec(mask, (rows, 1, queries, keys), scores.device())?;
            let scores = (scores * f64::from(visible.scale))?.broadcast_add(&mask)?;
            candle_nn::ops::softmax(&scores, D::Minus1)
        }
    }
}

struct MaskedSoftmax {
    visible: Visible,
}

impl MaskedSoftmax {
    fn range(&self, line: usize, lines_a_row: usize) -> (usize, usize) {
        self.visible.range(line / lines_a_row, line % self.visible.frame.width)
    }
}

impl CustomOp1 for MaskedSoftmax {
    fn name(&self) -> &'static str {
        "masked-softmax"
    }

    fn cpu_fwd(&self, scores: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, heads, queries, keys) = layout.shape().dims4()?;
        let scores = contiguous(scores, layout, "masked-softmax")?;
        let scale = self.visible.scale;
        let mut out = vec![0f32; scores.len()];
        for (i, (line, out)) in scores.chunks_exact(keys).zip(out.chunks_exact_mut(keys)).enumerate() {
            let (start, end) = self.range(i, heads * queries);
            let (line, out) = (&line[start..end], &mut out[start..end]);
            let most = max(line) * scale;
            for (out, score) in out.iter_mut().zip(line) {
                *out = exp(score * scale - most);
            }
            let sum: f32 = out.iter().sum();
            let inverse = 1.0 / sum;
            for out in out {
                *out *= inverse;
            }
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    /// `ds = scale * p * (dp - sum(p dp))`.
    fn bwd(&self, scores: &Tensor, probabilities: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, heads, queries, keys) = scores.dims4()?;
        let grad = grad.contiguous()?;
        let (read, grad_read) = (Numbers::of(probabilities), Numbers::of(&grad));
        let (probabilities, grads) = (read.get()?, grad_read.get()?);
        let scale = self.visible.scale;
        let mut out = vec![0f32; probabilities.len()];
        let lines = probabilities.chunks_exact(keys).zip(grads.chunks_exact(keys));
        for (i, ((p, g), out)) in lines.zip(out.chunks_exact_mut(keys)).enumerate() {
            let (start, end) = self.range(i, heads * queries);
            let (p, g, out) = (&p[start..end], &g[start..end], &mut out[start..end]);
            let shared = dot(p, g);
            for ((out, p), g) in out.iter_mut().zip(p).zip(g) {
                *out = scale * p * (g - shared);
            }
        }
        tensor(out, scores).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{noise, same};
    use super::*;

    fn check(causal: bool, past: usize, starts: [usize; 2], ends: [usize; 2]) {
        let frame = Frame { rows: 2, width: 3, past, starts: Arc::new(starts.to_vec()), ends: Arc::new(ends.to_vec()) };
        let visible = Visible { frame, causal, scale: 0.7 };
        let scores = noise(&[2, 2, 6, past + 3], 1);
        let run = |kernels| masked_softmax(kernels, &scores, &visible);
        same(std::slice::from_ref(&scores), || run(Kernels::Fused), || run(Kernels::Composed));
    }

    #[test]
    fn fused_agrees_with_composed_under_every_mask() {
        check(true, 0, [0, 0], [3, 2]);
        check(false, 0, [0, 0], [3, 1]);
        check(true, 4, [0, 3], [7, 7]);
    }
}
