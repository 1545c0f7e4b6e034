//! `a b^T`, the product of a linear layer (and of attention scores), with the gradient written out.
//!
//! The library's own product keeps a gradient for frozen weights and returns transposed views that later steps walk
//! number by number; here the gradients come out contiguous, and a frozen weight gets none.
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor};

/// `a [.., m, k]` times the transpose of `b [.., n, k]`, leading sizes equal: `[.., m, n]`.
pub(crate) fn matmul_nt(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.apply_op2(b, ProductNt)
}

/// `x [m, k]` times the transpose of a weight `[n, k]` that is not trained.
pub(crate) fn matmul_frozen(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.apply_op1(Frozen { weight: weight.detach() })
}

struct ProductNt;

fn product<S: BackendStorage>(a: &S, a_layout: &Layout, b: &S, b_layout: &Layout) -> Result<(S, Shape)> {
    let (a_dims, b_dims) = (a_layout.dims(), b_layout.dims());
    let rank = a_dims.len();
    let fits = rank >= 2
        && b_dims.len() == rank
        && a_dims[..rank - 2] == b_dims[..rank - 2]
        && a_dims[rank - 1] == b_dims[rank - 1];
    if !fits {
        candle_core::bail!("cannot multiply {a_dims:?} by the transpose of {b_dims:?}");
    }
    let batch: usize = a_dims[..rank - 2].iter().product();
    let (m, n, k) = (a_dims[rank - 2], b_dims[rank - 2], a_dims[rank - 1]);
    let turned = b_layout.transpose(rank - 2, rank - 1)?;
    let result = a.matmul(b, (batch, m, n, k), a_layout, &turned)?;
    let mut dims = a_dims.to_vec();
    dims[rank - 1] = n;
    Ok((result, Shape::from(dims)))
}

impl CustomOp2 for ProductNt {
    fn name(&self) -> &'static str {
        "matmul-nt"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        product(a, a_layout, b, b_layout)
    }

    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        product(a, a_layout, b, b_layout)
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let rank = grad.rank();
        let grad_a = grad.matmul(&b.detach())?;
        let grad_b = grad.transpose(rank - 2, rank - 1)?.matmul(&a.detach())?;
        Ok((Some(grad_a), Some(grad_b)))
    }
}

struct Frozen {
    weight: Tensor,
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "matmul-frozen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (weight, weight_layout) = self.weight.storage_and_layout();
        match &*weight {
            Storage::Cpu(weight) => product(x, layout, weight, weight_layout),
            _ => candle_core::bail!("the weight is on another device than its input"),
        }
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (weight, weight_layout) = self.weight.storage_and_layout();
        match &*weight {
            Storage::Cuda(weight) => product(x, layout, weight, weight_layout),
            _ => candle_core::bail!("the weight is on another device than its input"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        grad.matmul(&self.weight).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{noise, same};
    use super::*;

    #[test]
    fn agrees_with_the_library_in_value_and_gradient() {
        let (a, b) = (noise(&[2, 5, 3], 1), noise(&[2, 4, 3], 2));
        same(&[a.clone(), b.clone()], || matmul_nt(&a, &b), || a.matmul(&b.t()?));
    }

    #[test]
    fn a_frozen_weight_gets_no_gradient() {
        let (x, weight) = (noise(&[5, 3], 1), noise(&[4, 3], 2));
        same(std::slice::from_ref(&x), || matmul_frozen(&x, &weight), || x.matmul(&weight.t()?));
        let grads = matmul_frozen(&x, &weight).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&weight).is_none());
    }

    #[test]
    fn shapes_that_do_not_fit_are_an_error() {
        assert!(matmul_nt(&noise(&[5, 3], 1), &noise(&[4, 2], 2)).is_err());
    }
}
