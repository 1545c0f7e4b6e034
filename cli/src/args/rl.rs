use std::path::PathBuf;

use clap::Args;

use super::Settings;

/// What `train grpo` and `train ppo` need beside the rest.
#[derive(Debug, Args)]
pub struct RlArgs {
    /// Advantage and loss by name: grpo, dr_grpo, dapo, gspo, cispo, rloo, reinforce_pp, ppo, ppo_bandit or remax
    #[arg(long)]
    pub algorithm: Option<String>,
    /// A larger rewriter whose rewrites the completions are compared with; the question as typed without it
    #[arg(long)]
    pub teacher: Option<PathBuf>,
    /// Steps of learning from rewards
    #[arg(long, default_value_t = 300)]
    pub steps: u64,
    /// Questions a step
    #[arg(long, default_value_t = 16)]
    pub questions: usize,
    /// Rewrites drawn for each question
    #[arg(long, default_value_t = 8)]
    pub group: usize,
    /// Rank of the adapter; its alpha is twice that
    #[arg(long, default_value_t = 32)]
    pub rank: usize,
    /// Weight of the distance to the model as it came (k3)
    #[arg(long, default_value_t = 0.003)]
    pub kl: f64,
    /// Entropy in nats a token that the policy is kept at; 0 lets it fall
    #[arg(long, default_value_t = 0.3)]
    pub entropy: f64,
    /// Share of the questions that have names nobody wrote before, so that copying is not unlearned
    #[arg(long, default_value_t = 0.25)]
    pub fresh: f64,
    /// Steps from one checkpoint, and one look at held-out questions, to the next
    #[arg(long, default_value_t = 25)]
    pub every: u64,
    /// Validation questions that a look asks; the adapter of the best look is kept
    #[arg(long, default_value_t = 300)]
    pub held_out: usize,
    #[command(flatten)]
    pub settings: Settings,
}

/// What `recast learn` is told.
#[derive(Debug, Args)]
pub struct LearnArgs {
    /// One round, then end
    #[arg(long)]
    pub once: bool,
    /// Switch the learner off: it stops before its next step, and does not start again
    #[arg(long, conflicts_with_all = ["on", "once", "status"])]
    pub off: bool,
    /// Let it run again
    #[arg(long, conflicts_with_all = ["once", "status"])]
    pub on: bool,
    /// Print where it is
    #[arg(long, conflicts_with = "once")]
    pub status: bool,
    #[command(flatten)]
    pub settings: Settings,
}
