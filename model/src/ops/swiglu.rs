use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::lane::exp;
use super::{Kernels, Numbers, contiguous, tensor};

/// The gated unit of the feed-forward block: `gate * sigmoid(gate) * up`.
pub(crate) fn swiglu(kernels: Kernels, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    match kernels {
        Kernels::Fused => gate.apply_op2(up, SwiGlu),
        Kernels::Composed => gate.silu()? * up,
    }
}

struct SwiGlu;

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gate = contiguous(gate, gate_layout, "swiglu")?;
        let up = contiguous(up, up_layout, "swiglu")?;
        let mut out = vec![0f32; gate.len()];
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(*gate) * up;
        }
        Ok((CpuStorage::F32(out), gate_layout.shape().clone()))
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (gate_read, up_read, grad_read) = (Numbers::of(gate), Numbers::of(up), Numbers::of(&grad));
        let (gates, ups, grads) = (gate_read.get()?, up_read.get()?, grad_read.get()?);
        let mut grad_gate = vec![0f32; gates.len()];
        let mut grad_up = vec![0f32; gates.len()];
        let inputs = gates.iter().zip(ups).zip(grads);
        let outputs = grad_gate.iter_mut().zip(&mut grad_up);
        for (((gate, up), grad), (to_gate, to_up)) in inputs.zip(outputs) {
            let sigmoid = sigmoid(*gate);
            *to_gate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
            *to_up = grad * gate * sigmoid;
        }
        Ok((Some(tensor(grad_gate, gate)?), Some(tensor(grad_up, up)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{noise, same};
    use super::*;

    #[test]
    fn fused_agrees_with_composed() {
        let (gate, up) = (noise(&[7, 33], 1), noise(&[7, 33], 2));
        let run = |kernels| swiglu(kernels, &gate, &up);
        same(&[gate.clone(), up.clone()], || run(Kernels::Fused), || run(Kernels::Composed));
    }
}
