//! `recast demo`: the shipped rewriter answers, a teacher answers the same questions in its shadow, and a report says
//! which is better.

mod drain;
mod questions;
mod replay;
mod service;
mod three_way;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use recast_config::Settings;
use recast_domain::{ShadowKind, ShadowOutcome, Split, TenantId};
use recast_episodes::{EpisodeReader, Place, RunCursor};
use recast_experiments::report::compute;
use recast_gateway::{Gateway, RunningGateway, Scope, init_telemetry, report_input};
use secrecy::ExposeSecret;
use serde_json::json;

use self::drain::{Pace, drained};
use self::questions::Questions;
use self::service::Service;
use self::three_way::LivePair;
use crate::args::DemoArgs;
use crate::labelled::{self, LabelledTenant};
use crate::stop::Stop;
use crate::{config, out, serve};

/// The experiment's id.
const EXPERIMENT: &str = "demo";

/// Hits a question asks for: label metrics look at the first ten.
const TOP_K: usize = 10;

/// How long the demo's keys work.
const KEY_LIFE: Duration = Duration::from_secs(86_400);

/// How long the shadow may stand still before the demo reports without the rest.
const PACE: Pace = Pace { every: Duration::from_millis(250), patience: Duration::from_secs(60) };

/// `recast demo`
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    if !(args.rate.is_finite() && args.rate > 0.0) {
        bail!("--rate {}: must be above 0 (requests a second)", args.rate);
    }
    let mut settings = config::effective(&args.settings)?.settings;
    let tenants = labelled::load(&settings.tenants.dir, args.tenant.as_deref())?;
    let state = tempfile::tempdir().context("a temporary folder for the demo's state")?;
    settings.state.dir = state.path().to_owned();
    settings.episodes.url = String::new().into();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let telemetry = {
        let _inside = runtime.enter();
        init_telemetry(&settings.telemetry)?
    };
    let outcome = runtime.block_on(async {
        let mut stop = Stop::listen(false)?;
        // Whatever ends the demo drops the teacher with it, and dropping kills.
        tokio::select! {
            outcome = demo(args, settings, &tenants) => outcome,
            asked = stop.asked() => asked.and_then(|()| bail!("interrupted")),
        }
    });
    telemetry.shutdown();
    outcome
}

async fn demo(args: &DemoArgs, settings: Settings, tenants: &[LabelledTenant]) -> anyhow::Result<()> {
    out::error(&format!("starting the teacher: {}", args.teacher.display()));
    let teacher = Service::start(&args.teacher, &settings.tenants.dir, &args.settings.config).await?;
    let settings = with_experiment(settings, &teacher.url, args, tenants);
    let gateway = Gateway::open(settings.clone()).await?;
    serve::seed(&gateway, &settings.tenants.dir).await?;
    gateway.retriever().warm_up().await?;
    let keys = keys(&gateway, tenants)?;
    let running = gateway.serve();

    let questions = Questions::of(tenants, Split::Test, &keys);
    let replayed = ask(args, &running, &questions).await?;
    for (id, reason) in replayed.refused.iter().take(5) {
        out::error(&format!("{id} was not answered: {reason}"));
    }
    if replayed.answered == 0 {
        bail!("no question was answered");
    }
    let reader = EpisodeReader::open(Place::of(&settings)?)?;
    let ids: Vec<TenantId> = tenants.iter().map(|tenant| tenant.profile.id.clone()).collect();
    let left = drained(&reader, &ids, EXPERIMENT, PACE).await?;
    if left > 0 {
        out::error(&format!("{left} shadow runs have not ended and are reported as pending"));
    }
    accounts(&reader, &ids)?;
    let pairs = pairs(&reader, &ids)?;
    let raw = args.three_way.then(|| running.pipeline().with_deadlines(labelled::patient()));
    let table = three_way::table(raw.as_ref(), &questions, &pairs).await?;
    out::line(&format!("{} questions answered, {} pairs\n\n{table}", replayed.answered, pairs.len()));
    if let Some(input) = report_input(&reader, EXPERIMENT, None, &settings.tenants.dir)? {
        crate::experiment::show(&compute(&input), false, Some(&args.html))?;
    }
    running.shutdown().await?;
    if let Some(complaint) = teacher.stop().await {
        out::error(&format!("the teacher did not end well: {}", complaint.trim()));
    }
    Ok(())
}

/// The same settings with one experiment: every live answer of these tenants has the teacher in its shadow.
fn with_experiment(mut settings: Settings, teacher: &str, args: &DemoArgs, tenants: &[LabelledTenant]) -> Settings {
    let names: Vec<&str> = tenants.iter().map(|tenant| tenant.profile.id.as_str()).collect();
    settings.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    settings.server.mint_keys = false;
    settings.shadow.remote.url = teacher.to_owned();
    settings.shadow.remote.api_key = Default::default();
    // Nothing is to be dropped in a demonstration: every question has a place.
    settings.shadow.queue = settings.shadow.queue.max(10_000);
    settings.experiments.define = vec![json!({
        "id": EXPERIMENT,
        "kind": "shadow",
        "tenants": names,
        "arms": [
            {"name": "local", "weight": 1.0, "rewriter": "configured"},
            {"name": "teacher", "weight": 1.0, "rewriter": "remote"},
        ],
        "control": "local",
        "sample_rate": 1.0,
        "control_rate": args.control_rate.0,
    })];
    settings
}

/// Says what became of the sampled requests.
///
/// # Errors
/// When nothing was sampled, or the store cannot be read.
fn accounts(reader: &EpisodeReader, tenants: &[TenantId]) -> anyhow::Result<()> {
    let mut sampled = 0;
    for tenant in tenants {
        for account in reader.shadow_accounting(tenant, Some(EXPERIMENT))? {
            sampled += account.sampled;
            let (failed, dropped) = (account.failed.values().sum::<u64>(), account.dropped.values().sum::<u64>());
            out::line(&format!(
                "{tenant}, {} ({:?}): {} sampled = {} completed + {failed} failed + {} timed out + {dropped} dropped + {} pending",
                account.arm, account.kind, account.sampled, account.completed, account.timed_out, account.pending
            ));
        }
    }
    if sampled == 0 {
        bail!("no request was sampled: the gateway ran no shadow of experiment {EXPERIMENT}; its log says why");
    }
    Ok(())
}

/// Asks the questions, at random moments of the given rate.
async fn ask(args: &DemoArgs, running: &RunningGateway, questions: &Questions<'_>) -> anyhow::Result<replay::Replayed> {
    let count = args.count.unwrap_or(questions.questions.len());
    if count == 0 || questions.questions.is_empty() {
        bail!("there is nothing to ask: raise --count, or choose a tenant with dialogues in its test split");
    }
    let mut random = replay::generator(args.seed);
    let chosen = replay::order(&questions.questions, count, &mut random);
    let departures = replay::departures(count, args.rate, &mut random);
    Ok(replay::replay(&format!("http://{}", running.address()), chosen, &departures, TOP_K).await)
}

/// A key for each tenant that is asked.
fn keys(gateway: &Gateway, tenants: &[LabelledTenant]) -> anyhow::Result<HashMap<TenantId, String>> {
    let mut keys = HashMap::new();
    for tenant in tenants {
        let key = gateway.keys().create(&tenant.profile.id, Scope::Serve, Some(KEY_LIFE))?;
        keys.insert(tenant.profile.id.clone(), key.text.expose_secret().to_owned());
    }
    Ok(keys)
}

/// Every pair that the shadow completed, control runs aside.
fn pairs(reader: &EpisodeReader, tenants: &[TenantId]) -> anyhow::Result<Vec<LivePair>> {
    let mut pairs = Vec::new();
    for tenant in tenants {
        let mut after: Option<RunCursor> = None;
        loop {
            let page = reader.pairs(tenant, EXPERIMENT, None, after.as_ref(), 200)?;
            let Some((_, last)) = page.last() else { break };
            after = Some(RunCursor::from(last));
            pairs.extend(page.into_iter().filter_map(|(episode, run)| match (run.kind, run.outcome) {
                (ShadowKind::Treatment, Some(ShadowOutcome::Completed { answer })) => {
                    Some(LivePair { episode, shadow: *answer })
                }
                _ => None,
            }));
        }
    }
    Ok(pairs)
}
