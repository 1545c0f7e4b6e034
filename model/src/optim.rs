//! AdamW whose moments survive a restart, gradient clipping, and learning-rate schedules.
use std::collections::BTreeMap;
use std::path::Path;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};

use crate::error::{ModelError, Result};
use crate::weights::{Weights, read_safetensors, write_safetensors};

/// Settings of [`AdamW`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of matrices; vectors (norms) are not decayed.
    pub weight_decay: f64,
    /// Largest global norm of the gradients; infinity does not clip.
    pub max_grad_norm: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 }
    }
}

/// Gradients by variable name, summed over the micro-batches of a step.
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor>);

impl Gradients {
    /// Adds `scale` times the gradients of one backward pass.
    ///
    /// # Errors
    /// Where the tensors do not fit each other.
    pub fn add(&mut self, vars: &BTreeMap<String, Var>, store: &GradStore, scale: f64) -> Result<()> {
        for (name, var) in vars {
            let Some(grad) = store.get(var) else { continue };
            let grad = if scale == 1.0 { grad.clone() } else { (grad * scale)? };
            let sum = match self.0.get(name) {
                Some(sum) => (sum + grad)?,
                None => grad,
            };
            self.0.insert(name.clone(), sum);
        }
        Ok(())
    }

    /// The gradient of a variable, absent where the loss did not reach it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Root of the sum of squares over all gradients.
    ///
    /// # Errors
    /// Where a tensor cannot be read.
    pub fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for grad in self.0.values() {
            sum += f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        Ok(sum.sqrt())
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Global norm of the gradients before clipping.
    pub grad_norm: f64,
    /// False where the norm was not finite: the weights and moments were left alone.
    pub applied: bool,
}

/// AdamW over named variables.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    vars: BTreeMap<String, Var>,
    moments: BTreeMap<String, (Tensor, Tensor)>,
    steps: u32,
}

impl AdamW {
    /// An optimizer that has made no step.
    ///
    /// # Errors
    /// Where the device has no room for the moments.
    pub fn new(vars: &BTreeMap<String, Var>, config: AdamWConfig) -> Result<Self> {
        let moments = vars
            .iter()
            .map(|(name, var)| Ok((name.clone(), (var.zeros_like()?.detach(), var.zeros_like()?.detach()))))
            .collect::<Result<_>>()?;
        Ok(Self { config, vars: vars.clone(), moments, steps: 0 })
    }

    /// Steps made so far.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Clips the gradients to the global norm (`max / (norm + 1e-6)`, at most 1) and moves the variables:
    /// `m, v` updated, `w -= lr wd w`, `w -= lr m' / (sqrt(v') + eps)` with bias-corrected moments.
    ///
    /// # Errors
    /// Where a gradient does not fit its variable.
    pub fn step(&mut self, gradients: &Gradients, learning_rate: f64) -> Result<Update> {
        let grad_norm = gradients.norm()?;
        if !grad_norm.is_finite() {
            return Ok(Update { grad_norm, applied: false });
        }
        let AdamWConfig { beta1, beta2, eps, weight_decay, max_grad_norm } = self.config;
        let clip = (max_grad_norm / (grad_norm + 1e-6)).min(1.0);
        self.steps += 1;
        let correction1 = 1.0 - beta1.powf(f64::from(self.steps));
        let correction2 = (1.0 - beta2.powf(f64::from(self.steps))).sqrt();
        for (name, var) in &self.vars {
            let Some(grad) = gradients.get(name) else { continue };
            let Some((first, second)) = self.moments.get_mut(name) else { continue };
            let grad = grad.detach();
            *first = ((&*first * beta1)? + (&grad * ((1.0 - beta1) * clip))?)?;
            *second = ((&*second * beta2)? + (grad.sqr()? * ((1.0 - beta2) * clip * clip))?)?;
            let root = second.sqrt()?.affine(1.0 / correction2, eps)?;
            let change = (first.div(&root)? * (learning_rate / correction1))?;
            let weight = var.as_tensor().detach();
            let decay = if weight.rank() > 1 { learning_rate * weight_decay } else { 0.0 };
            let kept = if decay > 0.0 { (&weight * (1.0 - decay))? } else { weight };
            var.set(&(kept - change)?)?;
        }
        Ok(Update { grad_norm, applied: true })
    }

    /// Writes the moments and the count of steps.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = Weights::new();
        for (name, (first, second)) in &self.moments {
            tensors.insert(format!("first.{name}"), first.clone());
            tensors.insert(format!("second.{name}"), second.clone());
        }
        tensors.insert("steps".into(), Tensor::new(&[self.steps as f32], &Device::Cpu)?);
        write_safetensors(path, &tensors)
    }

    /// Takes the moments and the count of steps from a file that [`AdamW::save`] wrote for the same variables.
    ///
    /// # Errors
    /// Where the file is absent, damaged, or of other variables.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        let mut found = read_safetensors(path, &Device::Cpu)?;
        let mut take = |name: String| {
            found.remove(&name).ok_or_else(|| ModelError::weight(&name, "is missing in the optimizer state"))
        };
        let steps = take("steps".into())?.to_vec1::<f32>()?;
        let mut moments = BTreeMap::new();
        for (name, var) in &self.vars {
            let mut moment = |which: &str| {
                let tensor = take(format!("{which}.{name}"))?;
                if tensor.dims() != var.dims() {
                    return Err(ModelError::weight(name, format!("has moments of shape {:?}", tensor.dims())));
                }
                Ok(tensor.to_device(var.device())?)
            };
            moments.insert(name.clone(), (moment("first")?, moment("second")?));
        }
        self.moments = moments;
        self.steps = steps.first().map_or(0, |steps| *steps as u32);
        Ok(())
    }
}

/// How the learning rate moves over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Linear warm-up over `warmup` steps, then flat.
    Constant {
        /// Steps of the rise.
        warmup: u32,
    },
    /// Linear warm-up, then half a cosine down to `floor` times the peak at step `total`.
    Cosine {
        /// Steps of the rise.
        warmup: u32,
        /// Steps of the run.
        total: u32,
        /// Fraction of the peak that is left at the end.
        floor: f64,
    },
}

impl Schedule {
    /// Factor on the peak learning rate at a step (the first is 0).
    #[must_use]
    pub fn factor(self, step: u32) -> f64 {
        let (Self::Constant { warmup } | Self::Cosine { warmup, .. }) = self;
        if step < warmup {
            return f64::from(step + 1) / f64::from(warmup);
        }
        match self {
            Self::Constant { .. } => 1.0,
            Self::Cosine { warmup, total, floor } => {
                let length = f64::from(total.saturating_sub(warmup).max(1));
                let progress = (f64::from(step - warmup) / length).min(1.0);
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_var() -> BTreeMap<String, Var> {
        BTreeMap::from([("w".to_owned(), Var::new(&[[1.0f32, -2.0]], &Device::Cpu).unwrap())])
    }

    fn descend(optimizer: &mut AdamW, vars: &BTreeMap<String, Var>) -> Update {
        let store = vars["w"].sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let mut gradients = Gradients::default();
        gradients.add(vars, &store, 1.0).unwrap();
        optimizer.step(&gradients, 0.1).unwrap()
    }

    #[test]
    fn the_first_step_is_the_learning_rate_against_the_sign() {
        let vars = one_var();
        let update = descend(&mut AdamW::new(&vars, AdamWConfig::default()).unwrap(), &vars);
        assert!((update.grad_norm - 20f64.sqrt()).abs() < 1e-5);
        let moved = vars["w"].to_vec2::<f32>().unwrap();
        assert!((moved[0][0] - 0.9).abs() < 1e-5 && (moved[0][1] + 1.9).abs() < 1e-5);
    }

    #[test]
    fn a_restored_optimizer_goes_on_as_if_never_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        let vars = one_var();
        let mut optimizer = AdamW::new(&vars, AdamWConfig::default()).unwrap();
        descend(&mut optimizer, &vars);
        optimizer.save(&path).unwrap();
        let copy = BTreeMap::from([("w".to_owned(), Var::from_tensor(&vars["w"].copy().unwrap()).unwrap())]);
        let mut restored = AdamW::new(&copy, AdamWConfig::default()).unwrap();
        restored.restore(&path).unwrap();
        descend(&mut optimizer, &vars);
        descend(&mut restored, &copy);
        assert_eq!(restored.steps(), 2);
        assert_eq!(vars["w"].to_vec2::<f32>().unwrap(), copy["w"].to_vec2::<f32>().unwrap());
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let vars = one_var();
        let mut optimizer = AdamW::new(&vars, AdamWConfig::default()).unwrap();
        let store = (vars["w"].as_tensor() / 0.0).unwrap().sum_all().unwrap().backward().unwrap();
        let mut gradients = Gradients::default();
        gradients.add(&vars, &store, 1.0).unwrap();
        assert!(!optimizer.step(&gradients, 0.1).unwrap().applied);
        assert_eq!(vars["w"].to_vec2::<f32>().unwrap(), [[1.0, -2.0]]);
    }

    #[test]
    fn schedules_rise_and_fall() {
        let cosine = Schedule::Cosine { warmup: 10, total: 110, floor: 0.1 };
        assert!((cosine.factor(0) - 0.1).abs() < 1e-9);
        assert!((cosine.factor(10) - 1.0).abs() < 1e-9);
        assert!((cosine.factor(60) - 0.55).abs() < 1e-9);
        assert!((cosine.factor(500) - 0.1).abs() < 1e-9);
        assert_eq!(Schedule::Constant { warmup: 0 }.factor(7), 1.0);
    }
}
