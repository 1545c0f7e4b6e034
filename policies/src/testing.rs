//! A tiny base model and adapters for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use recast_domain::PolicyId;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, BaseModel, DataRange, Draft, PolicyStore, Scope};

/// Two layers with a `q_proj` of 4 x 3 and a `v_proj` of 2 x 3.
pub fn base_shapes() -> BTreeMap<String, Vec<usize>> {
    let shapes = |layer: u32| {
        let name = move |projection| format!("model.layers.{layer}.self_attn.{projection}.weight");
        [(name("q_proj"), vec![4, 3]), (name("v_proj"), vec![2, 3])]
    };
    let mut all: BTreeMap<_, _> = (0..2).flat_map(shapes).collect();
    all.insert("model.norm.weight".to_owned(), vec![3]);
    all
}

pub fn base() -> BaseModel {
    BaseModel { hash: "ba5e".repeat(16), shapes: base_shapes() }
}

/// An adapter as a trainer leaves it.
pub struct TestAdapter {
    pub config: Value,
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl TestAdapter {
    /// Rank 2 on `q_proj`, every number `fill`.
    pub fn filled(fill: f32) -> Self {
        let config =
            json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4.0, "target_modules": ["q_proj"], "bias": "none"});
        let pair = |layer: u32| {
            let name = move |matrix| format!("base_model.model.model.layers.{layer}.self_attn.q_proj.{matrix}.weight");
            [(name("lora_A"), (vec![2, 3], vec![fill; 6])), (name("lora_B"), (vec![4, 2], vec![fill; 8]))]
        };
        Self { config, tensors: (0..2).flat_map(pair).collect() }
    }

    pub fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(ADAPTER_CONFIG), self.config.to_string()).unwrap();
        write_tensors(&dir.join(ADAPTER_WEIGHTS), &self.tensors);
    }
}

pub fn write_tensors(path: &Path, tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, (shape, _))| (name, TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

pub fn policy(name: &str) -> PolicyId {
    name.parse().unwrap()
}

pub fn acme() -> Scope {
    "acme".parse().unwrap()
}

/// A draft of scope `acme` from an adapter's folder.
pub fn draft<'a>(name: &str, adapter: &'a Path, created_ms: i64) -> Draft<'a> {
    Draft {
        scope: acme(),
        policy: policy(name),
        parent: None,
        adapter,
        data: DataRange { examples: 7, sources: vec!["dialogues".to_owned()], ..DataRange::default() },
        config: json!({"learning_rate": 1e-4}),
        metrics: BTreeMap::from([("recall@3".to_owned(), 0.5)]),
        created_ms,
    }
}

/// A store in a folder of its own, and an adapter to publish.
pub struct TestStore {
    pub dir: tempfile::TempDir,
    pub store: PolicyStore,
    pub adapter: PathBuf,
}

impl TestStore {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = PolicyStore::open(&dir.path().join("policies"), base()).unwrap();
        let adapter = dir.path().join("adapter");
        TestAdapter::filled(0.5).write(&adapter);
        Self { dir, store, adapter }
    }

    /// With policies of these names, a millisecond apart.
    pub fn with(names: &[&str]) -> Self {
        let test = Self::new();
        for (at_ms, name) in (0..).zip(names) {
            test.publish(name, at_ms);
        }
        test
    }

    pub fn publish(&self, name: &str, at_ms: i64) {
        self.store.publish(&draft(name, &self.adapter, at_ms)).unwrap();
    }

    pub fn policy_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join("policies/acme").join(name)
    }

    pub fn names(&self) -> Vec<String> {
        self.store.list(&acme()).unwrap().iter().map(|manifest| manifest.policy.to_string()).collect()
    }

    /// Name of the active policy.
    pub fn current(&self) -> Option<String> {
        self.store.active(&acme()).unwrap().current.map(|active| active.policy.to_string())
    }
}

/// Replaces a sealed file, as somebody with the rights to do so would.
pub fn tamper(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}
