use std::fs;

use recast_domain::ErrorKind;
use serde_json::{Value, json};

use crate::testing::{TestAdapter, TestStore, acme, base, base_shapes, draft, policy, tamper, write_tensors};
use crate::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, BaseModel, Event, MANIFEST, PolicyStore, Scope};

#[test]
fn what_is_published_is_loaded_as_it_was() {
    let test = TestStore::new();
    let published = test.store.publish(&draft("first", &test.adapter, 5)).unwrap();
    let loaded = test.store.load(&acme(), &policy("first")).unwrap();
    assert_eq!(loaded, published);
    assert_eq!((loaded.manifest.adapter.rank, loaded.manifest.adapter.layers), (2, 2));
    assert_eq!(loaded.manifest.base, base().hash);
    assert_eq!(
        fs::read(loaded.dir.join(ADAPTER_WEIGHTS)).unwrap(),
        fs::read(test.adapter.join(ADAPTER_WEIGHTS)).unwrap()
    );
    let events: Vec<Event> = test.store.journal(&acme()).unwrap().into_iter().map(|record| record.event).collect();
    assert_eq!(events, [Event::Published { policy: policy("first"), identity: published.identity }]);
}

#[test]
fn an_adapter_is_known_again_although_json_rounds() {
    let facts = crate::check_adapter(&TestStore::new().adapter, &base()).unwrap();
    let with_alpha = |alpha| crate::AdapterFacts { alpha, ..facts.clone() };
    assert!(facts.matches(&with_alpha(4.0_f64.next_up())));
    assert!(!facts.matches(&with_alpha(4.000_001)));
    assert!(!facts.matches(&crate::AdapterFacts { rank: 3, ..facts.clone() }));
}

#[test]
fn a_policy_never_changes() {
    let test = TestStore::with(&["first"]);
    let error = test.store.publish(&draft("first", &test.adapter, 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("another name"), "{error}");
    let weights = test.policy_dir("first").join(ADAPTER_WEIGHTS);
    assert!(fs::metadata(weights).unwrap().permissions().readonly());
}

#[test]
fn names_that_mean_something_else_are_refused() {
    let test = TestStore::new();
    for name in ["pass-through", "remote", "current", "journal.jsonl", "lock"] {
        let error = test.store.publish(&draft(name, &test.adapter, 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
    }
    assert!(test.names().is_empty());
}

#[test]
fn a_parent_must_be_known_here_or_to_everyone() {
    let test = TestStore::new();
    let mut child = draft("child", &test.adapter, 1);
    child.parent = Some(policy("parent"));
    assert_eq!(test.store.publish(&child).unwrap_err().kind(), ErrorKind::NotFound);
    let mut parent = draft("parent", &test.adapter, 0);
    parent.scope = Scope::Everyone;
    test.store.publish(&parent).unwrap();
    test.store.publish(&child).unwrap();
}

/// Publishes a changed adapter and returns what the store says about it; nothing may be left of it.
fn refusal(change: impl FnOnce(&mut TestAdapter)) -> String {
    let test = TestStore::new();
    let mut adapter = TestAdapter::filled(0.5);
    change(&mut adapter);
    adapter.write(&test.adapter);
    let error = test.store.publish(&draft("bad", &test.adapter, 0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(test.names().is_empty());
    error.to_string()
}

const Q_A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

#[test]
fn unsound_adapters_are_refused_with_file_and_field() {
    for alpha in [json!(0), json!(-4.0), Value::Null, json!("16")] {
        let message = refusal(|adapter| adapter.config["lora_alpha"] = alpha);
        assert!(message.contains(ADAPTER_CONFIG) && message.contains("lora_alpha"), "{message}");
    }
    assert!(refusal(|adapter| adapter.config["r"] = json!(0)).contains("field r"));
    assert!(refusal(|adapter| adapter.config["use_rslora"] = json!(true)).contains("use_rslora"));
    assert!(refusal(|adapter| adapter.config["modules_to_save"] = json!(["lm_head"])).contains("modules_to_save"));
    assert!(refusal(|adapter| adapter.config["target_modules"] = json!("all-linear")).contains("target_modules"));
    let message = refusal(|adapter| adapter.config["target_modules"] = json!(["q_proj", "k_proj"]));
    assert!(message.contains("k_proj is no layer of the base"), "{message}");
    assert!(refusal(|adapter| adapter.config["r"] = json!(3)).contains("has shape [2, 3]"));
    assert!(refusal(|adapter| adapter.config["target_modules"] = json!(["q_proj", "v_proj"])).contains("is missing"));
    assert!(refusal(|adapter| adapter.config["target_modules"] = json!(["v_proj"])).contains("is missing"));
}

#[test]
fn unsound_matrices_are_refused_by_name() {
    let name = "model.layers.0.self_attn.q_proj.lora_A";
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let message = refusal(|adapter| adapter.tensors.get_mut(Q_A).unwrap().1[4] = bad);
        assert!(message.contains(name) && message.contains("not finite, at 4"), "{message}");
    }
    let message = refusal(|adapter| *adapter.tensors.get_mut(Q_A).unwrap() = (vec![2, 4], vec![0.5; 8]));
    assert!(message.contains("has shape [2, 4], the base and r ask for [2, 3]"), "{message}");
    let stranger = || (vec![2, 3], vec![0.5; 6]);
    let message = refusal(|adapter| drop(adapter.tensors.insert("model.layers.9.x.lora_A".to_owned(), stranger())));
    assert!(message.contains("belongs to no target"), "{message}");
    let message = refusal(|adapter| drop(adapter.tensors.insert(format!("{name}.default.weight"), stranger())));
    assert!(message.contains("twice"), "{message}");
}

#[test]
fn files_that_are_missing_or_torn_are_refused() {
    let test = TestStore::new();
    let weights = test.adapter.join(ADAPTER_WEIGHTS);
    let bytes = fs::read(&weights).unwrap();
    for length in [0, 7, 8, 40, bytes.len() - 1] {
        fs::write(&weights, &bytes[..length]).unwrap();
        let error = test.store.publish(&draft("bad", &test.adapter, 0)).unwrap_err();
        assert!(error.to_string().contains(ADAPTER_WEIGHTS), "{length}: {error}");
    }
    fs::remove_file(&weights).unwrap();
    let error = test.store.publish(&draft("bad", &test.adapter, 0)).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn sixteen_bit_weights_are_read_and_checked() {
    use safetensors::{Dtype, tensor::TensorView};
    let test = TestStore::new();
    let shapes = TestAdapter::filled(0.0).tensors;
    // infinity in each of the two 16-bit forms
    for (dtype, one, bad) in [(Dtype::F16, 0x3c00_u16, 0x7c00_u16), (Dtype::BF16, 0x3f80, 0x7f80)] {
        for (last, sound) in [(one, true), (bad, false)] {
            let bytes = |length: usize| {
                let mut numbers = vec![one; length];
                numbers[length - 1] = last;
                numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()
            };
            let data: Vec<_> =
                shapes.iter().map(|(name, (shape, values))| (name, shape, bytes(values.len()))).collect();
            let view = |shape: &Vec<usize>, bytes| TensorView::new(dtype, shape.clone(), bytes).unwrap();
            let views = data.iter().map(|(name, shape, bytes)| (name.as_str(), view(shape, bytes)));
            fs::write(test.adapter.join(ADAPTER_WEIGHTS), safetensors::serialize(views, None).unwrap()).unwrap();
            assert_eq!(crate::check_adapter(&test.adapter, &base()).is_ok(), sound, "{dtype:?} {last:#x}");
        }
    }
}

/// What loading says after the folder of a published policy was changed.
fn load_error(change: impl FnOnce(&std::path::Path)) -> crate::PolicyError {
    let test = TestStore::with(&["first"]);
    change(&test.policy_dir("first"));
    test.store.load(&acme(), &policy("first")).unwrap_err()
}

#[test]
fn a_changed_byte_anywhere_is_found() {
    for file in [ADAPTER_CONFIG, ADAPTER_WEIGHTS] {
        let error = load_error(|dir| tamper(&dir.join(file), |bytes| *bytes.last_mut().unwrap() ^= 1));
        assert_eq!(error.kind(), ErrorKind::Internal);
        let message = error.to_string();
        assert!(message.contains(file) && message.contains("BLAKE3") && message.contains("roll back"), "{message}");
    }
    let error = load_error(|dir| fs::remove_file(dir.join(ADAPTER_WEIGHTS)).unwrap());
    assert!(error.to_string().contains("is missing"), "{error}");
    let error = load_error(|dir| fs::write(dir.join("extra.bin"), "x").unwrap());
    assert!(error.to_string().contains("extra.bin: is not in the manifest"), "{error}");
}

#[test]
fn nothing_leads_out_of_the_folder() {
    for name in ["../secret", "/etc/passwd", "a/b", "..", ".hidden"] {
        let error = load_error(|dir| {
            tamper(&dir.join(MANIFEST), |bytes| {
                let mut manifest: Value = serde_json::from_slice(bytes).unwrap();
                manifest["files"][name] = json!({"bytes": 0, "blake3": ""});
                *bytes = serde_json::to_vec(&manifest).unwrap();
            });
        });
        assert!(error.to_string().contains("leads out of the folder"), "{name}: {error}");
    }
    #[cfg(unix)]
    {
        let error = load_error(|dir| {
            let weights = dir.join(ADAPTER_WEIGHTS);
            let outside = dir.parent().unwrap().join("outside");
            fs::rename(&weights, &outside).unwrap();
            std::os::unix::fs::symlink(&outside, &weights).unwrap();
        });
        assert!(error.to_string().contains("is a link"), "{error}");
        let error = load_error(|dir| {
            let outside = dir.parent().unwrap().join(".outside");
            fs::rename(dir, &outside).unwrap();
            std::os::unix::fs::symlink(&outside, dir).unwrap();
        });
        assert!(error.to_string().contains("is a link"), "{error}");
    }
}

#[test]
fn the_folder_of_another_policy_is_not_taken_for_this_one() {
    let error = load_error(|dir| fs::rename(dir, dir.with_file_name("second")).unwrap());
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let test = TestStore::with(&["first"]);
    fs::rename(test.policy_dir("first"), test.policy_dir("second")).unwrap();
    let error = test.store.load(&acme(), &policy("second")).unwrap_err();
    assert!(error.to_string().contains("describes first"), "{error}");
}

#[test]
fn an_adapter_of_another_base_is_foreign() {
    let test = TestStore::with(&["first"]);
    let other = BaseModel { hash: "0".repeat(64), ..base() };
    let store = PolicyStore::open(&test.dir.path().join("policies"), other).unwrap();
    let error = store.load(&acme(), &policy("first")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&base().hash) && error.to_string().contains("train it again"), "{error}");
    assert_eq!(store.show(&acme(), &policy("first")).unwrap().base, base().hash);
}

#[test]
fn the_base_is_known_by_its_weights() {
    let dir = tempfile::tempdir().unwrap();
    assert!(BaseModel::read(dir.path()).unwrap_err().to_string().contains("no *.safetensors"));
    let path = dir.path().join("model.safetensors");
    let mut tensors = base_shapes().into_iter().map(|(name, shape)| {
        let values = vec![0.25; shape.iter().product()];
        (name, (shape, values))
    });
    let mut tensors = tensors.by_ref().collect();
    write_tensors(&path, &tensors);
    let read = BaseModel::read(dir.path()).unwrap();
    assert_eq!(read.shapes, base_shapes());
    fs::write(dir.path().join("adapter_model.safetensors"), "no weights of the base").unwrap();
    assert_eq!(BaseModel::read(dir.path()).unwrap(), read);
    tensors.get_mut("model.norm.weight").unwrap().1[0] = 0.5;
    write_tensors(&path, &tensors);
    assert_ne!(BaseModel::read(dir.path()).unwrap().hash, read.hash);
    for garbage in [&b"short"[..], &[255; 64], &[0; 64]] {
        fs::write(&path, garbage).unwrap();
        assert_eq!(BaseModel::read(dir.path()).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_diff_shows_fields_and_how_far_each_matrix_moved() {
    let test = TestStore::with(&["first"]);
    TestAdapter::filled(0.75).write(&test.adapter);
    let mut second = draft("second", &test.adapter, 0);
    second.parent = Some(policy("first"));
    second.config = json!({"learning_rate": 2e-4, "clip": 0.2});
    test.store.publish(&second).unwrap();
    let diff = test.store.diff(&acme(), &policy("first"), &policy("second")).unwrap();
    let change = |field: &str| diff.fields.iter().find(|change| change.field == field).unwrap();
    assert_eq!(change("config.learning_rate").right, Some(json!(2e-4)));
    assert_eq!((&change("config.clip").left, &change("parent").right), (&None, &Some(json!("first"))));
    assert!(diff.fields.iter().all(|change| change.field != "metrics.recall@3"), "equal fields are left out");
    // lora_A holds 6 numbers, which all moved by a quarter
    let first = &diff.tensors[0];
    assert_eq!(first.tensor, "model.layers.0.self_attn.q_proj.lora_A");
    assert!((first.left.unwrap() - 0.5 * 6f64.sqrt()).abs() < 1e-12);
    assert!((first.distance.unwrap() - 0.25 * 6f64.sqrt()).abs() < 1e-12);
    assert_eq!(diff.tensors.len(), 4);
}

#[test]
fn the_newest_are_kept_and_all_that_is_needed() {
    let test = TestStore::with(&["a", "b", "c", "d"]);
    let mut child = draft("e", &test.adapter, 10);
    child.parent = Some(policy("a"));
    test.store.publish(&child).unwrap();
    test.publish("f", 11);
    test.publish("g", 12);
    test.store.promote(&acme(), &policy("c"), 0, "first", 0).unwrap();
    test.store.promote(&acme(), &policy("e"), 1, "second", 0).unwrap();
    test.store.pin(&acme(), &policy("b"), true, 0).unwrap();
    // e is active, a its parent, c what a roll-back restores, b pinned, g the newest
    let retired = test.store.retain(&acme(), 1, 20).unwrap();
    assert_eq!(retired, [policy("f"), policy("d")]);
    assert_eq!(test.names(), ["a", "b", "c", "e", "g"]);
    test.store.pin(&acme(), &policy("b"), false, 0).unwrap();
    assert_eq!(test.store.retain(&acme(), 0, 21).unwrap(), [policy("g"), policy("b")]);
    assert_eq!(test.store.retain(&acme(), 0, 22).unwrap(), []);
    let journal = test.store.journal(&acme()).unwrap();
    assert_eq!(journal.iter().filter(|record| matches!(record.event, Event::Retired { .. })).count(), 4);
}

#[test]
fn what_everyone_has_stays_while_a_tenant_builds_on_it() {
    let test = TestStore::new();
    let mut parent = draft("parent", &test.adapter, 0);
    parent.scope = Scope::Everyone;
    test.store.publish(&parent).unwrap();
    let mut child = draft("child", &test.adapter, 1);
    child.parent = Some(policy("parent"));
    test.store.publish(&child).unwrap();
    test.store.promote(&acme(), &policy("child"), 0, "better", 2).unwrap();
    assert_eq!(test.store.retain(&Scope::Everyone, 0, 3).unwrap(), []);
    test.store.roll_back(&acme(), 1, "worse", 4).unwrap();
    assert_eq!(test.store.retain(&Scope::Everyone, 0, 5).unwrap(), [policy("parent")]);
}
