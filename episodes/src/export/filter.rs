//! Which episodes of a tenant are wanted.

use recast_domain::{EpisodeId, PolicyId, TenantId};
use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::reader::Values;

/// Which feedback an episode must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackWanted {
    /// Some.
    Any,
    /// None.
    None,
    /// A thumb up.
    Up,
    /// A thumb down.
    Down,
}

/// Which episodes are wanted; everything that is given must hold. Whose they are is said beside it, never in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportFilter {
    /// Created at this time or later, milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<i64>,
    /// Created before this time, milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<i64>,
    /// Of this experiment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// Answered by this arm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// Rewritten by this policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyId>,
    /// Only those where a stage failed or was late (true), or only the others (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<bool>,
    /// With this feedback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedback: Option<FeedbackWanted>,
}

impl ExportFilter {
    /// Whether it leaves nothing out.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// What SQL cannot say: feedback is counted beside the episode.
    pub(crate) fn wants(&self, row: &Row<'_>) -> bool {
        match self.feedback {
            None => true,
            Some(FeedbackWanted::Any) => row.feedback.count > 0,
            Some(FeedbackWanted::None) => row.feedback.count == 0,
            Some(FeedbackWanted::Up) => row.feedback.up > 0,
            Some(FeedbackWanted::Down) => row.feedback.down > 0,
        }
    }

    /// The statement is put together from fixed parts; whatever a caller gives is bound.
    pub(crate) fn query(&self, tenant: &TenantId, after: Option<EpisodeId>, max_row: i64) -> (String, Values) {
        let after = after.map_or([0; 16], |id| *id.0.as_bytes());
        let mut sql = "SELECT id, created_ms, record_version, degraded, body FROM episodes
            WHERE tenant = :tenant AND id > :after AND rowid <= :max_row"
            .to_owned();
        let mut values: Values = vec![
            (":tenant", Box::new(tenant.as_str().to_owned())),
            (":after", Box::new(after)),
            (":max_row", Box::new(max_row)),
        ];
        if let Some(from_ms) = self.from_ms {
            sql.push_str(" AND created_ms >= :from_ms");
            values.push((":from_ms", Box::new(from_ms)));
        }
        if let Some(to_ms) = self.to_ms {
            sql.push_str(" AND created_ms < :to_ms");
            values.push((":to_ms", Box::new(to_ms)));
        }
        match self.degraded {
            Some(true) => sql.push_str(" AND degraded = 1"),
            Some(false) => sql.push_str(" AND degraded = 0"),
            None => {}
        }
        if let Some(policy) = &self.policy {
            sql.push_str(" AND policy = :policy");
            values.push((":policy", Box::new(policy.as_str().to_owned())));
        }
        if let Some(experiment) = &self.experiment {
            sql.push_str(" AND experiment = :experiment");
            values.push((":experiment", Box::new(experiment.clone())));
        }
        if let Some(arm) = &self.arm {
            sql.push_str(" AND arm = :arm");
            values.push((":arm", Box::new(arm.clone())));
        }
        sql.push_str(" ORDER BY id");
        (sql, values)
    }
}
