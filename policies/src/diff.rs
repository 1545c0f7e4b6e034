//! How two policies differ.

use std::collections::{BTreeMap, BTreeSet};

use recast_domain::PolicyId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::adapter::{ADAPTER_WEIGHTS, Matrix, read_tensors};
use crate::error::{PolicyError, Result};
use crate::manifest::{MANIFEST, Manifest};
use crate::scope::Scope;
use crate::store::PolicyStore;

/// A field of the manifest that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Where, as a path with dots: `config.learning_rate`.
    pub field: String,
    /// In the first policy; `None` where it is absent.
    pub left: Option<Value>,
    /// In the second.
    pub right: Option<Value>,
}

/// How far a matrix moved. Norms are Frobenius norms: the root of the sum of squares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorChange {
    /// Layer and `lora_A` or `lora_B`.
    pub tensor: String,
    /// Norm in the first policy; `None` where it has no such matrix.
    pub left: Option<f64>,
    /// Norm in the second.
    pub right: Option<f64>,
    /// Norm of the difference; `None` where one lacks it or the shapes differ.
    pub distance: Option<f64>,
}

/// What differs between two policies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// Manifest fields that differ, in order of their paths.
    pub fields: Vec<FieldChange>,
    /// All matrices of both, in order of their names.
    pub tensors: Vec<TensorChange>,
}

impl PolicyStore {
    /// Compares two policies of a scope.
    ///
    /// # Errors
    /// One of them does not exist or is not sound.
    pub fn diff(&self, scope: &Scope, left: &PolicyId, right: &PolicyId) -> Result<Diff> {
        let (left, right) = (self.load(scope, left)?, self.load(scope, right)?);
        let flat = |manifest: &Manifest| -> Result<BTreeMap<String, Value>> {
            let value = serde_json::to_value(manifest)
                .map_err(|error| PolicyError::damaged(&left.dir.join(MANIFEST), error.to_string()))?;
            let mut fields = BTreeMap::new();
            flatten("", value, &mut fields);
            Ok(fields)
        };
        let fields = changes(&flat(&left.manifest)?, &flat(&right.manifest)?);
        let tensors = |dir: &std::path::Path| read_tensors(&dir.join(ADAPTER_WEIGHTS));
        Ok(Diff { fields, tensors: distances(&tensors(&left.dir)?, &tensors(&right.dir)?) })
    }
}

fn flatten(path: &str, value: Value, fields: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                flatten(&path, value, fields);
            }
        }
        other => {
            fields.insert(path.to_owned(), other);
        }
    }
}

fn changes(left: &BTreeMap<String, Value>, right: &BTreeMap<String, Value>) -> Vec<FieldChange> {
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let differing = names.into_iter().filter(|name| left.get(*name) != right.get(*name));
    differing
        .map(|name| FieldChange { field: name.clone(), left: left.get(name).cloned(), right: right.get(name).cloned() })
        .collect()
}

fn distances(left: &BTreeMap<String, Matrix>, right: &BTreeMap<String, Matrix>) -> Vec<TensorChange> {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let size = |matrix: &Matrix| norm(&mut matrix.values.iter().copied());
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let change = |name: &String| {
        let (a, b) = (left.get(name), right.get(name));
        let pair = a.zip(b).filter(|(a, b)| a.shape == b.shape);
        TensorChange {
            tensor: name.clone(),
            left: a.map(size),
            right: b.map(size),
            distance: pair.map(|(a, b)| norm(&mut a.values.iter().zip(&b.values).map(|(x, y)| x - y))),
        }
    };
    names.into_iter().map(change).collect()
}
