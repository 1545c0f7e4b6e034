//! Rows out of the store, in the order of their ids, from one moment of it.

use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use recast_domain::{EpisodeId, TenantId};
use serde::{Deserialize, Serialize};

use super::error::ExportError;
use super::filter::ExportFilter;
use super::row::{Meta, Row};
use super::sides::{SideRows, SideStatements};
use crate::db::{self, Connection, Place, Text, Value};
use crate::error::EpisodeError;
use crate::reader::{EpisodeReader, hex};

/// The moment of a store that an export shows: the last row of each table. Rows are only ever added behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken, milliseconds since the Unix epoch.
    pub taken_ms: i64,
    /// Last row of the episodes.
    pub episodes: i64,
    /// Last row of the shadow runs.
    pub shadow_runs: i64,
    /// Last row of the feedback.
    pub feedback: i64,
    /// Last row of the verdicts.
    pub verdicts: i64,
    /// Last row of the rewards.
    pub rewards: i64,
    /// Last row of the labels; 0 in exports that an earlier version began.
    #[serde(default)]
    pub labels: i64,
    /// Shadow runs that had not ended.
    pub pending: i64,
}

impl Snapshot {
    fn take(connection: &Connection) -> db::Result<Self> {
        let number = |sql: &str| connection.number(sql, &[]);
        let taken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            taken_ms: i64::try_from(taken.as_millis()).unwrap_or(i64::MAX),
            episodes: number("SELECT coalesce(max(rowid), 0) FROM episodes")?,
            shadow_runs: number("SELECT coalesce(max(rowid), 0) FROM shadow_runs")?,
            feedback: number("SELECT coalesce(max(rowid), 0) FROM feedback")?,
            verdicts: number("SELECT coalesce(max(rowid), 0) FROM verdicts")?,
            rewards: number("SELECT coalesce(max(rowid), 0) FROM rewards")?,
            labels: number("SELECT coalesce(max(rowid), 0) FROM labels")?,
            pending: number("SELECT count(*) FROM shadow_runs WHERE state = 'pending'")?,
        })
    }
}

/// What changed inside a snapshot after it was taken, where an export was broken off and goes on later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drift {
    /// Verdicts, rewards and labels that were replaced.
    pub replaced: i64,
    /// Shadow runs that ended.
    pub ended_runs: i64,
}

/// An episode that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub id: [u8; 16],
    pub message: String,
}

/// A connection that stays at one moment of the store until it is dropped. Meanwhile the store goes on; only its
/// write-ahead log cannot be cut.
#[derive(Debug)]
pub struct Source {
    connection: Connection,
    place: Place,
}

impl Source {
    /// Opens the store at its present moment.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(reader: &EpisodeReader) -> Result<(Self, Snapshot), ExportError> {
        let (connection, place) = reader.fresh()?;
        let begun = connection.begin_snapshot().and_then(|()| Snapshot::take(&connection));
        let snapshot = begun.map_err(|error| place.error(error))?;
        Ok((Self { connection, place }, snapshot))
    }

    /// All tenants that have an episode.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn tenants(&self) -> Result<Vec<TenantId>, ExportError> {
        let sql = "SELECT tenant FROM episodes WHERE tenant > ?1 ORDER BY tenant LIMIT 1";
        let mut tenants: Vec<TenantId> = Vec::new();
        let mut last = String::new();
        loop {
            let next = self.connection.first(sql, &[(&last).into()], |row| row.get::<String>(0));
            let Some(next) = next.map_err(|error| self.place.error(error))? else { return Ok(tenants) };
            // one that is no tenant's name cannot be asked for either
            tenants.extend(next.parse::<TenantId>().ok());
            last = next;
        }
    }

    /// How many episodes `tenant` has within `snapshot`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn count(&self, tenant: &TenantId, snapshot: &Snapshot) -> Result<u64, ExportError> {
        let sql = "SELECT count(*) FROM episodes WHERE tenant = ?1 AND rowid <= ?2";
        let count = self.connection.number(sql, &[tenant.as_str().into(), snapshot.episodes.into()]);
        Ok(u64::try_from(count.map_err(|error| self.place.error(error))?).unwrap_or(0))
    }

    /// What changed within `snapshot` since it was taken.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn drift(&self, snapshot: &Snapshot) -> Result<Drift, ExportError> {
        let number = |sql: &str, values: &[Value<'_>]| {
            self.connection.number(sql, values).map_err(|error| self.place.error(error))
        };
        let later = |table: &str, bound: i64| {
            number(
                &format!("SELECT count(*) FROM {table} WHERE rowid <= ?1 AND created_ms > ?2"),
                &[bound.into(), snapshot.taken_ms.into()],
            )
        };
        let replaced = later("verdicts", snapshot.verdicts)?
            + later("rewards", snapshot.rewards)?
            + later("labels", snapshot.labels)?;
        let pending = number(
            "SELECT count(*) FROM shadow_runs WHERE state = 'pending' AND rowid <= ?1",
            &[snapshot.shadow_runs.into()],
        )?;
        Ok(Drift { replaced, ended_runs: snapshot.pending - pending })
    }

    /// Shows the rows of `tenant` behind `after` to `visit`, oldest id first, and what could not be read to it as well.
    ///
    /// # Errors
    /// When the store cannot be read, and those of `visit`.
    pub(crate) fn walk<E: From<EpisodeError>>(
        &self,
        tenant: &TenantId,
        filter: &ExportFilter,
        after: Option<EpisodeId>,
        snapshot: &Snapshot,
        mut visit: impl FnMut([u8; 16], Result<Row<'_>, Unreadable>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let named = |error| E::from(self.place.error(error));
        let mut sides = SideStatements::new(&self.connection, snapshot).map_err(named)?;
        let start = after.map_or([0; 16], |id| *id.0.as_bytes());
        let mut sides = sides.walk(tenant.as_str(), &start).map_err(named)?;
        let query = filter.query(tenant, &start, snapshot.episodes);
        let mut statement = self.connection.prepare(&query.sql).map_err(named)?;
        let mut rows = statement.open(&query.values).map_err(named)?;
        let mut beside = SideRows::default();
        loop {
            rows.advance().map_err(named)?;
            let Some(row) = rows.get() else { break };
            let id: [u8; 16] = row.get(0).map_err(named)?;
            sides.read(&id, &mut beside).map_err(named)?;
            let meta = Meta {
                id,
                tenant: tenant.as_str(),
                created_ms: row.get(1).map_err(named)?,
                record_version: row.get(2).map_err(named)?,
                degraded: row.get(3).map_err(named)?,
            };
            let Text(body) = row.get(4).map_err(named)?;
            let row = body.and_then(|body| Row::new(meta, body, &beside));
            if row.as_ref().is_ok_and(|row| !filter.wants(row)) {
                continue;
            }
            if visit(id, row.map_err(|message| Unreadable { id, message }))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows every row of `tenant` to `visit`; what cannot be read is shown as its error.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn rows(
        &self,
        tenant: &TenantId,
        filter: &ExportFilter,
        snapshot: &Snapshot,
        mut visit: impl FnMut(Result<&Row<'_>, EpisodeError>),
    ) -> Result<(), ExportError> {
        self.walk(tenant, filter, None, snapshot, |_, row| {
            match row {
                Ok(row) => visit(Ok(&row)),
                Err(Unreadable { id, message }) => visit(Err(EpisodeError::Unreadable { id: hex(&id), message })),
            }
            Ok::<_, ExportError>(ControlFlow::Continue(()))
        })
    }
}
