//! Waiting until every shadow run has ended, as the episode store tells it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use recast_domain::TenantId;
use recast_episodes::{EpisodeError, EpisodeReader};
use tokio::time::{Instant, interval};

/// How the wait goes on.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How often the store is asked.
    pub every: Duration,
    /// How long the number of pending runs may stay the same.
    pub patience: Duration,
}

/// Waits until no run of the experiment is pending. Returns how many are left: more than none when their number has not
/// fallen for as long as patience lasts.
///
/// # Errors
/// When the store cannot be read.
pub async fn drained(
    reader: &EpisodeReader,
    tenants: &[TenantId],
    experiment: &str,
    pace: Pace,
) -> Result<u64, EpisodeError> {
    let pending = || {
        let mut left = 0;
        for tenant in tenants {
            let accounts = reader.shadow_accounting(tenant, Some(experiment))?;
            left += accounts.iter().map(|account| account.pending).sum::<u64>();
        }
        Ok(left)
    };
    until_none(pending, pace).await
}

async fn until_none<E>(mut pending: impl FnMut() -> Result<u64, E>, pace: Pace) -> Result<u64, E> {
    let progress = spinner();
    let (mut least, mut since) = (u64::MAX, Instant::now());
    let mut ticks = interval(pace.every);
    loop {
        ticks.tick().await;
        let left = pending()?;
        progress.set_message(format!("{left} shadow runs to go"));
        if left < least {
            (least, since) = (left, Instant::now());
        }
        if left == 0 || since.elapsed() >= pace.patience {
            progress.finish_and_clear();
            return Ok(left);
        }
    }
}

fn spinner() -> ProgressBar {
    let progress = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
    if let Ok(style) = style { progress.with_style(style) } else { progress }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { every: Duration::from_millis(1), patience: Duration::from_millis(20) };

    #[tokio::test]
    async fn the_wait_ends_with_the_last_pending_run() {
        let mut counts = [5, 5, 2, 0, 9].into_iter();
        let left = until_none(|| counts.next().ok_or("asked once too often"), PACE).await;
        assert_eq!(left, Ok(0));
        assert_eq!(counts.next(), Some(9), "nothing is asked after the end");
    }

    #[tokio::test]
    async fn runs_that_never_end_are_counted_when_patience_is_over() {
        assert_eq!(until_none(|| Ok::<_, ()>(3), PACE).await, Ok(3));
    }

    #[tokio::test]
    async fn an_unreadable_store_ends_the_wait() {
        assert_eq!(until_none(|| Err("gone"), PACE).await, Err("gone"));
    }
}
