use std::fmt;

use async_trait::async_trait;
use recast_config::TenantProfile;
use recast_domain::{Conversation, TenantId};
use serde::{Deserialize, Serialize};

use crate::{InvalidRewrite, JudgeError, Scores, Verdict, VerdictFault};

/// A question whose rewrites are judged, with everything a judge may know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeItem {
    /// Whose question it is; its money pays for the judging.
    pub tenant: TenantId,
    /// What the tenant answers for, in a few words of the operator's.
    pub domain: String,
    /// Words of the domain.
    pub terms: Vec<String>,
    /// The question and its context.
    pub conversation: Conversation,
    /// Texts that a search found, for reference; may be empty.
    pub passages: Vec<String>,
    /// Counts askings of the same thing: another number is another order, and nothing from the cache.
    pub repeat: u32,
}

impl JudgeItem {
    /// A question of this tenant, asked for the first time.
    #[must_use]
    pub fn new(tenant: &TenantProfile, conversation: Conversation) -> Self {
        let expansions = tenant.term_expansion.values().flatten();
        let mut terms: Vec<String> = tenant.protected_terms.iter().chain(expansions).cloned().collect();
        terms.sort();
        terms.dedup();
        Self {
            tenant: tenant.id.clone(),
            domain: tenant.domain.clone(),
            terms,
            conversation,
            passages: Vec::new(),
            repeat: 0,
        }
    }
}

/// Where a search with a rewrite finds the first passage that is labelled as an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelRank {
    /// There are no labels, or nothing was searched.
    #[default]
    Unknown,
    /// Not among the hits.
    NotFound,
    /// At this place; 1 is the first.
    At(u32),
}

/// A rewrite that is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its text.
    pub text: String,
    /// What a search with it finds. Only the offline judge reads this.
    pub rank: LabelRank,
}

impl From<&str> for Candidate {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), rank: LabelRank::Unknown }
    }
}

/// What is known of one rewrite of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Judged {
    /// It was scored, once an order.
    Scored {
        /// The mean of the orders' overall scores, 1 to 5.
        overall: f64,
        /// The scores in each order.
        orders: Vec<Scores>,
        /// The judge's reason in the first order; may be empty.
        reason: String,
    },
    /// It is no rewrite, so no judge was asked.
    Invalid {
        /// Why not.
        reason: InvalidRewrite,
    },
    /// There is no verdict, and none is made up.
    Missing {
        /// Why not.
        fault: VerdictFault,
    },
}

impl Judged {
    pub(crate) fn scored(orders: Vec<Scores>, reason: String) -> Self {
        let overall = orders.iter().map(|scores| scores.overall()).sum::<f64>() / orders.len().max(1) as f64;
        Self::Scored { overall, orders, reason }
    }

    /// The overall score, 1 to 5; `None` where there is no verdict.
    #[must_use]
    pub fn overall(&self) -> Option<f64> {
        match self {
            Self::Scored { overall, .. } => Some(*overall),
            Self::Invalid { .. } | Self::Missing { .. } => None,
        }
    }
}

impl From<Verdict> for Judged {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Scored { scores, reason } => Self::scored(vec![scores], reason),
            Verdict::Missing { fault } => Self::Missing { fault },
        }
    }
}

/// What a judge said of one rewrite by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RubricVerdict {
    /// The scores, or why there are none.
    pub verdict: Verdict,
    /// The judge's answer as it came, also one that was of no use; empty where there was none.
    pub reply: String,
}

impl RubricVerdict {
    /// The overall score, 1 to 5; `None` where the verdict is missing.
    #[must_use]
    pub fn overall(&self) -> Option<f64> {
        self.verdict.overall()
    }
}

impl From<Verdict> for RubricVerdict {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, reply: String::new() }
    }
}

/// How often the order of a list decided which of two rewrites is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flips {
    /// Pairs of distinct rewrites that both orders told apart.
    pub compared: u32,
    /// Those that the two orders told apart differently.
    pub flipped: u32,
}

/// What a judge said of all rewrites of a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupVerdict {
    /// Who said it ([`Judge::id`]).
    pub judge: String,
    /// In the order of the rewrites that were given. Equal texts have equal scores.
    pub rewrites: Vec<Judged>,
    /// The baseline's.
    pub baseline: Judged,
    /// What the order did.
    pub flips: Flips,
    /// The judge's answers as they came, also one that was of no use.
    pub replies: Vec<String>,
}

/// Scores rewrites.
///
/// No method fails: where there is no score the verdict says why. A score is never made up, and scores of two judges
/// with different [`Judge::id`]s are never compared.
#[async_trait]
pub trait Judge: Send + Sync {
    /// Who judges: kind, model, mode, language and version of the instructions in one text.
    fn id(&self) -> &str;

    /// Asks one small question, to find wrong settings before the first real one.
    ///
    /// # Errors
    /// When the judge cannot work as it is set up; the message names the setting and the fix.
    async fn probe(&self) -> Result<(), JudgeError> {
        Ok(())
    }

    /// Forgets what it has said, where it keeps that in memory.
    fn forget(&self) {}

    /// The four scores of one rewrite by itself.
    async fn judge_rubric(&self, item: &JudgeItem, rewrite: &Candidate) -> RubricVerdict;

    /// The scores of all rewrites of a question and of the baseline's.
    async fn judge_group(&self, item: &JudgeItem, rewrites: &[Candidate], baseline: &Candidate) -> GroupVerdict;
}

impl fmt::Debug for dyn Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
