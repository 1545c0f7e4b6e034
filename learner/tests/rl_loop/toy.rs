//! A world that a fresh network can learn in a minute: the reward is the share of a completion's tokens that belong to a
//! tenth of the vocabulary.
use candle_core::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recast_domain::{Environment, RolloutItem, Scored};
use recast_learner::LearnError;
use recast_learner::rl::{Question, Questions};
use recast_model::{Qwen3, Qwen3Config, init};

/// Token that ends a completion.
pub(crate) const END: u32 = 3;

/// Sizes of the world and of the network in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Toy {
    pub(crate) vocabulary: u32,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) prompt: usize,
    pub(crate) seed: u64,
}

impl Toy {
    pub(crate) fn config(&self) -> Qwen3Config {
        let value = serde_json::json!({
            "vocab_size": self.vocabulary, "hidden_size": self.hidden, "intermediate_size": self.hidden * 3,
            "num_hidden_layers": self.layers, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": self.hidden / 4, "max_position_embeddings": 64, "rope_theta": 10000.0,
            "tie_word_embeddings": true,
        });
        Qwen3Config::from_json(&value).unwrap()
    }

    pub(crate) fn model(&self) -> Qwen3 {
        let config = self.config();
        let weights = init(&config, self.seed, &Device::Cpu).unwrap();
        Qwen3::trainable(config, weights, &Device::Cpu).unwrap()
    }
}

impl Questions for Toy {
    fn draw(&self, step: u64, attempt: u32, count: usize) -> Result<Vec<Question>, LearnError> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(step * 64 + u64::from(attempt));
        let question = |index: usize, rng: &mut ChaCha8Rng| Question {
            id: format!("{step}-{attempt}-{index}"),
            ids: (0..self.prompt).map(|_| rng.random_range(4..self.vocabulary)).collect(),
        };
        Ok((0..count).map(|index| question(index, &mut rng)).collect())
    }

    fn text(&self, ids: &[u32]) -> Result<String, LearnError> {
        let words: Vec<String> = ids.iter().filter(|id| **id != END).map(u32::to_string).collect();
        Ok(words.join(" "))
    }
}

/// The share of wanted tokens.
pub(crate) fn reward(text: &str) -> f64 {
    let words: Vec<u32> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let wanted = words.iter().filter(|word| *word % 10 == 7).count();
    wanted as f64 / words.len().max(1) as f64
}

impl Environment for Toy {
    fn score(&self, items: &[RolloutItem]) -> Vec<Option<Scored>> {
        let scored = |item: &RolloutItem| Scored { reward: reward(&item.text), valid: true, ..Scored::default() };
        items.iter().map(|item| Some(scored(item))).collect()
    }
}
