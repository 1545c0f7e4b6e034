//! Definitions of experiments, as far as serving reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the arms are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The control arm answers; another one runs in the shadow.
    Shadow,
    /// Each unit is answered by one arm.
    Split,
    /// Two arms answer, and their lists are merged.
    Interleave,
}

/// What stays with one arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// The asker.
    #[default]
    User,
    /// The conversation.
    Conversation,
    /// The request.
    Request,
}

/// An arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// Its share, relative to the other arms.
    #[serde(default = "one")]
    pub weight: f64,
    /// Who rewrites.
    pub rewriter: String,
}

/// Bounds that stop an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guardrails {
    pub p99_rewrite_ms: Option<f64>,
    pub empty_recall_rate: Option<f64>,
    pub degraded_rate: Option<f64>,
    pub length_ratio: Option<f64>,
}

/// An experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub id: String,
    pub kind: Kind,
    pub tenants: Vec<String>,
    #[serde(default)]
    pub start: Option<i64>,
    #[serde(default)]
    pub end: Option<i64>,
    #[serde(default = "yes")]
    pub enabled: bool,
    #[serde(default)]
    pub killed: bool,
    #[serde(default)]
    pub unit: Unit,
    pub arms: Vec<Arm>,
    pub control: String,
    #[serde(default)]
    pub sample_rate: f64,
    #[serde(default)]
    pub sample_rates: BTreeMap<String, f64>,
    #[serde(default)]
    pub control_rate: f64,
    #[serde(default)]
    pub guardrails: Guardrails,
    #[serde(default)]
    pub salt: String,
}
fn one() -> f64 {
    1.0
}
fn yes() -> bool {
    true
}

/// One thing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub field: String,
    pub message: String,
}

/// Where an experiment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Requests take part.
    Running,
    /// Its start is to come.
    Scheduled,
    /// Its end has passed.
    Ended,
    /// Switched off.
    Stopped,
    /// Killed, by hand or by a guardrail.
    Killed,
}

impl Definition {
    /// Where it is in its life.
    #[must_use]
    pub fn state(&self, now_ms: i64) -> State {
        match (self.killed, self.enabled) {
            (true, _) => State::Killed,
            (false, false) => State::Stopped,
            _ if self.start.is_some_and(|start| now_ms < start) => State::Scheduled,
            _ if self.end.is_some_and(|end| end <= now_ms) => State::Ended,
            _ => State::Running,
        }
    }

    /// Whether requests of this moment take part.
    #[must_use]
    pub fn is_active(&self, now_ms: i64) -> bool {
        self.enabled
            && !self.killed
            && self.start.is_none_or(|start| start <= now_ms)
            && self.end.is_none_or(|end| now_ms < end)
    }
}

/// Everything that is wrong with these definitions.
#[must_use]
pub fn check(definitions: &[Definition], known_tenants: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, one) in definitions.iter().enumerate() {
        let mut wrong = |field: &str, message: String| {
            problems.push(Problem { field: format!("define[{index}].{field}"), message });
        };
        if definitions[..index].iter().any(|other| other.id == one.id) {
            wrong("id", format!("{:?} is taken by an earlier definition", one.id));
        }
        if one.arms.iter().all(|arm| arm.name != one.control) {
            wrong("control", format!("{:?} is not the name of an arm", one.control));
        }
        if one.arms.len() < 2 {
            wrong("arms", "give at least two arms".to_owned());
        }
        for (arm_index, arm) in one.arms.iter().enumerate() {
            if !(arm.weight.is_finite() && arm.weight >= 0.0) {
                wrong(&format!("arms[{arm_index}].weight"), "must be 0 or more".to_owned());
            }
        }
        if one.arms.iter().map(|arm| arm.weight).sum::<f64>() <= 0.0 {
            wrong("arms", "the weights add up to nothing: give one arm a weight above 0".to_owned());
        }
        for (field, rate) in [("sample_rate", one.sample_rate), ("control_rate", one.control_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                wrong(field, "must be from 0 to 1".to_owned());
            }
        }
        if one.tenants.is_empty() {
            wrong("tenants", "name at least one tenant".to_owned());
        }
        for (tenant_index, tenant) in one.tenants.iter().enumerate() {
            if !known_tenants.contains(tenant) {
                wrong(&format!("tenants[{tenant_index}]"), format!("{tenant:?} is not a tenant here"));
            }
        }
        if let (Some(start), Some(end)) = (one.start, one.end)
            && end <= start
        {
            wrong("end", "must be after start".to_owned());
        }
        let times = |one: &Definition| (one.start.unwrap_or(i64::MIN), one.end.unwrap_or(i64::MAX));
        let overlaps = |other: &&Definition| {
            let ((start, end), (other_start, other_end)) = (times(one), times(other));
            other.enabled && !other.killed && start < other_end && other_start < end
        };
        for other in definitions[..index].iter().filter(overlaps).filter(|_| one.enabled && !one.killed) {
            if let Some(tenant) = one.tenants.iter().find(|tenant| other.tenants.contains(tenant)) {
                wrong("tenants", format!("{tenant:?} takes part in {:?} at the same time", other.id));
            }
        }
    }
    problems
}

fn unit_interval(parts: &[&str]) -> f64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let bits = hasher.finalize().as_bytes()[..8].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// The arm of a unit: always the same one, by the weights.
#[must_use]
pub fn assign<'a>(definition: &'a Definition, unit: &str) -> &'a str {
    let sum: f64 = definition.arms.iter().map(|arm| arm.weight).sum();
    let mut point = unit_interval(&["assign", &definition.salt, &definition.id, unit]) * sum;
    for arm in &definition.arms {
        if point < arm.weight {
            return &arm.name;
        }
        point -= arm.weight;
    }
    &definition.control
}

/// Whether a request is sampled for the shadow.
#[must_use]
pub fn sampled(definition: &Definition, tenant: &str, key: &str) -> bool {
    let rate = definition.sample_rates.get(tenant).copied().unwrap_or(definition.sample_rate);
    unit_interval(&["sample", &definition.salt, &definition.id, key]) < rate
}

/// Whether a sampled request runs its own arm once more.
#[must_use]
pub fn control_run(definition: &Definition, key: &str) -> bool {
    unit_interval(&["control", &definition.salt, &definition.id, key]) < definition.control_rate
}

/// A pick of team-draft interleaving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    pub id: String,
    pub first: bool,
}

/// Merges two ranked lists.
#[must_use]
pub fn team_draft(first: &[String], second: &[String], most: usize, seed: u64) -> Vec<Pick> {
    let mut picks: Vec<Pick> = Vec::new();
    let (mut of_first, mut of_second, mut round) = (0, 0, 0_u64);
    while picks.len() < most {
        let coin = blake3::hash(&[seed.to_le_bytes(), round.to_le_bytes()].concat()).as_bytes()[0] & 1 == 0;
        round += 1;
        let first_turn = of_first < of_second || (of_first == of_second && coin);
        let next = |list: &[String]| list.iter().find(|id| picks.iter().all(|pick| pick.id != **id)).cloned();
        let (own, other) = if first_turn { (next(first), next(second)) } else { (next(second), next(first)) };
        let (id, by_first) = match (own, other) {
            (Some(id), _) => (id, first_turn),
            (None, Some(id)) => (id, !first_turn),
            (None, None) => break,
        };
        if by_first {
            of_first += 1
        } else {
            of_second += 1
        }
        picks.push(Pick { id, first: by_first });
    }
    picks
}
