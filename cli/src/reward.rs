//! `recast reward`: how a stored reward came about, and what it would be under other weights.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use recast_config::Settings;
use recast_domain::{EpisodeId, TenantId};
use recast_episodes::{EpisodeReader, EpisodeStore, Place, RewardRecord, ScanRange, Side};
use recast_gateway::{SideFacts, StoredReward, rescore};
use recast_judge::{InvalidRewrite, Judged, Reward, RewardWeights, explain};
use serde_json::{Value, json};

use crate::args::{RescoreArgs, RewardArgs, RewardCommand};
use crate::{config, out};

/// Rewards that are stored at once.
const BATCH: usize = 512;

/// `recast reward explain|rescore`
pub fn run(args: &RewardArgs) -> anyhow::Result<()> {
    match &args.command {
        RewardCommand::Explain { episode, tenant, weights, settings } => {
            let settings = config::effective(settings)?.settings;
            let weights = read_weights(&settings, weights.weights.as_deref())?;
            let reader = EpisodeReader::open(Place::of(&settings)?)?;
            let (tenant, id) = (tenant.parse()?, episode.parse().context("the episode's id is no UUID")?);
            out::line(&shown(&reader, &tenant, id, &weights)?);
            Ok(())
        }
        RewardCommand::Rescore(args) => again(args),
    }
}

/// The weights of the settings, with the keys of a file laid over them.
fn read_weights(settings: &Settings, file: Option<&Path>) -> anyhow::Result<RewardWeights> {
    let shipped = RewardWeights::from(&settings.reward);
    let Some(file) = file else { return Ok(shipped) };
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("--weights {name}"))?;
    let mut given: toml::Table = toml::from_str(&text).with_context(|| format!("--weights {name}"))?;
    if let Some(toml::Value::Table(section)) = given.remove("reward") {
        given.extend(section);
    }
    let mut all = serde_json::to_value(&shipped)?;
    for (key, value) in given {
        // the section of the settings calls it so
        let key = if key == "kind" { "signal".to_owned() } else { key };
        all[key] = serde_json::to_value(value)?;
    }
    serde_json::from_value(all).with_context(|| format!("--weights {name}: the keys are those of the section [reward]"))
}

fn shown(reader: &EpisodeReader, tenant: &TenantId, id: EpisodeId, weights: &RewardWeights) -> anyhow::Result<String> {
    let episode = reader.get(tenant, id)?;
    let rewards = reader.rewards(tenant, id)?;
    if rewards.is_empty() {
        bail!(
            "episode {id} has no reward: it is computed where an answer and its shadow were judged, or where a completion \
             of the episode was scored"
        );
    }
    let mut lines = vec![format!("query\t{}", episode.conversation.query)];
    for row in rewards {
        let stored: StoredReward = serde_json::from_value(row.parts)?;
        let facts = &stored.facts;
        let reward = facts.reward(weights);
        lines.push(format!("\n{}: {}", side_name(&row.side), facts.student.text));
        lines.push(format!("against: {}", facts.baseline.text));
        // An invalid rewrite is neither judged nor searched with.
        if !matches!(reward, Reward::Invalid { .. }) {
            lines.push(format!("judge {}, searched with {}", facts.judge, facts.retriever_snapshot));
            lines.push(format!("this: {}", side_facts(&facts.student)));
            lines.push(format!("that: {}", side_facts(&facts.baseline)));
        }
        lines.push(match &reward {
            Reward::Scored(parts) => explain(parts, weights),
            Reward::Invalid { reason, total } => format!("R = {total}    no rewrite: {}", word(reason)),
            Reward::Missing { what } => format!("no reward: missing {}", json!(what)),
        });
        if row.weights_hash == weights.hash() && !same(&reward, &stored.reward) {
            lines.push(format!("what is stored differs: {}", json!(stored.reward)));
        }
    }
    Ok(lines.join("\n"))
}

/// What the judge said and what was found, in words.
fn side_facts(side: &SideFacts) -> String {
    let judged = match &side.judged {
        Judged::Scored { overall, orders, .. } => format!("judge {overall} from {}", json!(orders)),
        Judged::Invalid { reason } => format!("no rewrite: {}", word(reason)),
        Judged::Missing { fault } => format!("no verdict: {fault}"),
    };
    let found = match &side.retrieved.scores {
        None => "the search failed".to_owned(),
        Some(scores) if scores.is_empty() => "nothing found".to_owned(),
        Some(scores) => {
            let shown: Vec<String> = scores.iter().map(|score| format!("{score:.4}")).collect();
            format!("hits {}", shown.join(" "))
        }
    };
    format!("{judged}; {found}")
}

/// The name of a reason, as JSON has it, without its quotes.
fn word(reason: &InvalidRewrite) -> String {
    json!(reason).as_str().unwrap_or_default().to_owned()
}

/// Whether two rewards are the same but for the last digits, which a number may lose on its way through JSON.
fn same(one: &Reward, other: &Reward) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
    match (one, other) {
        (Reward::Scored(one), Reward::Scored(other)) => {
            let pairs = [
                (one.judge, other.judge),
                (one.retrieval, other.retrieval),
                (one.bonus, other.bonus),
                (one.total, other.total),
            ];
            one.version == other.version && pairs.iter().all(|(a, b)| close(*a, *b))
        }
        (one, other) => one == other,
    }
}

fn side_name(side: &Side) -> String {
    match side {
        Side::Live => "live".to_owned(),
        Side::Shadow => "shadow".to_owned(),
        Side::Control => "control".to_owned(),
        Side::Completion(hash) => format!("completion {hash}"),
    }
}

fn again(args: &RescoreArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let weights = read_weights(&settings, args.weights.weights.as_deref())?;
    let tenant: TenantId = args.tenant.parse()?;
    let range = ScanRange {
        after: args.from.as_deref().map(|from| bound(from, "--from", false)).transpose()?,
        until: args.to.as_deref().map(|to| bound(to, "--to", true)).transpose()?,
    };
    let mut sink: Box<dyn Write> = match &args.out {
        Some(file) => {
            Box::new(BufWriter::new(File::create(file).with_context(|| format!("--out {}", file.display()))?))
        }
        None => Box::new(BufWriter::new(stdout().lock())),
    };
    let store = if args.store { Some(Keeper::open(&settings)?) } else { None };
    let mut kept = Vec::new();
    let start = Instant::now();
    let reader = EpisodeReader::open(Place::of(&settings)?)?;
    let done = rescore(&reader, &tenant, range, &weights, |record, stored| -> anyhow::Result<()> {
        writeln!(sink, "{}", line(&record, stored))?;
        if let Some(store) = &store {
            kept.push(record);
            if kept.len() == BATCH {
                store.keep(std::mem::take(&mut kept))?;
            }
        }
        Ok(())
    })?;
    sink.flush()?;
    if let Some(store) = store {
        store.keep(kept)?;
        store.close();
    }
    let seconds = start.elapsed().as_secs_f64();
    out::error(&format!(
        "{} episodes, {} rewards ({} without a number, {} unreadable) under weights {} in {seconds:.1} s, {:.0} episodes a \
         second",
        done.episodes,
        done.rewards,
        done.missing,
        done.unreadable,
        weights.hash(),
        done.episodes as f64 / seconds.max(1e-9),
    ));
    Ok(())
}

/// Nothing of the clock is in a line, so that the same store and weights give the same bytes.
fn line(record: &RewardRecord, stored: &StoredReward) -> Value {
    json!({
        "episode": record.episode,
        "side": side_name(&record.side),
        "judge": stored.facts.judge,
        "reward_version": record.reward_version,
        "weights_hash": record.weights_hash,
        "reward": stored.reward,
    })
}

/// The last id before a time, or the last id at it. Ids begin with their milliseconds.
fn bound(text: &str, name: &str, end: bool) -> anyhow::Result<EpisodeId> {
    if let Ok(id) = text.parse::<EpisodeId>() {
        // a range begins behind its first bound, and this episode belongs to it
        let number = if end { id.0.as_u128() } else { id.0.as_u128().saturating_sub(1) };
        return Ok(EpisodeId(uuid::Uuid::from_u128(number)));
    }
    let millis: u64 = text.parse().with_context(|| format!("{name}: give Unix milliseconds or an episode's id"))?;
    let first = u128::from(millis) << 80;
    let number = if end { first | ((1 << 80) - 1) } else { first.saturating_sub(1) };
    Ok(EpisodeId(uuid::Uuid::from_u128(number)))
}

/// The episode store, opened to write.
struct Keeper {
    runtime: tokio::runtime::Runtime,
    store: EpisodeStore,
}

impl Keeper {
    fn open(settings: &Settings) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let store = EpisodeStore::open(Place::of(settings)?, &settings.episodes)?;
        Ok(Self { runtime, store })
    }

    fn keep(&self, rewards: Vec<RewardRecord>) -> anyhow::Result<()> {
        self.runtime.block_on(self.store.put_rewards(rewards))?;
        Ok(())
    }

    fn close(self) {
        self.runtime.block_on(self.store.close());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_times_or_ids() {
        let id = EpisodeId::now();
        let (from, to) =
            (bound(&id.to_string(), "--from", false).unwrap(), bound(&id.to_string(), "--to", true).unwrap());
        assert!(from < id && to == id);
        let millis = (id.0.as_u128() >> 80).to_string();
        let (from, to) = (bound(&millis, "--from", false).unwrap(), bound(&millis, "--to", true).unwrap());
        assert!(from < id && id < to);
        assert!(bound("yesterday", "--from", false).unwrap_err().to_string().contains("--from"));
    }

    #[test]
    fn a_file_changes_the_weights_that_it_names() {
        let settings = recast_config::load(&recast_config::Source::parse("demo"), Vec::new()).unwrap().settings;
        let file = tempfile::NamedTempFile::new().unwrap();
        let with = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            read_weights(&settings, Some(file.path()))
        };
        let changed = with("[reward]\nkind = \"labels\"\njudge = 0.1\n").unwrap();
        let plan = RewardWeights::default();
        assert_eq!((changed.judge, changed.retrieval, changed.signal != plan.signal), (0.1, plan.retrieval, true));
        assert!(with("judges = 1.0").unwrap_err().to_string().contains("[reward]"));
        assert_eq!(with("").unwrap().hash(), plan.hash());
    }
}
