//! Which episodes of a tenant are wanted.

use std::collections::BTreeMap;
use std::str::FromStr;

use recast_domain::{PolicyId, TenantId};
use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::db::Query;

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

/// A tag that an episode must have: `name` with any value, or `name=value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagWanted {
    name: String,
    value: Option<String>,
}

impl FromStr for TagWanted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() {
            return Err("a tag is NAME or NAME=VALUE");
        }
        Ok(Self { name: name.to_owned(), value })
    }
}

impl TryFrom<String> for TagWanted {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TagWanted> for String {
    fn from(TagWanted { name, value }: TagWanted) -> Self {
        value.map_or_else(|| name.clone(), |value| format!("{name}={value}"))
    }
}

impl TagWanted {
    fn is_on(&self, row: &Row<'_>) -> bool {
        let tags = row.body.request.tags.map(|tags| serde_json::from_str::<BTreeMap<String, String>>(tags.get()));
        let Some(Ok(tags)) = tags else { return false };
        tags.get(&self.name).is_some_and(|is| self.value.as_ref().is_none_or(|wanted| wanted == is))
    }
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
    /// With this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<TagWanted>,
}

impl ExportFilter {
    /// Whether it leaves nothing out.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// What SQL cannot say: feedback is counted beside the episode, tags are inside it.
    pub(crate) fn wants(&self, row: &Row<'_>) -> bool {
        let heard = match self.feedback {
            None => true,
            Some(FeedbackWanted::Any) => row.feedback.count > 0,
            Some(FeedbackWanted::None) => row.feedback.count == 0,
            Some(FeedbackWanted::Up) => row.feedback.up > 0,
            Some(FeedbackWanted::Down) => row.feedback.down > 0,
        };
        heard && self.tag.as_ref().is_none_or(|tag| tag.is_on(row))
    }

    /// The statement is put together from fixed parts; whatever a caller gives is bound.
    pub(crate) fn query<'a>(&'a self, tenant: &'a TenantId, after: &'a [u8; 16], max_row: i64) -> Query<'a> {
        let sql = "SELECT id, created_ms, record_version, degraded, body FROM episodes
            WHERE tenant = ?1 AND id > ?2 AND rowid <= ?3";
        let mut query = Query::new(sql, vec![tenant.as_str().into(), after.into(), max_row.into()]);
        if let Some(from_ms) = self.from_ms {
            query.push(" AND created_ms >= ?", [from_ms.into()]);
        }
        if let Some(to_ms) = self.to_ms {
            query.push(" AND created_ms < ?", [to_ms.into()]);
        }
        match self.degraded {
            Some(true) => query.push(" AND degraded = 1", []),
            Some(false) => query.push(" AND degraded = 0", []),
            None => {}
        }
        if let Some(policy) = &self.policy {
            query.push(" AND policy = ?", [policy.as_str().into()]);
        }
        if let Some(experiment) = &self.experiment {
            query.push(" AND experiment = ?", [experiment.into()]);
        }
        if let Some(arm) = &self.arm {
            query.push(" AND arm = ?", [arm.into()]);
        }
        query.push(" ORDER BY id", []);
        query
    }
}
