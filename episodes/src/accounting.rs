//! The ledger of shadow runs, counted: what became of what was sampled.

use std::collections::BTreeMap;

use recast_domain::{ShadowKind, TenantId};

use crate::db::Query;
use crate::error::EpisodeError;
use crate::ledger::PENDING;
use crate::pairs::kind;
use crate::reader::EpisodeReader;

pub(crate) const COUNTS: &str = "SELECT version, arm, kind, state, reason, count(*), experiment FROM shadow_runs
    WHERE tenant = ?1";
pub(crate) const BY_OUTCOME: &str = " GROUP BY experiment, version, arm, kind, state, reason
    ORDER BY experiment, version, arm, kind, state, reason";
pub(crate) const ARM_COUNTS: &str = "SELECT experiment_version, arm, count(*), CAST(sum(degraded) AS BIGINT)
    FROM episodes INDEXED BY episodes_by_experiment
    WHERE tenant = ?1 AND experiment = ?2 GROUP BY experiment_version, arm ORDER BY experiment_version, arm";

/// What became of the requests that one arm of one version of an experiment was sampled for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Accounting {
    /// The experiment's id.
    pub experiment: String,
    /// Version of its definition.
    pub version: u32,
    /// The arm that runs in the shadow.
    pub arm: String,
    /// Why the runs exist.
    pub kind: ShadowKind,
    /// All of them; what follows adds up to this.
    pub sampled: u64,
    /// The arm answered.
    pub completed: u64,
    /// It failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// It was too late.
    pub timed_out: u64,
    /// It was never run, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// It waits or runs now. None is left once the process that sampled it has ended and another one has started.
    pub pending: u64,
}

impl Accounting {
    fn new(experiment: String, version: u32, arm: String, kind: ShadowKind) -> Self {
        let (failed, dropped) = (BTreeMap::new(), BTreeMap::new());
        Self { experiment, version, arm, kind, sampled: 0, completed: 0, failed, timed_out: 0, dropped, pending: 0 }
    }

    /// Whether every sampled request ended as exactly one thing, or has not ended.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let failed: u64 = self.failed.values().sum();
        let dropped: u64 = self.dropped.values().sum();
        self.sampled == self.completed + failed + self.timed_out + dropped + self.pending
    }
}

/// Episodes of one arm of one version of an experiment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ArmCount {
    /// Version of the experiment's definition.
    pub version: u32,
    /// The arm that answered; of an interleaved answer, the two joined by `+`.
    pub arm: String,
    /// Episodes.
    pub episodes: u64,
    /// Those of them where a stage failed or was late.
    pub degraded: u64,
}

impl EpisodeReader {
    /// What became of the sampled requests of one tenant, in one experiment or in all, by experiment, version, arm and
    /// kind. Runs of deleted episodes are not counted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn shadow_accounting(
        &self,
        tenant: &TenantId,
        experiment: Option<&str>,
    ) -> Result<Vec<Accounting>, EpisodeError> {
        let rows = self.read(|connection| {
            let mut query = Query::new(COUNTS, vec![tenant.as_str().into()]);
            if let Some(experiment) = experiment {
                query.push(" AND experiment = ?", [experiment.into()]);
            }
            query.push(BY_OUTCOME, []);
            connection.query(&query.sql, &query.values, |row| {
                let key: (String, u32, String, String) = (row.get(6)?, row.get(0)?, row.get(1)?, row.get(2)?);
                let outcome: (String, String, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
                Ok((key, outcome))
            })
        })?;
        let mut accounts: Vec<Accounting> = Vec::new();
        for ((experiment, version, arm, kind_name), (state, reason, count)) in rows {
            let Some(kind) = kind(&kind_name) else {
                return Err(unknown("kind", &kind_name));
            };
            let same = |one: &&mut Accounting| {
                (one.experiment.as_str(), one.version, one.arm.as_str(), one.kind) == (&experiment, version, &arm, kind)
            };
            if accounts.last_mut().filter(same).is_none() {
                accounts.push(Accounting::new(experiment, version, arm, kind));
            }
            let Some(account) = accounts.last_mut() else { continue };
            let count = u64::try_from(count).unwrap_or(0);
            account.sampled += count;
            match state.as_str() {
                "completed" => account.completed += count,
                "timed_out" => account.timed_out += count,
                "failed" => *account.failed.entry(reason).or_default() += count,
                "dropped" => *account.dropped.entry(reason).or_default() += count,
                PENDING => account.pending += count,
                _ => return Err(unknown("state", &state)),
            }
        }
        Ok(accounts)
    }

    /// How many episodes each arm of an experiment answered, by version and arm.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn arm_counts(&self, tenant: &TenantId, experiment: &str) -> Result<Vec<ArmCount>, EpisodeError> {
        self.read(|connection| {
            connection.query(ARM_COUNTS, &[tenant.as_str().into(), experiment.into()], |row| {
                let (episodes, degraded): (i64, i64) = (row.get(2)?, row.get(3)?);
                let (version, arm) = (row.get(0)?, row.get(1)?);
                Ok(ArmCount { version, arm, episodes: episodes.max(0) as u64, degraded: degraded.max(0) as u64 })
            })
        })
    }
}

fn unknown(what: &str, text: &str) -> EpisodeError {
    EpisodeError::Unreadable { id: "of a shadow run".to_owned(), message: format!("{what} {text:?} is not known") }
}
