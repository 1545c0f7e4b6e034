//! Between the layout of the linear layers `[rows * width, heads * size]` and that of attention
//! `[rows, heads, width, size]`, with the rotary embedding applied on the way.
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};

use super::{Frame, Kernels, contiguous};

/// Cosines and sines of the rotary embedding, `[positions, size / 2]` each.
#[derive(Debug)]
pub(crate) struct Rotary {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    pub(crate) fn new(positions: usize, size: usize, theta: f64) -> Self {
        let half = size / 2;
        let angle = |position: usize, i: usize| position as f64 / theta.powf(2.0 * i as f64 / size as f64);
        let angles = (0..positions).flat_map(|position| (0..half).map(move |i| angle(position, i)));
        let (cos, sin) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        Self { half, cos, sin }
    }

    pub(crate) fn positions(&self) -> usize {
        self.cos.len() / self.half
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// Heads of `x [rows * width, heads * size]`, rotated to their positions: `[rows, heads, width, size]`.
pub(crate) fn rotate_heads(kernels: Kernels, x: &Tensor, rotary: &Arc<Rotary>, frame: &Frame) -> Result<Tensor> {
    match kernels {
        Kernels::Fused => {
            x.apply_op1(Split { frame: frame.clone(), size: 2 * rotary.half, rotary: Some(rotary.clone()) })
        }
        Kernels::Composed => {
            let half = rotary.half;
            let x = split_composed(x, frame, 2 * half)?;
            let (first, second) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
            let (cos, sin) = tables(rotary, frame, x.device())?;
            let left = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
            let right = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
            Tensor::cat(&[left, right], 3)
        }
    }
}

/// Heads of `x [rows * width, heads * size]` as they are: `[rows, heads, width, size]`.
pub(crate) fn split_heads(kernels: Kernels, x: &Tensor, size: usize, frame: &Frame) -> Result<Tensor> {
    match kernels {
        Kernels::Fused => x.apply_op1(Split { frame: frame.clone(), size, rotary: None }),
        Kernels::Composed => split_composed(x, frame, size),
    }
}

/// The inverse of [`split_heads`].
pub(crate) fn join_heads(kernels: Kernels, x: &Tensor, frame: &Frame) -> Result<Tensor> {
    let (_, heads, _, size) = x.dims4()?;
    match kernels {
        Kernels::Fused => x.apply_op1(Join { frame: frame.clone(), size, rotary: None }),
        Kernels::Composed => x.transpose(1, 2)?.reshape((frame.rows * frame.width, heads * size)),
    }
}

fn split_composed(x: &Tensor, frame: &Frame, size: usize) -> Result<Tensor> {
    let heads = x.dim(1)? / size;
    x.reshape((frame.rows, frame.width, heads, size))?.transpose(1, 2)?.contiguous()
}

fn tables(rotary: &Rotary, frame: &Frame, device: &Device) -> Result<(Tensor, Tensor)> {
    let mut cos = Vec::new();
    let mut sin = Vec::new();
    for row in 0..frame.rows {
        for column in 0..frame.width {
            let (c, s) = rotary.at(frame.position(row, column));
            cos.extend_from_slice(c);
            sin.extend_from_slice(s);
        }
    }
    let shape = (frame.rows, 1, frame.width, rotary.half);
    Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
}

struct Split {
    frame: Frame,
    size: usize,
    rotary: Option<Arc<Rotary>>,
}

struct Join {
    frame: Frame,
    size: usize,
    /// Present in the gradient of a rotated split: turn back.
    rotary: Option<Arc<Rotary>>,
}

/// Calls `copy(flat offset, heads offset, row, column)` for each head of each token; offsets count numbers.
fn each_head(frame: &Frame, heads: usize, size: usize, mut copy: impl FnMut(usize, usize, usize, usize)) {
    for row in 0..frame.rows {
        for column in 0..frame.width {
            let token = row * frame.width + column;
            for head in 0..heads {
                let flat = (token * heads + head) * size;
                let split = ((row * heads + head) * frame.width + column) * size;
                copy(flat, split, row, column);
            }
        }
    }
}

fn turn(from: &[f32], to: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    let half = cos.len();
    let (from_first, from_second) = from.split_at(half);
    let (to_first, to_second) = to.split_at_mut(half);
    for i in 0..half {
        let sine = sign * sin[i];
        to_first[i] = from_first[i] * cos[i] - from_second[i] * sine;
        to_second[i] = from_second[i] * cos[i] + from_first[i] * sine;
    }
}

impl CustomOp1 for Split {
    fn name(&self) -> &'static str {
        "split-heads"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let from = contiguous(x, layout, "split-heads")?;
        let (frame, size) = (&self.frame, self.size);
        let heads = from.len() / (frame.rows * frame.width * size);
        let mut to = vec![0f32; from.len()];
        each_head(frame, heads, size, |flat, split, row, column| {
            let (from, to) = (&from[flat..flat + size], &mut to[split..split + size]);
            match &self.rotary {
                Some(rotary) => {
                    let (cos, sin) = rotary.at(frame.position(row, column));
                    turn(from, to, cos, sin, 1.0);
                }
                None => to.copy_from_slice(from),
            }
        });
        Ok((CpuStorage::F32(to), Shape::from((frame.rows, heads, frame.width, size))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Join { frame: self.frame.clone(), size: self.size, rotary: self.rotary.clone() };
        grad.contiguous()?.apply_op1_no_bwd(&back).map(Some)
    }
}

impl CustomOp1 for Join {
    fn name(&self) -> &'static str {
        "join-heads"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let from = contiguous(x, layout, "join-heads")?;
        let (frame, size) = (&self.frame, self.size);
        let heads = from.len() / (frame.rows * frame.width * size);
        let mut to = vec![0f32; from.len()];
        each_head(frame, heads, size, |flat, split, row, column| {
            let (from, to) = (&from[split..split + size], &mut to[flat..flat + size]);
            match &self.rotary {
                Some(rotary) => {
                    let (cos, sin) = rotary.at(frame.position(row, column));
                    turn(from, to, cos, sin, -1.0);
                }
                None => to.copy_from_slice(from),
            }
        });
        Ok((CpuStorage::F32(to), Shape::from((frame.rows * frame.width, heads * size))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Split { frame: self.frame.clone(), size: self.size, rotary: None };
        grad.contiguous()?.apply_op1_no_bwd(&back).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, noise, same};
    use super::*;

    fn frame() -> Frame {
        Frame { rows: 2, width: 5, past: 0, starts: Arc::new(vec![0, 2]), ends: Arc::new(vec![5, 5]) }
    }

    #[test]
    fn fused_rotation_agrees_with_composed() {
        let x = noise(&[10, 24], 1);
        let rotary = Arc::new(Rotary::new(8, 8, 10_000.0));
        let run = |kernels| rotate_heads(kernels, &x, &rotary, &frame());
        same(std::slice::from_ref(&x), || run(Kernels::Fused), || run(Kernels::Composed));
    }

    #[test]
    fn joining_undoes_splitting() {
        let x = noise(&[10, 24], 1);
        for kernels in [Kernels::Fused, Kernels::Composed] {
            let split = split_heads(kernels, &x, 8, &frame()).unwrap();
            assert_close(&join_heads(kernels, &split, &frame()).unwrap(), &x, 0.0);
        }
        let split = split_heads(Kernels::Composed, &x, 8, &frame()).unwrap();
        let heads = noise(split.dims(), 3);
        let run = |kernels| join_heads(kernels, &heads, &frame());
        same(std::slice::from_ref(&heads), || run(Kernels::Fused), || run(Kernels::Composed));
    }
}
