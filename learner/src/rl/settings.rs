//! Which algorithm, and its numbers.
use super::advantages::Scale;
use super::entropy::EntropyControl;
use super::importance::Correction;
use super::kl::KlEstimator;
use super::losses::PolicyLoss;
use super::shaping::Overlong;
use super::tokens::Aggregation;

/// A named set of advantage, loss and aggregation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Shao et al. 2024, with clip-higher and the token mean, which does not favour long failures.
    Grpo,
    /// Liu et al. 2025: no deviation, a constant length.
    DrGrpo,
    /// Yu et al. 2025: clip-higher, token mean, groups without signal are drawn again, long completions cost.
    Dapo,
    /// Zheng et al. 2025: one ratio a sequence.
    Gspo,
    /// MiniMax 2025: the ratio is a weight.
    Cispo,
    /// Ahmadian et al. 2024.
    Rloo,
    /// Hu 2025, with the group's mean as baseline.
    ReinforcePlusPlus,
    /// Schulman et al. 2017, with a critic by token.
    Ppo,
    /// PPO on one-step episodes: one value a question.
    PpoBandit,
    /// Li et al. 2023, against a fixed rewrite of the environment.
    ReMax,
}

impl Algorithm {
    /// All of them, with the names they go by in settings and reports.
    pub const ALL: [(&'static str, Self); 10] = [
        ("grpo", Self::Grpo),
        ("dr_grpo", Self::DrGrpo),
        ("dapo", Self::Dapo),
        ("gspo", Self::Gspo),
        ("cispo", Self::Cispo),
        ("rloo", Self::Rloo),
        ("reinforce_pp", Self::ReinforcePlusPlus),
        ("ppo", Self::Ppo),
        ("ppo_bandit", Self::PpoBandit),
        ("remax", Self::ReMax),
    ];

    /// The algorithm of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, algorithm)| algorithm)
    }
}

/// How advantages are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AdvantageKind {
    /// Against the group's mean.
    Group(Scale),
    /// Against the mean of the group's others.
    LeaveOneOut,
    /// Against the group's mean by length.
    LengthWeighted,
    /// Against the group's mean, whitened over all tokens.
    Whitened,
    /// Against the environment's baseline.
    Baseline,
    /// Against a critic's value of the question.
    Bandit,
    /// By generalised advantage estimation over a critic's values of tokens, whitened.
    Generalised,
}

impl AdvantageKind {
    /// Whether a completion is only compared with others of its question.
    #[must_use]
    pub fn is_relative(self) -> bool {
        !matches!(self, Self::Baseline | Self::Bandit | Self::Generalised)
    }
}

/// The pull towards the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KlTerm {
    /// Its estimator in the loss.
    pub estimator: KlEstimator,
    /// Its weight.
    pub weight: f64,
    /// Whether it is taken from the reward instead of added to the loss.
    pub in_reward: bool,
}

/// The critic's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CriticSettings {
    /// Its learning rate.
    pub learning_rate: f64,
    /// Discount a token.
    pub gamma: f64,
    /// Decay of the advantages' sum.
    pub lambda: f64,
    /// Range by which a value may move in an update before its loss is clipped.
    pub range: f64,
    /// Weight of its loss in the trunk's gradient; 0 leaves the trunk to the policy.
    pub trunk_weight: f64,
}

/// Settings of a [`super::Learner`].
#[derive(Debug, Clone, PartialEq)]
pub struct RlSettings {
    /// How advantages are taken.
    pub advantage: AdvantageKind,
    /// The policy's loss.
    pub loss: PolicyLoss,
    /// How token losses become one.
    pub aggregation: Aggregation,
    /// The pull towards the reference, where there is one.
    pub kl: Option<KlTerm>,
    /// The weight of entropy.
    pub entropy: EntropyControl,
    /// The critic, for advantages that need one.
    pub critic: Option<CriticSettings>,
    /// Weights for samples of another engine or policy; without them the behaviour's log-probabilities stand in for the
    /// proximal ones.
    pub correction: Option<Correction>,
    /// Versions by which a sample may be behind; older ones are thrown away.
    pub max_staleness: u64,
    /// Questions a step.
    pub questions: usize,
    /// Completions a question.
    pub group: usize,
    /// Divides the logits in sampling and in scoring.
    pub temperature: f64,
    /// Longest completion in tokens.
    pub max_new_tokens: usize,
    /// Token that ends a completion.
    pub end: u32,
    /// Whether completions that were cut at the length take no part.
    pub mask_truncated: bool,
    /// The penalty for long completions.
    pub overlong: Option<Overlong>,
    /// How many times questions are drawn again for groups without signal.
    pub refills: u32,
    /// Passes over a batch.
    pub epochs: u32,
    /// Updates a pass.
    pub minibatches: usize,
    /// Sequences that go through the network at once.
    pub micro_rows: usize,
    /// Mean `old - new` in nats a token, beyond 1.5 times which no further pass is made.
    pub target_kl: f64,
    /// The policy's learning rate.
    pub learning_rate: f64,
    /// Steps of its rise.
    pub warmup: u32,
    /// Largest global norm of the gradients.
    pub max_grad_norm: f64,
    /// Seed of everything random.
    pub seed: u64,
}

impl RlSettings {
    /// Defaults of an algorithm; the learning rate is that of an 8B model's adapter.
    #[must_use]
    pub fn of(algorithm: Algorithm, max_new_tokens: usize, end: u32) -> Self {
        let clip = |low, high| PolicyLoss::Clip { low, high, dual: Some(3.0), most: None };
        let length = max_new_tokens as f64;
        let (advantage, loss, aggregation) = match algorithm {
            Algorithm::Grpo | Algorithm::Dapo => {
                (AdvantageKind::Group(Scale::Group(1e-6)), clip(0.2, 0.28), Aggregation::TokenMean)
            }
            Algorithm::DrGrpo => {
                let aggregation = Aggregation::SeqMeanTokenSumNorm(length);
                (AdvantageKind::Group(Scale::None), clip(0.2, 0.2), aggregation)
            }
            Algorithm::Gspo => {
                let loss = PolicyLoss::Sequence { low: 3e-4, high: 4e-4 };
                (AdvantageKind::Group(Scale::Group(1e-6)), loss, Aggregation::SeqMeanTokenMean)
            }
            Algorithm::Cispo => {
                let loss = PolicyLoss::Cispo { least: 0.0, most: 5.0 };
                (AdvantageKind::Group(Scale::Group(1e-6)), loss, Aggregation::TokenMean)
            }
            Algorithm::Rloo => (AdvantageKind::LeaveOneOut, clip(0.2, 0.2), Aggregation::TokenMean),
            Algorithm::ReinforcePlusPlus => (AdvantageKind::Whitened, clip(0.2, 0.2), Aggregation::TokenMean),
            Algorithm::Ppo => (AdvantageKind::Generalised, clip(0.2, 0.2), Aggregation::TokenMean),
            Algorithm::PpoBandit => (AdvantageKind::Bandit, clip(0.2, 0.2), Aggregation::TokenMean),
            Algorithm::ReMax => (AdvantageKind::Baseline, clip(0.2, 0.2), Aggregation::TokenMean),
        };
        let critic = matches!(algorithm, Algorithm::Ppo | Algorithm::PpoBandit).then_some(CriticSettings {
            learning_rate: 3e-3,
            gamma: 1.0,
            lambda: 1.0,
            range: 0.5,
            trunk_weight: 0.0,
        });
        let dapo = algorithm == Algorithm::Dapo;
        let buffer = max_new_tokens / 4;
        Self {
            advantage,
            loss,
            aggregation,
            kl: None,
            entropy: EntropyControl::Fixed(0.0),
            critic,
            correction: None,
            max_staleness: 2,
            questions: 16,
            group: 8,
            temperature: 1.0,
            max_new_tokens,
            end,
            mask_truncated: false,
            overlong: dapo.then_some(Overlong { most: max_new_tokens, buffer, factor: 1.0 }),
            refills: if dapo { 2 } else { 0 },
            epochs: 1,
            minibatches: 1,
            micro_rows: 32,
            target_kl: 0.02,
            learning_rate: 1e-5,
            warmup: 10,
            max_grad_norm: 1.0,
            seed: 0,
        }
    }

    /// The first thing that cannot be, in words.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let needs_critic = matches!(self.advantage, AdvantageKind::Bandit | AdvantageKind::Generalised);
        let positive = |name: &str, value: usize| (value == 0).then(|| format!("{name} must be at least 1"));
        positive("questions", self.questions)
            .or_else(|| positive("group", self.group))
            .or_else(|| positive("epochs", self.epochs as usize))
            .or_else(|| positive("minibatches", self.minibatches))
            .or_else(|| positive("micro_rows", self.micro_rows))
            .or_else(|| {
                (self.advantage.is_relative() && self.group < 2).then(|| {
                    format!("group is {}, advantages within a question need at least 2 completions", self.group)
                })
            })
            .or_else(|| {
                (needs_critic != self.critic.is_some())
                    .then(|| "critic must be given for advantages over values, and for no others".to_owned())
            })
            .or_else(|| {
                (self.temperature.is_nan() || self.temperature <= 0.0).then(|| {
                    format!("temperature is {}, learning needs samples at a temperature above 0", self.temperature)
                })
            })
    }
}
