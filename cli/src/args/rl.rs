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
    /// Steps from one checkpoint, and one look at held-out questions, to the next
    #[arg(long, default_value_t = 25)]
    pub every: u64,
    /// Validation questions that a look asks; the adapter of the best look is kept
    #[arg(long, default_value_t = 300)]
    pub held_out: usize,
    #[command(flatten)]
    pub settings: Settings,
}
