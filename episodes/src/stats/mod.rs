//! A look at the data: how much there is of it, how long it took, what went wrong. It counts; whether a difference
//! means something is asked elsewhere.

mod failing;
mod gather;
mod html;
mod text;

#[cfg(test)]
mod tests;

use recast_domain::TenantId;
use serde::Serialize;

use crate::export::ExportFilter;

pub use gather::gather;

/// What a walk over the episodes found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// Whose episodes.
    pub tenants: Vec<TenantId>,
    /// Which of them.
    pub filter: ExportFilter,
    /// When they were counted, UTC.
    pub taken_at: String,
    /// All of them.
    pub total: Counts,
    /// Episodes that could not be read; in no other number.
    pub unreadable: u64,
    /// By day of creation, UTC.
    pub days: Vec<Day>,
    /// Wall time by stage.
    pub latency: Vec<Stage>,
    /// Who made the live rewrites.
    pub sources: Vec<Named>,
    /// Stages that failed or were late.
    pub degradations: Vec<Named>,
    /// Paired runs that were judged.
    pub pairs: Pairs,
    /// Queries that went wrong most often.
    pub failing: Vec<Failing>,
    /// Episodes that went wrong and whose query is not counted by itself, because there are too many different ones.
    pub failing_others: u64,
}

/// How many episodes, and how many of them were wrong in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// All.
    pub episodes: u64,
    /// Where a stage failed or was late.
    pub degraded: u64,
    /// Where nothing was found.
    pub empty: u64,
    /// With a thumb up.
    pub thumbs_up: u64,
    /// With a thumb down.
    pub thumbs_down: u64,
}

/// A day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Day {
    /// `2026-11-21`, UTC.
    pub date: String,
    /// What happened on it.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Wall time of a stage, in milliseconds; of the episodes in which it ran.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// The stage.
    pub stage: &'static str,
    /// Episodes in which it ran.
    pub episodes: u64,
    /// Half of them took at most this long, to one part in a thousand.
    pub p50_ms: f64,
    /// 95 of 100 did.
    pub p95_ms: f64,
    /// 99 of 100 did.
    pub p99_ms: f64,
}

/// How often something occurred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// What.
    pub name: String,
    /// How often.
    pub episodes: u64,
}

/// The paired rewrite against the live one, by the scores of the judge who spoke last about each episode.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Pairs {
    /// Runs that completed.
    pub completed: u64,
    /// Of these, pairs with both scores.
    pub judged: u64,
    /// The paired rewrite was better.
    pub wins: u64,
    /// Equal.
    pub ties: u64,
    /// The live one was better.
    pub losses: u64,
    /// Wins among wins and losses; `None` without either.
    pub win_rate: Option<f64>,
    /// Where it lies with 95 % confidence (Wilson), for one look.
    pub interval: Option<(f64, f64)>,
}

/// A query that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// Whose.
    pub tenant: TenantId,
    /// The question as it was typed.
    pub query: String,
    /// How often it went wrong.
    pub failed: u64,
    /// Of these: nothing was found.
    pub empty: u64,
    /// Of these: a stage failed or was late.
    pub degraded: u64,
    /// Of these: somebody turned a thumb down.
    pub thumbs_down: u64,
}
