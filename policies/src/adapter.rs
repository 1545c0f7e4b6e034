use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::BaseModel;
use crate::error::{PolicyError, Result};

/// File with the adapter's settings, as PEFT names it.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// File with the adapter's matrices, as PEFT names it.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// PEFT's own prefix of tensor names.
const PREFIX: &str = "base_model.model.";
const FIX_CONFIG: &str = "export the adapter as plain LoRA";
const FIX_WEIGHTS: &str = "export the adapter again, from a training on this base";

/// What an adapter is, once it has been found sound: `y = W x + (alpha / rank) B A x` at each target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterFacts {
    /// Rank `r` of the matrices.
    pub rank: u64,
    /// Numerator of the scale, above 0.
    pub alpha: f64,
    /// Last names of the adapted layers, such as `q_proj`.
    pub targets: BTreeSet<String>,
    /// Number of adapted layers.
    pub layers: usize,
}

impl AdapterFacts {
    /// Whether two descriptions are of one adapter. A number that was written as JSON may come back a hair off.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        let rest = |facts: &Self| (facts.rank, facts.targets.clone(), facts.layers);
        (self.alpha - other.alpha).abs() <= 1e-12 * self.alpha && rest(self) == rest(other)
    }
}

/// Checks the PEFT adapter of a folder against the base it is meant for.
///
/// # Errors
/// A file is absent or unreadable; it is not plain LoRA; `lora_alpha` or `r` is not above 0; a target, a matrix or its
/// shape does not fit the base; a number is not finite.
pub fn check_adapter(dir: &Path, base: &BaseModel) -> Result<AdapterFacts> {
    let (rank, alpha, targets) = read_config(&dir.join(ADAPTER_CONFIG))?;
    let path = dir.join(ADAPTER_WEIGHTS);
    let refused = |reason: String| PolicyError::refused(&path, reason, FIX_WEIGHTS);
    let tensors = read_tensors(&path)?;

    let mut expected = BTreeMap::new();
    let mut layers = 0;
    for target in &targets {
        let adapted = base.shapes.iter().filter_map(|(name, shape)| {
            let module = name.strip_suffix(".weight")?;
            let [rows, columns] = shape[..] else { return None };
            (module.rsplit('.').next() == Some(target)).then_some((module, rows, columns))
        });
        let before = layers;
        for (module, rows, columns) in adapted {
            expected.insert(format!("{module}.lora_A"), [rank, columns]);
            expected.insert(format!("{module}.lora_B"), [rows, rank]);
            layers += 1;
        }
        if layers == before {
            let config = dir.join(ADAPTER_CONFIG);
            return Err(PolicyError::refused(&config, format!("target {target} is no layer of the base"), FIX_WEIGHTS));
        }
    }
    for (name, shape) in &expected {
        let tensor = tensors.get(name).ok_or_else(|| refused(format!("{name} is missing")))?;
        if tensor.shape != shape {
            return Err(refused(format!("{name} has shape {:?}, the base and r ask for {shape:?}", tensor.shape)));
        }
        if let Some(index) = tensor.values.iter().position(|value| !value.is_finite()) {
            return Err(refused(format!("{name} holds a number that is not finite, at {index}")));
        }
    }
    match tensors.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(refused(format!("{name} belongs to no target of adapter_config.json"))),
        None => Ok(AdapterFacts { rank: rank as u64, alpha, targets, layers }),
    }
}

/// A matrix of an adapter, in row-major order.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// The matrices of an adapter by layer and `lora_A` or `lora_B`, without what exporters put around the names.
pub(crate) fn read_tensors(path: &Path) -> Result<BTreeMap<String, Matrix>> {
    let bytes = read(path)?;
    let refused = |reason: String| PolicyError::refused(path, reason, FIX_WEIGHTS);
    let file = SafeTensors::deserialize(&bytes).map_err(|error| refused(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let values = values(&view).ok_or_else(|| refused(format!("{name} is {:?}, no float", view.dtype())))?;
        let plain = name.strip_prefix(PREFIX).unwrap_or(name);
        let plain = plain.strip_suffix(".weight").unwrap_or(plain);
        let plain = plain.strip_suffix(".default").unwrap_or(plain);
        if tensors.insert(plain.to_owned(), Matrix { shape: view.shape().to_vec(), values }).is_some() {
            return Err(refused(format!("{plain} is there twice")));
        }
    }
    Ok(tensors)
}

fn values(view: &TensorView<'_>) -> Option<Vec<f64>> {
    fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
    }
    let bytes = view.data();
    match view.dtype() {
        Dtype::F64 => Some(numbers(bytes, f64::from_le_bytes)),
        Dtype::F32 => Some(numbers(bytes, |chunk| f64::from(f32::from_le_bytes(chunk)))),
        Dtype::F16 => Some(numbers(bytes, |chunk| f16::from_le_bytes(chunk).to_f64())),
        Dtype::BF16 => Some(numbers(bytes, |chunk| bf16::from_le_bytes(chunk).to_f64())),
        _ => None,
    }
}

/// Rank, alpha and targets of `adapter_config.json`; refuses what changes the formula of plain LoRA.
fn read_config(path: &Path) -> Result<(usize, f64, BTreeSet<String>)> {
    let refuse = |reason: String| PolicyError::refused(path, reason, FIX_CONFIG);
    let config: Value = serde_json::from_slice(&read(path)?).map_err(|error| refuse(error.to_string()))?;
    let field = |name: &str| config.get(name).filter(|value| !value.is_null());

    if field("peft_type").and_then(Value::as_str).is_some_and(|kind| kind != "LORA") {
        return Err(refuse("field peft_type is not LORA".to_owned()));
    }
    for name in ["use_rslora", "use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out"] {
        if field(name).and_then(Value::as_bool) == Some(true) {
            return Err(refuse(format!("field {name} is true")));
        }
    }
    for name in ["rank_pattern", "alpha_pattern"] {
        if field(name).and_then(Value::as_object).is_some_and(|map| !map.is_empty()) {
            return Err(refuse(format!("field {name} is not empty")));
        }
    }
    for name in ["modules_to_save", "layers_to_transform", "layers_pattern", "layer_replication", "exclude_modules"] {
        if field(name).is_some() {
            return Err(refuse(format!("field {name} is set")));
        }
    }
    if field("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
        return Err(refuse("field bias is not none".to_owned()));
    }
    let rank = field("r").and_then(Value::as_u64).filter(|rank| *rank > 0);
    let rank = rank.and_then(|rank| usize::try_from(rank).ok());
    let rank = rank.ok_or_else(|| refuse("field r must be a whole number above 0".to_owned()))?;
    let alpha = field("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite() && *alpha > 0.0);
    let alpha = alpha.ok_or_else(|| refuse("field lora_alpha must be a number above 0".to_owned()))?;
    let targets = field("target_modules").and_then(Value::as_array).filter(|list| !list.is_empty());
    let targets = targets.and_then(|list| list.iter().map(|name| name.as_str().map(str::to_owned)).collect());
    let targets = targets.ok_or_else(|| refuse("field target_modules must be a list of names".to_owned()))?;
    Ok((rank, alpha, targets))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(PolicyError::refused(path, "is missing", "give the whole folder of the adapter"))
        }
        other => other.map_err(PolicyError::io(path)),
    }
}
