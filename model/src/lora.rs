//! Low-rank adapters: `y = W x + (alpha / r) B A x`, stored as PEFT stores them.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::config::Qwen3Config;
use crate::error::{ModelError, Result};
use crate::ops;
use crate::weights::{Weights, linear_shapes, read_safetensors, write_atomically, write_safetensors};

/// File with the adapter's settings.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// File with the adapter's matrices.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

const PREFIX: &str = "base_model.model.";

/// Rank, scale and reach of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rank `r`.
    pub rank: usize,
    /// Numerator of the scale `alpha / r`.
    pub alpha: f64,
    /// Last names of the layers that get one, such as `q_proj`.
    pub targets: BTreeSet<String>,
}

impl LoraConfig {
    /// An adapter on all seven linear layers of every block.
    #[must_use]
    pub fn all_linears(rank: usize, alpha: f64) -> Self {
        let names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        Self { rank, alpha, targets: names.into_iter().map(str::to_owned).collect() }
    }

    fn validate(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(ModelError::Adapter("field r must be at least 1".into()));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(ModelError::Adapter(format!("field lora_alpha is {}, it must be above 0", self.alpha)));
        }
        let known = Self::all_linears(1, 1.0).targets;
        match self.targets.iter().find(|target| !known.contains(*target)) {
            Some(target) => {
                Err(ModelError::Adapter(format!("field target_modules names {target}, known are {known:?}")))
            }
            None if self.targets.is_empty() => Err(ModelError::Adapter("field target_modules is empty".into())),
            None => Ok(()),
        }
    }

    /// Paths of the adapted layers with the rows and columns of their weights.
    fn modules(&self, config: &Qwen3Config) -> Vec<(String, usize, usize)> {
        let layers = (0..config.num_hidden_layers).flat_map(|layer| {
            let wanted = linear_shapes(config)
                .into_iter()
                .filter(|(path, ..)| self.targets.iter().any(|t| path.ends_with(t.as_str())));
            wanted.map(move |(path, rows, columns)| (format!("model.layers.{layer}.{path}"), rows, columns))
        });
        layers.collect()
    }

    fn from_json(value: &Value) -> Result<Self> {
        let refuse = |field: &str, why: &str| Err(ModelError::Adapter(format!("field {field} {why}")));
        if value.get("peft_type").and_then(Value::as_str).is_some_and(|kind| kind != "LORA") {
            return refuse("peft_type", "is not LORA");
        }
        for field in ["use_rslora", "use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out"] {
            if value.get(field).and_then(Value::as_bool) == Some(true) {
                return refuse(field, "is true, only plain lora is supported");
            }
        }
        for field in ["rank_pattern", "alpha_pattern"] {
            if value.get(field).and_then(Value::as_object).is_some_and(|map| !map.is_empty()) {
                return refuse(field, "is not empty, one rank and one alpha for all layers are supported");
            }
        }
        for field in
            ["modules_to_save", "layers_to_transform", "layers_pattern", "layer_replication", "exclude_modules"]
        {
            if value.get(field).is_some_and(|value| !value.is_null()) {
                return refuse(field, "is set, only adapters on the same layers of every block are supported");
            }
        }
        if value.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
            return refuse("bias", "must be none");
        }
        let Some(rank) = value.get("r").and_then(Value::as_u64) else { return refuse("r", "is no whole number") };
        let Some(alpha) = value.get("lora_alpha").and_then(Value::as_f64) else {
            return refuse("lora_alpha", "is no number");
        };
        let Some(targets) = value.get("target_modules").and_then(Value::as_array) else {
            return refuse("target_modules", "must be a list of names");
        };
        let targets = targets.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let config = Self { rank: rank as usize, alpha, targets };
        config.validate()?;
        Ok(config)
    }

    fn to_json(&self) -> Value {
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": null,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "modules_to_save": null,
            "r": self.rank,
            "rank_pattern": {},
            "alpha_pattern": {},
            "target_modules": self.targets,
            "use_dora": false,
            "use_rslora": false,
        })
    }
}

/// The matrices beside one linear layer.
#[derive(Debug, Clone)]
pub(crate) struct LowRank {
    a: Tensor,
    b: Tensor,
    scale: f64,
}

impl LowRank {
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        ops::matmul_nt(&ops::matmul_nt(x, &self.a)?, &self.b)? * self.scale
    }

    pub(crate) fn detached(&self) -> Self {
        Self { a: self.a.detach(), b: self.b.detach(), scale: self.scale }
    }
}

/// An adapter: a pair of matrices `A [r, in]`, `B [out, r]` for each adapted layer.
#[derive(Debug, Clone)]
pub struct Lora {
    config: LoraConfig,
    pairs: BTreeMap<String, (Var, Var)>,
}

impl Lora {
    /// A fresh adapter that changes nothing yet: `A` uniform in `±1 / sqrt(in)` (Kaiming, a = √5), `B` zero.
    ///
    /// # Errors
    /// Where rank, alpha or a target is not usable.
    pub fn init(lora: &LoraConfig, model: &Qwen3Config, seed: u64, device: &Device) -> Result<Self> {
        lora.validate()?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut pairs = BTreeMap::new();
        for (module, rows, columns) in lora.modules(model) {
            let bound = 1.0 / (columns as f32).sqrt();
            let a: Vec<f32> = (0..lora.rank * columns).map(|_| rng.random_range(-bound..bound)).collect();
            let a = Var::from_tensor(&Tensor::from_vec(a, (lora.rank, columns), device)?)?;
            let b = Var::zeros((rows, lora.rank), candle_core::DType::F32, device)?;
            pairs.insert(module, (a, b));
        }
        Ok(Self { config: lora.clone(), pairs })
    }

    /// Reads a PEFT folder for a model.
    ///
    /// # Errors
    /// Where a file is absent or damaged, the adapter is of another kind than plain LoRA, or a shape does not fit.
    pub fn read(dir: &Path, model: &Qwen3Config, device: &Device) -> Result<Self> {
        let path = dir.join(ADAPTER_CONFIG);
        if !path.exists() {
            return Err(ModelError::Missing { path, fix: "an adapter folder needs its adapter_config.json" });
        }
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let value = serde_json::from_str(&text).map_err(|e| ModelError::corrupt(&path, e))?;
        let config = LoraConfig::from_json(&value)?;
        let weights = read_safetensors(&dir.join(ADAPTER_WEIGHTS), device)?;
        Self::from_weights(config, weights, model)
    }

    fn from_weights(config: LoraConfig, weights: Weights, model: &Qwen3Config) -> Result<Self> {
        // the prefix is PEFT's own; files from other tools leave it out
        let mut weights: Weights = weights
            .into_iter()
            .map(|(name, tensor)| {
                (name.strip_prefix(PREFIX).unwrap_or(&name).replace(".default.weight", ".weight"), tensor)
            })
            .collect();
        let mut pairs = BTreeMap::new();
        for (module, rows, columns) in config.modules(model) {
            let mut take = |matrix: &str, shape: [usize; 2]| {
                let name = format!("{module}.{matrix}.weight");
                let tensor =
                    weights.remove(&name).ok_or_else(|| ModelError::weight(&name, "is missing in the adapter"))?;
                if tensor.dims() != shape {
                    return Err(ModelError::weight(
                        &name,
                        format!("has shape {:?}, expected {shape:?}", tensor.dims()),
                    ));
                }
                Ok(Var::from_tensor(&tensor)?)
            };
            let a = take("lora_A", [config.rank, columns])?;
            let b = take("lora_B", [rows, config.rank])?;
            pairs.insert(module, (a, b));
        }
        match weights.keys().next() {
            Some(name) => Err(ModelError::weight(name, "belongs to no layer of this model")),
            None => Ok(Self { config, pairs }),
        }
    }

    /// Writes the adapter as a PEFT folder; each file appears whole.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
        write_safetensors(&dir.join(ADAPTER_WEIGHTS), &self.weights())?;
        let text = format!("{:#}\n", self.config.to_json());
        write_atomically(&dir.join(ADAPTER_CONFIG), text.as_bytes())
    }

    /// Rank, scale and reach.
    #[must_use]
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The matrices by their PEFT names.
    #[must_use]
    pub fn vars(&self) -> BTreeMap<String, Var> {
        let names = self.pairs.iter().flat_map(|(module, (a, b))| {
            let name = |matrix: &str| format!("{PREFIX}{module}.{matrix}.weight");
            [(name("lora_A"), a.clone()), (name("lora_B"), b.clone())]
        });
        names.collect()
    }

    fn weights(&self) -> Weights {
        self.vars().into_iter().map(|(name, var)| (name, var.as_tensor().detach())).collect()
    }

    /// An independent copy, which further training of this one does not change.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn snapshot(&self) -> Result<Self> {
        let copy = |var: &Var| Var::from_tensor(&var.as_tensor().detach().copy()?);
        let pairs = self
            .pairs
            .iter()
            .map(|(module, (a, b))| Ok((module.clone(), (copy(a)?, copy(b)?))))
            .collect::<Result<_>>()?;
        Ok(Self { config: self.config.clone(), pairs })
    }

    fn scale(&self) -> f64 {
        self.config.alpha / self.config.rank as f64
    }

    pub(crate) fn low_rank(&self, module: &str) -> Option<LowRank> {
        let (a, b) = self.pairs.get(module)?;
        Some(LowRank { a: a.as_tensor().clone(), b: b.as_tensor().clone(), scale: self.scale() })
    }

    pub(crate) fn check(&self, model: &Qwen3Config) -> Result<()> {
        for (module, rows, columns) in self.config.modules(model) {
            let fits = self.pairs.get(&module).is_some_and(|(a, b)| a.dims()[1] == columns && b.dims()[0] == rows);
            if !fits {
                return Err(ModelError::Adapter(format!("layer {module} has no matrices of the model's shape")));
            }
        }
        Ok(())
    }

    /// `W + (alpha / r) B A` for each adapted layer, the other weights as they are.
    pub(crate) fn merge(&self, model: &Qwen3Config, weights: &Weights) -> Result<Weights> {
        self.check(model)?;
        let mut merged: Weights = weights.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
        for (module, (a, b)) in &self.pairs {
            let name = format!("{module}.weight");
            let base = merged.get(&name).ok_or_else(|| ModelError::weight(&name, "is missing"))?;
            let change = (b.as_tensor().detach().matmul(&a.as_tensor().detach())? * self.scale())?;
            let sum = (base + change)?;
            merged.insert(name, sum);
        }
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_of_adapters_are_refused_by_field() {
        let plain = LoraConfig::all_linears(4, 8.0).to_json();
        assert_eq!(LoraConfig::from_json(&plain).unwrap(), LoraConfig::all_linears(4, 8.0));
        let refused = [
            ("use_rslora", json!(true)),
            ("use_dora", json!(true)),
            ("rank_pattern", json!({"q_proj": 2})),
            ("lora_alpha", json!(0)),
            ("lora_alpha", json!(-1)),
            ("r", json!(0)),
            ("target_modules", json!("all-linear")),
            ("target_modules", json!(["lm_head"])),
            ("bias", json!("all")),
        ];
        for (field, value) in refused {
            let mut changed = plain.clone();
            changed[field] = value;
            let message = LoraConfig::from_json(&changed).unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
