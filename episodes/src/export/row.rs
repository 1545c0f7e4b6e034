//! One episode as a row.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::fmt::Hyphenated;

use super::body::{Answer, Body, Count, HitList, Text};
use super::sides::{RawFeedback, RawLabel, RawReward, RawRun, RawVerdict, SideRows};
use crate::labels::{self, LabelValue};
use crate::ledger::ANSWER_VERSION;
use crate::record::RECORD_VERSION;

/// What the store says of an episode beside its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta<'a> {
    pub id: [u8; 16],
    pub tenant: &'a str,
    pub created_ms: i64,
    pub record_version: u32,
    pub degraded: bool,
}

/// One episode with everything that hangs on it. Read by the columns.
#[derive(Debug)]
pub struct Row<'a> {
    pub(crate) meta: Meta<'a>,
    id: [u8; Hyphenated::LENGTH],
    pub(crate) body: Body<'a>,
    pub(crate) turns: u64,
    pub(crate) hits: HitList<'a>,
    pub(crate) shadow: Option<Run<'a>>,
    pub(crate) control: Option<Run<'a>>,
    pub(crate) feedback: FeedbackSummary,
    pub(crate) verdicts: VerdictSummary<'a>,
    pub(crate) rewards: RewardSummary<'a>,
    pub(crate) labels: LabelSummary,
}

/// A shadow run with its answer, where it completed.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub raw: &'a RawRun,
    pub answer: Option<(Answer<'a>, HitList<'a>)>,
}

/// Feedback, counted.
#[derive(Debug, Default)]
pub(crate) struct FeedbackSummary {
    pub count: u64,
    pub up: u64,
    pub down: u64,
    pub clicks: u64,
    pub comments: u64,
    pub scores: u64,
    pub score_sum: f64,
    pub preferred: u64,
    pub not_preferred: u64,
    pub list: Option<String>,
}

/// Verdicts: the overall scores by the judge who spoke last, and all of them as a list.
#[derive(Debug, Default)]
pub(crate) struct VerdictSummary<'a> {
    pub count: u64,
    pub judge: Option<&'a str>,
    pub live: Option<f64>,
    pub shadow: Option<f64>,
    pub control: Option<f64>,
    pub list: Option<String>,
}

/// The latest reward of the live side and of the shadow's, and all of them as a list.
#[derive(Debug, Default)]
pub(crate) struct RewardSummary<'a> {
    pub count: u64,
    pub live: Option<(&'a RawReward, Parts<'a>)>,
    pub shadow_total: Option<f64>,
    pub list: Option<String>,
}

/// Labels: the latest rewrite and passages that somebody wrote down, the mean of the scores, and all of them as a list.
#[derive(Debug, Default)]
pub(crate) struct LabelSummary {
    pub count: u64,
    pub gold: Option<String>,
    pub relevant: Option<Vec<String>>,
    pub relevant_list: Option<String>,
    pub scores: u64,
    pub score_sum: f64,
    pub list: Option<String>,
}

/// The components of a reward.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Parts<'a> {
    #[serde(borrow)]
    pub state: Option<Text<'a>>,
    pub total: Option<f64>,
    pub judge: Option<f64>,
    pub retrieval: Option<f64>,
    pub bonus: Option<f64>,
    pub quality_student: Option<f64>,
    pub quality_baseline: Option<f64>,
}

impl<'a> Row<'a> {
    /// # Errors
    /// With what cannot be understood.
    pub(crate) fn new(meta: Meta<'a>, body: &'a str, sides: &'a SideRows) -> Result<Self, String> {
        if meta.record_version > RECORD_VERSION {
            let version = meta.record_version;
            return Err(format!("record version {version} is newer than {RECORD_VERSION}: update recast"));
        }
        let body: Body<'a> = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let hits = hit_list(body.hits)?;
        let turns = parse::<Count>("its history", body.conversation.history.get())?.0;
        let mut id = [0; Hyphenated::LENGTH];
        uuid::Uuid::from_bytes(meta.id).as_hyphenated().encode_lower(&mut id);
        Ok(Self {
            meta,
            id,
            turns,
            hits,
            shadow: run(&sides.runs, "treatment")?,
            control: run(&sides.runs, "control")?,
            feedback: FeedbackSummary::new(&sides.feedback)?,
            verdicts: VerdictSummary::new(&sides.verdicts)?,
            rewards: RewardSummary::new(&sides.rewards)?,
            labels: LabelSummary::new(&sides.labels)?,
            body,
        })
    }

    /// The episode's id.
    #[must_use]
    pub fn id(&self) -> &str {
        // ASCII digits and dashes
        std::str::from_utf8(&self.id).unwrap_or_default()
    }
}

fn parse<'a, T: Deserialize<'a>>(what: &str, text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("{what}: {error}"))
}

fn hit_list(hits: &RawValue) -> Result<HitList<'_>, String> {
    parse("its hits", hits.get())
}

/// The run of a kind; the latest version's where there are several.
fn run<'a>(runs: &'a [RawRun], kind: &str) -> Result<Option<Run<'a>>, String> {
    let Some(raw) = runs.iter().rev().find(|run| run.kind == kind) else { return Ok(None) };
    let answer = match &raw.answer {
        Some(_) if raw.record_version > ANSWER_VERSION => {
            return Err(format!("its shadow's version {} is newer: update recast", raw.record_version));
        }
        Some(text) => {
            let answer: Answer<'a> = parse("its shadow", text)?;
            let hits = hit_list(answer.hits)?;
            Some((answer, hits))
        }
        None => None,
    };
    Ok(Some(Run { raw, answer }))
}

fn list<T: Serialize>(items: &[T]) -> Result<Option<String>, String> {
    if items.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(items).map(Some).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Signal {
    Thumbs { up: bool },
    Score { value: f64 },
    Comment {},
    Click {},
    Preference { preferred: Preferred },
}

use recast_domain::Preferred;

impl FeedbackSummary {
    fn new(events: &[RawFeedback]) -> Result<Self, String> {
        #[derive(Serialize)]
        struct Shown<'a> {
            created_ms: i64,
            signal: &'a RawValue,
        }
        let mut all = Self::default();
        let mut shown = Vec::with_capacity(events.len());
        for event in events {
            match parse("its feedback", &event.signal)? {
                Signal::Thumbs { up: true } => all.up += 1,
                Signal::Thumbs { up: false } => all.down += 1,
                Signal::Score { value } => {
                    all.scores += 1;
                    all.score_sum += value;
                }
                Signal::Comment {} => all.comments += 1,
                Signal::Click {} => all.clicks += 1,
                Signal::Preference { preferred: Preferred::This } => all.preferred += 1,
                Signal::Preference { preferred: Preferred::Other } => all.not_preferred += 1,
                Signal::Preference { preferred: Preferred::Neither } => {}
            }
            all.count += 1;
            shown.push(Shown { created_ms: event.created_ms, signal: parse("its feedback", &event.signal)? });
        }
        all.list = list(&shown)?;
        Ok(all)
    }

    /// The mean of the scores, 0 to 1.
    pub(crate) fn score_mean(&self) -> Option<f64> {
        (self.scores > 0).then(|| self.score_sum / self.scores as f64)
    }
}

impl<'a> VerdictSummary<'a> {
    fn new(verdicts: &'a [RawVerdict]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Scores {
            overall: Option<f64>,
        }
        #[derive(Serialize)]
        struct Shown<'a> {
            side: &'a str,
            judge: &'a str,
            prompt_version: &'a str,
            state: &'a str,
            overall: Option<f64>,
            reason: &'a str,
            created_ms: i64,
        }
        let mut all = Self { count: verdicts.len() as u64, ..Self::default() };
        let mut shown = Vec::with_capacity(verdicts.len());
        for one in verdicts {
            let overall = match &one.scores {
                Some(scores) => parse::<Scores>("its scores", scores)?.overall,
                None => None,
            };
            shown.push(Shown {
                side: &one.side,
                judge: &one.judge,
                prompt_version: &one.prompt_version,
                state: &one.state,
                overall,
                reason: &one.reason,
                created_ms: one.created_ms,
            });
        }
        // scores of two judges are not compared: all of the row's are of the one who spoke last
        let last = shown.iter().filter(|one| one.overall.is_some()).max_by_key(|one| (one.created_ms, one.judge));
        all.judge = last.map(|one| one.judge);
        for one in shown.iter().filter(|one| Some(one.judge) == all.judge) {
            match one.side {
                "live" => all.live = one.overall.or(all.live),
                "shadow" => all.shadow = one.overall.or(all.shadow),
                "control" => all.control = one.overall.or(all.control),
                _ => {}
            }
        }
        all.list = list(&shown)?;
        Ok(all)
    }
}

impl<'a> RewardSummary<'a> {
    fn new(rewards: &'a [RawReward]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Stored<'a> {
            #[serde(borrow)]
            reward: Option<&'a RawValue>,
            total: Option<f64>,
        }
        #[derive(Serialize)]
        struct Shown<'a> {
            side: &'a str,
            reward_version: u32,
            weights_hash: &'a str,
            created_ms: i64,
            reward: Option<&'a RawValue>,
        }
        let mut all = Self { count: rewards.len() as u64, ..Self::default() };
        let mut shown = Vec::with_capacity(rewards.len());
        for one in rewards {
            let stored: Stored<'a> = parse("its reward", &one.parts)?;
            let parts = match stored.reward {
                Some(raw) => parse("its reward", raw.get())?,
                None => Parts { total: stored.total, ..Parts::default() },
            };
            // in the order of time: the last one of a side stays
            match one.side.as_str() {
                "live" => all.live = Some((one, parts)),
                "shadow" => all.shadow_total = parts.total.or(all.shadow_total),
                _ => {}
            }
            shown.push(Shown {
                side: &one.side,
                reward_version: one.reward_version,
                weights_hash: &one.weights_hash,
                created_ms: one.created_ms,
                reward: stored.reward,
            });
        }
        all.list = list(&shown)?;
        Ok(all)
    }
}

impl LabelSummary {
    fn new(labels: &[RawLabel]) -> Result<Self, String> {
        #[derive(Serialize)]
        struct Shown<'a> {
            author: &'a str,
            kind: &'a str,
            value: &'a RawValue,
            created_ms: i64,
        }
        let mut all = Self { count: labels.len() as u64, ..Self::default() };
        let mut shown = Vec::with_capacity(labels.len());
        // in the order of time: what was said last stays
        for one in labels {
            match labels::read(&one.kind, &one.value)? {
                LabelValue::GoldRewrite(text) => all.gold = Some(text),
                LabelValue::Relevant(ids) => {
                    all.relevant_list = Some(one.value.clone());
                    all.relevant = Some(ids);
                }
                LabelValue::Score(score) => {
                    all.scores += 1;
                    all.score_sum += score;
                }
                LabelValue::Label(_) => {}
            }
            let value = parse("its label", &one.value)?;
            shown.push(Shown { author: &one.author, kind: &one.kind, value, created_ms: one.created_ms });
        }
        all.list = list(&shown)?;
        Ok(all)
    }

    /// The mean of the scores, 0 to 1.
    pub(crate) fn score_mean(&self) -> Option<f64> {
        (self.scores > 0).then(|| self.score_sum / self.scores as f64)
    }
}
