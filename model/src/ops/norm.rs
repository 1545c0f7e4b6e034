use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};

use super::lane::{dot, sum_pairs};
use super::{Kernels, Numbers, contiguous, tensor};

/// RMS norm over the last dimension: `x / sqrt(mean(x^2) + eps) * weight`.
pub(crate) fn rms_norm(kernels: Kernels, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    match kernels {
        Kernels::Fused => x.contiguous()?.apply_op2(weight, RmsNorm { eps: eps as f32 }),
        Kernels::Composed => {
            let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
            x.broadcast_div(&(variance + eps)?.sqrt()?)?.broadcast_mul(weight)
        }
    }
}

struct RmsNorm {
    eps: f32,
}

impl RmsNorm {
    fn inverse(&self, row: &[f32]) -> f32 {
        1.0 / (dot(row, row) / row.len() as f32 + self.eps).sqrt()
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let numbers = contiguous(x, x_layout, "rms-norm")?;
        let weight = contiguous(weight, weight_layout, "rms-norm")?;
        let mut out = vec![0f32; numbers.len()];
        for (row, out) in numbers.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            let inverse = self.inverse(row);
            for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
                *out = x * inverse * weight;
            }
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    /// With `n = x * inverse`: `dx = inverse * (g w - n * mean(g w n))`, `dw = sum of g n over rows`.
    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (x_read, weight_read, grad_read) = (Numbers::of(x), Numbers::of(weight), Numbers::of(&grad));
        let (numbers, scale, grads) = (x_read.get()?, weight_read.get()?, grad_read.get()?);
        let width = scale.len();
        let mut grad_x = vec![0f32; numbers.len()];
        let mut grad_weight = vec![0f32; width];
        let mut scaled = vec![0f32; width];
        let rows = numbers.chunks_exact(width).zip(grads.chunks_exact(width));
        for ((row, grad), out) in rows.zip(grad_x.chunks_exact_mut(width)) {
            let inverse = self.inverse(row);
            for ((scaled, grad), weight) in scaled.iter_mut().zip(grad).zip(scale) {
                *scaled = grad * weight;
            }
            let shared = sum_pairs(&scaled, row, |a, b| a * b) * inverse * inverse / width as f32;
            for ((out, scaled), x) in out.iter_mut().zip(&scaled).zip(row) {
                *out = inverse * (scaled - x * shared);
            }
            for ((sum, grad), x) in grad_weight.iter_mut().zip(grad).zip(row) {
                *sum += grad * x * inverse;
            }
        }
        Ok((Some(tensor(grad_x, x)?), Some(tensor(grad_weight, weight)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{noise, same};
    use super::*;

    #[test]
    fn fused_agrees_with_composed() {
        let (x, weight) = (noise(&[3, 5, 24], 1), noise(&[24], 2));
        let run = |kernels| rms_norm(kernels, &x, &weight, 1e-6);
        same(&[x.clone(), weight.clone()], || run(Kernels::Fused), || run(Kernels::Composed));
    }
}
