//! A value head on the hidden states of the policy's trunk.
use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use recast_model::{AdamW, AdamWConfig};

use super::settings::CriticSettings;
use crate::error::Result;

const WEIGHT: &str = "value.weight";
const BIAS: &str = "value.bias";

/// `V = w h + b` for a hidden state `h`, with an optimizer of its own.
#[derive(Debug)]
pub struct Critic {
    settings: CriticSettings,
    vars: BTreeMap<String, Var>,
    weight: Var,
    bias: Var,
    pub(crate) optimizer: AdamW,
}

impl Critic {
    /// A critic that says 0 everywhere.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn new(settings: CriticSettings, hidden: usize, device: &Device) -> Result<Self> {
        let weight = Var::zeros((1, hidden), DType::F32, device)?;
        let bias = Var::zeros(1, DType::F32, device)?;
        let vars = BTreeMap::from([(WEIGHT.to_owned(), weight.clone()), (BIAS.to_owned(), bias.clone())]);
        let optimizer = AdamW::new(&vars, AdamWConfig { max_grad_norm: f64::INFINITY, ..AdamWConfig::default() })?;
        Ok(Self { settings, vars, weight, bias, optimizer })
    }

    /// Its numbers.
    #[must_use]
    pub fn settings(&self) -> &CriticSettings {
        &self.settings
    }

    /// What is trained.
    #[must_use]
    pub fn vars(&self) -> &BTreeMap<String, Var> {
        &self.vars
    }

    /// Values `[n]` of hidden states `[n, hidden]`, with gradient; into the trunk only where the settings say so.
    ///
    /// # Errors
    /// Where the width differs.
    pub fn values(&self, hidden: &Tensor) -> Result<Tensor> {
        let share = self.settings.trunk_weight;
        // value h + share (h - value h) has the value of h and a share of its gradient
        let hidden = match share {
            0.0 => hidden.detach(),
            _ => (hidden.detach() + ((hidden - hidden.detach())? * share)?)?,
        };
        let product = hidden.broadcast_mul(&self.weight)?.sum(1)?;
        Ok(product.broadcast_add(&self.bias)?)
    }
}
