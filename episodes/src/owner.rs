//! Whose shadow runs are whose, where many gateways write to one store.
//!
//! A file has one writer, so that every run that waits at its start was left behind. On a server each writer has an
//! owner id, which its runs carry. It holds an advisory lock of that number as long as its connection lives, and says
//! now and then that it is there: a writer is gone once its lock is free and it has not been seen for [`LEASE`]. The
//! second half is what keeps the runs of a living gateway whose connection broke for a moment.

use std::time::Duration;

use crate::db::{Connection, Result};

/// How long a writer without a connection counts as alive.
const LEASE: Duration = Duration::from_secs(30);
/// How often a writer says that it is there, and looks for those that are not.
pub(crate) const SEEN_EVERY: Duration = Duration::from_secs(5);

const SEEN: &str = "INSERT INTO gateways (owner, seen) VALUES (?1, now())
    ON CONFLICT (owner) DO UPDATE SET seen = excluded.seen";
const LEAVE: &str = "DELETE FROM gateways WHERE owner = ?1";
// the number of a lock lies in two halves
const IS_GONE: &str = "NOT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND classid::bigint << 32 | objid::bigint = one.owner)
        AND NOT EXISTS (SELECT 1 FROM gateways WHERE owner = one.owner AND seen > now() - make_interval(secs => ?1))";

/// A number that no other writer has.
pub(crate) fn new() -> i64 {
    // 63 bits at random: a number of a lock in halves has no sign
    (uuid::Uuid::new_v4().as_u64_pair().1 & (i64::MAX as u64)) as i64
}

/// Makes `connection` the one of the writer `owner`.
///
/// # Errors
/// When the server fails.
pub(crate) fn hold(connection: &Connection, owner: i64) -> Result<()> {
    // shared, because the server may not have noticed yet that the connection before this one is gone
    connection.batch(&format!("SET recast.owner = '{owner}'; SELECT pg_advisory_lock_shared({owner})"))?;
    seen(connection, owner)
}

/// Says that the writer is there.
///
/// # Errors
/// When the server fails.
pub(crate) fn seen(connection: &Connection, owner: i64) -> Result<()> {
    connection.execute(SEEN, &[owner.into()]).map(drop)
}

/// Says that the writer is gone for good: its runs may be ended at once.
///
/// # Errors
/// When the server fails.
pub(crate) fn leave(connection: &Connection, owner: i64) -> Result<()> {
    connection.execute(LEAVE, &[owner.into()])?;
    connection.batch(&format!("SELECT pg_advisory_unlock_shared({owner})"))
}

/// Whether some writer is there.
///
/// # Errors
/// When the server fails.
pub(crate) fn any(connection: &Connection) -> Result<bool> {
    let sql = "SELECT count(*) FROM gateways WHERE seen > now() - make_interval(secs => ?1)";
    Ok(connection.number(sql, &[LEASE.as_secs_f64().into()])? > 0)
}

/// Ends the runs of writers that are gone, and forgets those writers. Returns how many runs that were.
///
/// # Errors
/// When the server fails.
pub(crate) fn sweep(connection: &Connection) -> Result<usize> {
    let lease = [LEASE.as_secs_f64().into()];
    let ended = format!(
        "UPDATE shadow_runs AS one SET state = 'dropped', reason = 'restart'
            WHERE state = 'pending' AND (owner IS NULL OR {IS_GONE})"
    );
    let ended = connection.execute(&ended, &lease)?;
    connection.execute(&format!("DELETE FROM gateways AS one WHERE {IS_GONE}"), &lease)?;
    Ok(ended)
}
