use std::collections::BTreeMap;

use anyhow::{Context, bail};
use recast_config::RewriterKind;
use recast_domain::PolicyId;
use recast_policies::{BaseModel, DataRange, Draft, PolicyStore, Scope};
use serde::Serialize;

use crate::args::{PolicyArgs, PolicyCommand};
use crate::learn::now_ms;
use crate::{config, out};

/// `recast policy ...`: works on the store beside a running gateway, which sees the pointer move.
pub fn run(args: &PolicyArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    if settings.rewriter.kind != RewriterKind::Local {
        bail!("rewriter.kind is not local: policies are adapters of a local model");
    }
    let base = BaseModel::read(&settings.rewriter.model).context("rewriter.model")?;
    let store = PolicyStore::open(&settings.policies_dir(), base)?;
    let scope = &args.tenant;
    let version = |expected: Option<u64>| -> anyhow::Result<u64> {
        Ok(match expected {
            Some(version) => version,
            None => store.active(scope)?.version,
        })
    };
    match &args.command {
        PolicyCommand::List => list(&store, scope),
        PolicyCommand::Show { policy } => json(&store.load(scope, policy)?.manifest),
        PolicyCommand::Diff { left, right } => json(&store.diff(scope, left, right)?),
        PolicyCommand::Publish { dir, name } => {
            let draft = Draft {
                scope: scope.clone(),
                policy: name.clone(),
                parent: store.active(scope)?.current.map(|current| current.policy),
                adapter: dir,
                data: DataRange::default(),
                config: serde_json::json!({"published": "on the command line"}),
                metrics: BTreeMap::new(),
                created_ms: now_ms(),
            };
            let published = store.publish(&draft)?;
            out::line(&format!("{name} of {scope}: {}", published.identity));
            Ok(())
        }
        PolicyCommand::Promote { policy, expected_version, reason } => {
            let active = store.promote(scope, policy, version(*expected_version)?, reason, now_ms())?;
            told(scope, active.version, active.current.map(|current| current.policy));
            Ok(())
        }
        PolicyCommand::Rollback { expected_version, reason } => {
            let active = store.roll_back(scope, version(*expected_version)?, reason, now_ms())?;
            told(scope, active.version, active.current.map(|current| current.policy));
            Ok(())
        }
        PolicyCommand::Journal => {
            for record in store.journal(scope)? {
                out::line(&serde_json::to_string(&record)?);
            }
            Ok(())
        }
        PolicyCommand::Gate => match store.gate(scope)? {
            Some(gate) => json(&gate),
            None => bail!("no candidate of {scope} is at the gate"),
        },
        PolicyCommand::Prune { keep } => {
            let gone = store.retain(scope, *keep, now_ms())?;
            let names: Vec<&str> = gone.iter().map(PolicyId::as_str).collect();
            out::line(&format!("{} deleted: {}", gone.len(), names.join(", ")));
            Ok(())
        }
    }
}

fn list(store: &PolicyStore, scope: &Scope) -> anyhow::Result<()> {
    let active = store.active(scope)?;
    out::line(&format!("{scope}, version {} of the pointer", active.version));
    for manifest in store.list(scope)? {
        let serves = active.current.as_ref().is_some_and(|current| current.policy == manifest.policy);
        let figures = manifest.metrics.iter().map(|(name, value)| format!("{name} {value:.3}"));
        let figures: Vec<String> = figures.collect();
        let parent = manifest.parent.as_ref().map_or("the base", PolicyId::as_str);
        let mark = if serves { "*" } else { " " };
        out::line(&format!("{mark} {}\tfrom {parent}\t{}", manifest.policy, figures.join(", ")));
    }
    if active.current.is_none() {
        out::line("* the model of the settings, without an adapter");
    }
    Ok(())
}

fn told(scope: &Scope, version: u64, policy: Option<PolicyId>) {
    let policy = policy.map_or_else(|| "the model of the settings".to_owned(), |policy| policy.to_string());
    out::line(&format!(
        "{scope}: the pointer is at {policy}, version {version}; a running gateway follows once it is loaded"
    ));
}

fn json(value: &impl Serialize) -> anyhow::Result<()> {
    out::line(&serde_json::to_string_pretty(value)?);
    Ok(())
}
