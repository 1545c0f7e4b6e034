use recast_domain::{Episode, TenantId};
use recast_episodes::{EpisodeFilter, EpisodeReader, Place};

use crate::args::{EpisodesArgs, EpisodesCommand};
use crate::{config, out};

/// `recast episodes list|show|erase|erased|export|stats`
pub fn run(args: &EpisodesArgs) -> anyhow::Result<()> {
    match &args.command {
        EpisodesCommand::List { tenant, limit, degraded, settings } => {
            let reader = EpisodeReader::open(Place::of(&config::effective(settings)?.settings)?)?;
            let filter = EpisodeFilter {
                degraded_only: *degraded,
                ..EpisodeFilter::newest(tenant.parse::<TenantId>()?, *limit)
            };
            for episode in reader.list(&filter)? {
                out::line(&row(&episode));
            }
        }
        EpisodesCommand::Show { id, tenant, settings } => {
            let reader = EpisodeReader::open(Place::of(&config::effective(settings)?.settings)?)?;
            let episode = reader.get(&tenant.parse::<TenantId>()?, id.parse()?)?;
            out::line(&serde_json::to_string_pretty(&episode)?);
        }
        EpisodesCommand::Erase { tenant, user, remote, settings } => {
            return crate::erase::erase(tenant.as_deref(), user, remote, settings);
        }
        EpisodesCommand::Erased { tenant, since, settings } => {
            return crate::erase::erased(tenant, since.as_deref(), settings);
        }
        EpisodesCommand::Export(args) => return crate::export::run(args),
        EpisodesCommand::Stats(args) => return crate::export::stats(args),
    }
    Ok(())
}

fn row(episode: &Episode) -> String {
    let first = episode.hits.first().map_or("-", |hit| hit.id.as_str());
    let degraded = if episode.degraded.is_empty() { "" } else { "\tdegraded" };
    format!(
        "{}\t{} ms\t{} -> {}\t{first}{degraded}",
        episode.id,
        episode.timings.total_us / 1000,
        one_line(&episode.conversation.query),
        one_line(&episode.rewrite.text),
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(40).collect()
}
