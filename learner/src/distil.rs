//! A student learns from what a teacher writes, in the place of the gold rewrites. They are sampled, so that some of the
//! teacher's ways of saying it are kept, and with them the variety that learning from rewards needs.
use std::path::Path;

use candle_core::Device;
use recast_domain::Split;
use recast_model::{ModelFolder, PromptInput, SamplerSettings, sample};

use crate::corpus::Corpus;
use crate::error::{LearnError, Result};

/// Rewrites drawn for a question.
const DRAWS: usize = 4;
/// Questions that are read together.
const TOGETHER: usize = 16;

/// What became of the train dialogues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Distilled {
    /// Dialogues with rewrites of the teacher.
    pub taught: usize,
    /// Dialogues that are left out, since the teacher ended none of its rewrites.
    pub dropped: usize,
}

impl Corpus {
    /// Puts rewrites of the model in `teacher`, drawn at `temperature`, in the place of the train dialogues' gold ones. The
    /// same seed gives the same rewrites. Other splits stay as they are.
    ///
    /// # Errors
    /// Where the folder holds no rewriter, or the network fails.
    pub fn distil(&mut self, teacher: &Path, temperature: f64, seed: u64) -> Result<Distilled> {
        let folder = ModelFolder::open(teacher)?;
        let (model, renderer) = (folder.network(&Device::Cpu)?, folder.renderer()?);
        let mut done = Distilled::default();
        for tenant in &mut self.tenants {
            let (id, system_prompt) = (tenant.profile.id.to_string(), tenant.profile.system_prompt.clone());
            let mut asked = Vec::new();
            for (place, dialogue) in tenant.dialogues.iter().enumerate() {
                if dialogue.split == Split::Train {
                    let conversation = dialogue.conversation();
                    let input = PromptInput { tenant: &id, system_prompt: &system_prompt, conversation: &conversation };
                    asked.push((place, renderer.render(&input)?.ids));
                }
            }
            // neighbours of a like length waste no padding
            asked.sort_by_key(|(place, ids)| (ids.len(), *place));
            for (number, part) in asked.chunks(TOGETHER).enumerate() {
                let prompts: Vec<&[u32]> = part.iter().map(|(_, ids)| ids.as_slice()).collect();
                let settings = SamplerSettings {
                    temperature,
                    top_p: 1.0,
                    max_new_tokens: renderer.settings().max_new_tokens,
                    end: renderer.end(),
                    seed: seed.wrapping_add(number as u64),
                };
                let drawn = sample(&model, &prompts, DRAWS, &settings)?;
                for ((place, _), group) in part.iter().zip(drawn.chunks(DRAWS)) {
                    let mut rewrites = Vec::with_capacity(DRAWS);
                    for completion in group.iter().filter(|completion| completion.finished) {
                        rewrites.push(renderer.rewrite(&completion.ids)?.trim().to_owned());
                    }
                    rewrites.retain(|text| !text.is_empty());
                    tenant.dialogues[*place].gold_rewrites = rewrites;
                }
            }
            let before = tenant.dialogues.len();
            tenant.dialogues.retain(|one| one.split != Split::Train || !one.gold_rewrites.is_empty());
            let dropped = before - tenant.dialogues.len();
            done.dropped += dropped;
            done.taught += asked.len() - dropped;
        }
        if done.taught == 0 {
            return Err(LearnError::Data(format!("{} ends no rewrite of any question", teacher.display())));
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use recast_model::{
        Manifest, ModelKind, PromptSettings, PromptStyle, Qwen3Config, VocabularySettings, init, train_tokenizer,
    };

    use super::*;
    use crate::swap::tests::tenant;

    /// A folder with a network that nobody trained: it ends rewrites by chance.
    fn teacher(dir: &Path) {
        let tokenizer = train_tokenizer(&[], "", VocabularySettings { entries: 300, words: 0 }).unwrap();
        let config = serde_json::json!({
            "vocab_size": tokenizer.vocab_size(), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
            "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
            "eos_token_id": tokenizer.mark("<|im_end|>"), "pad_token_id": tokenizer.mark("<pad>"),
        });
        let config = Qwen3Config::from_json(&config).unwrap();
        let manifest = Manifest {
            kind: ModelKind::Rewriter,
            name: "untrained".to_owned(),
            trained_by: String::new(),
            prompt: PromptSettings {
                style: PromptStyle::Compact,
                max_prompt_tokens: 128,
                max_new_tokens: 60,
                tenant_tag: false,
            },
            encoder: None,
        };
        let weights = init(&config, 1, &Device::Cpu).unwrap();
        ModelFolder::save(dir, &manifest, &config, &weights, &tokenizer, None).unwrap();
    }

    #[test]
    fn train_rewrites_become_the_teachers_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        teacher(dir.path());
        let mut corpus = Corpus { tenants: vec![tenant()] };
        let before = corpus.clone();
        let done = corpus.distil(dir.path(), 1.0, 3).unwrap();
        let train = |corpus: &Corpus| corpus.tenants[0].split(Split::Train).cloned().collect::<Vec<_>>();
        assert_eq!((done.taught, done.taught + done.dropped), (train(&corpus).len(), train(&before).len()));
        assert!(done.taught > 0, "{done:?}");
        for dialogue in train(&corpus) {
            let old = before.tenants[0].dialogues.iter().find(|one| one.id == dialogue.id).unwrap();
            assert!(dialogue.gold_rewrites.iter().all(|text| !old.gold_rewrites.contains(text)), "{dialogue:?}");
            assert_eq!((&dialogue.query, &dialogue.history), (&old.query, &old.history));
        }
        for split in [Split::Val, Split::Test] {
            let of = |corpus: &Corpus| corpus.tenants[0].split(split).cloned().collect::<Vec<_>>();
            assert_eq!(of(&corpus), of(&before));
        }
        let mut again = before.clone();
        again.distil(dir.path(), 1.0, 3).unwrap();
        assert_eq!(train(&again), train(&corpus), "a run that goes on sees the same rewrites");
        assert!(before.clone().distil(&dir.path().join("none"), 1.0, 3).is_err());
    }
}
