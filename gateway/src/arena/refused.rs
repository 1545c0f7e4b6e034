//! Sampled requests for which the shadow has no place.
//!
//! Such a run is complete before its episode is. The episode says so ([`RefusedRun`]), and the run's own row follows a
//! moment later, with others: a service that hangs costs the live path no second row in each commit. What a kill takes
//! in between, the next start writes from the episodes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use recast_domain::{Assignment, Episode, RefusedRun, ShadowKind, ShadowOutcome, ShadowRun, TenantId};
use recast_episodes::{EpisodeError, EpisodeFilter, EpisodeStore, LIST_MAX};
use tokio::sync::mpsc::{OwnedPermit, Receiver};

use crate::arena::runner::Runner;
use crate::arena::shadow::dropped;

/// Refused runs that may wait to be written; beyond them, each is written with its episode.
pub const REFUSED_MOST: usize = 1024;
/// How long refused runs gather: each writing costs a commit.
const GATHER: Duration = Duration::from_secs(1);
/// How far behind the newest episode a run may lack its row: far more than a gathering and a slow commit take.
const BEHIND_MS: i64 = 60_000;

/// A place among the refused runs that wait to be written.
pub type RefusedPlace = OwnedPermit<ShadowRun>;

/// How a run ends for which there is no place.
#[must_use]
pub fn queue_full() -> ShadowOutcome {
    dropped("queue_full")
}

/// Writes the runs that were refused, as many together as have come, until the queue closes.
pub async fn write_refused(runner: Arc<Runner>, mut refusals: Receiver<ShadowRun>) {
    loop {
        let first = tokio::select! {
            biased;
            () = runner.closing.cancelled() => None,
            first = refusals.recv() => first,
        };
        let last = first.is_none();
        let mut runs: Vec<_> = first.into_iter().collect();
        if last {
            // whoever holds a place still fills it
            refusals.close();
            while let Some(run) = refusals.recv().await {
                runs.push(run);
            }
        } else {
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                () = runner.closing.cancelled() => {}
            }
            while let Ok(run) = refusals.try_recv() {
                runs.push(run);
            }
        }
        // queued at once, they share a transaction
        futures::future::join_all(runs.into_iter().map(|run| runner.end(run, queue_full()))).await;
        if last {
            return;
        }
    }
}

/// Writes the rows that an earlier process owes to the newest episodes of these tenants. One that is there stands.
///
/// # Errors
/// When the store cannot be read or written.
pub async fn settle_refused(store: &EpisodeStore, tenants: BTreeSet<TenantId>) -> Result<(), EpisodeError> {
    for tenant in tenants {
        let mut filter = EpisodeFilter::newest(tenant, LIST_MAX);
        loop {
            let page = {
                let filter = filter.clone();
                store.read(move |reader| reader.list(&filter)).await?
            };
            let (Some(newest), Some(oldest)) = (page.first(), page.last()) else { break };
            filter.from_ms.get_or_insert(newest.created_ms - BEHIND_MS);
            filter.after = Some(oldest.id);
            for run in page.iter().filter_map(refused_run) {
                store.end_shadow(&run).await?;
            }
            if page.len() < LIST_MAX {
                break;
            }
        }
    }
    Ok(())
}

/// The run that an episode says was refused.
fn refused_run(episode: &Episode) -> Option<ShadowRun> {
    let (assignment, RefusedRun { arm, kind }) = (episode.experiment.as_ref()?, episode.refused.as_ref()?);
    Some(ShadowRun {
        episode: episode.id,
        tenant: episode.tenant.clone(),
        assignment: Assignment { arm: arm.clone(), ..assignment.clone() },
        kind: ShadowKind::clone(kind),
        sampled_ms: episode.created_ms,
        outcome: Some(queue_full()),
    })
}
