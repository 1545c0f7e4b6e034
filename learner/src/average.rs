//! The mean of several runs' weights: better than each of them where the runs went on from the same model (Wortsman et
//! al. 2022, "Model soups").
use std::path::Path;

use candle_core::Device;
use recast_model::{Lora, ModelFolder, Weights};

use crate::error::{LearnError, Result};

/// Writes a model folder with the mean of the folders' weights; everything else is the first one's.
///
/// # Errors
/// With fewer than two folders, where their shapes or vocabularies differ, or one has an adapter that is not merged.
pub fn average(folders: &[&Path], out: &Path) -> Result<ModelFolder> {
    let opened = folders.iter().map(|dir| Ok(ModelFolder::open(dir)?)).collect::<Result<Vec<_>>>()?;
    let [first, others @ ..] = opened.as_slice() else {
        return Err(LearnError::Setting("name two model folders or more".to_owned()));
    };
    if others.is_empty() {
        return Err(LearnError::Setting("one model has no mean with others: name two folders or more".to_owned()));
    }
    let device = Device::Cpu;
    let mut sum: Weights = first.weights(&device)?;
    for folder in &opened {
        let differs = |what: &str| {
            let (dir, base) = (folder.dir().display(), first.dir().display());
            LearnError::Setting(format!(
                "{dir} and {base} have different {what}: only runs from one model can be averaged"
            ))
        };
        if folder.config() != first.config() {
            return Err(differs("shapes"));
        }
        if folder.tokenizer().json() != first.tokenizer().json() {
            return Err(differs("vocabularies"));
        }
        if folder.adapter(&device)?.is_some() {
            let dir = folder.dir().display();
            return Err(LearnError::Setting(format!("{dir} has an adapter beside its weights: merge it first")));
        }
    }
    for folder in others {
        let weights = folder.weights(&device)?;
        for (name, tensor) in &mut sum {
            *tensor = (&*tensor + &weights[name])?;
        }
    }
    let count = opened.len() as f64;
    let mean = sum.into_iter().map(|(name, tensor)| Ok((name, (tensor / count)?))).collect::<Result<Weights>>()?;
    let mut manifest = first.manifest().clone();
    let runs: Vec<&str> = opened.iter().map(|folder| folder.manifest().trained_by.as_str()).collect();
    manifest.trained_by = format!("mean of {count} runs: {}", runs.join("; "));
    let adapter: Option<&Lora> = None;
    Ok(ModelFolder::save(out, &manifest, first.config(), &mean, first.tokenizer(), adapter)?)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use recast_model::{ModelKind, ModelTokenizer, PromptSettings, Qwen3Config, VocabularySettings, init};

    use super::*;

    fn folder(dir: &Path, seed: u64, layers: usize) -> ModelFolder {
        let vocabulary = VocabularySettings { entries: 700, words: 30 };
        let tokenizer: ModelTokenizer =
            recast_model::train_tokenizer(&["孕妇能喝吗".to_owned()], "孕妇能喝吗", vocabulary).unwrap();
        let config = Qwen3Config {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: 8,
            intermediate_size: 16,
            num_hidden_layers: layers,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 4,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 2048,
            tie_word_embeddings: true,
            eos_token_id: None,
            bos_token_id: None,
            pad_token_id: None,
            causal: true,
        };
        let weights = init(&config, seed, &Device::Cpu).unwrap();
        let manifest = recast_model::Manifest {
            kind: ModelKind::Rewriter,
            name: format!("m{seed}"),
            trained_by: format!("seed {seed}"),
            prompt: PromptSettings::default(),
            encoder: None,
        };
        ModelFolder::save(dir, &manifest, &config, &weights, &tokenizer, None).unwrap()
    }

    #[test]
    fn every_weight_is_the_mean() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        let (first, second) = (folder(&a, 1, 1), folder(&b, 2, 1));
        let mean = average(&[&a, &b], &root.path().join("mean")).unwrap();
        assert_eq!(mean.manifest().trained_by, "mean of 2 runs: seed 1; seed 2");
        let (first, second) = (first.weights(&Device::Cpu).unwrap(), second.weights(&Device::Cpu).unwrap());
        for (name, mean) in mean.weights(&Device::Cpu).unwrap() {
            let expected = ((&first[&name] + &second[&name]).unwrap() / 2.0).unwrap();
            let error = (mean - expected).unwrap().abs().unwrap().max_all().unwrap().to_dtype(DType::F32).unwrap();
            assert!(error.to_scalar::<f32>().unwrap() < 1e-7, "{name}");
        }
    }

    #[test]
    fn what_has_no_mean_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        folder(&a, 1, 1);
        folder(&b, 2, 2);
        let out = root.path().join("mean");
        assert!(average(&[&a], &out).unwrap_err().to_string().contains("two folders"));
        assert!(average(&[&a, &b], &out).unwrap_err().to_string().contains("different shapes"));
        assert!(!out.exists());
    }
}
