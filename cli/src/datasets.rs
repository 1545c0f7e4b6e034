//! `recast datasets`: datasets that train.

use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use recast_config::{Settings, TenantProfile};
use recast_domain::TenantId;
use recast_episodes::datasets::{BuildRequest, DatasetManifest, Forgotten, Kind, build, forget};
use recast_episodes::{EpisodeReader, Place};

use crate::args::{BuildArgs, DatasetKind, DatasetsArgs, DatasetsCommand};
use crate::{config, out};

/// `recast datasets build|import|forget`
pub fn run(args: &DatasetsArgs) -> anyhow::Result<()> {
    match &args.command {
        DatasetsCommand::Build(args) => of_episodes(args),
        DatasetsCommand::Import(args) => crate::workbook::run(args),
        DatasetsCommand::Forget { out, tenant, settings } => {
            let reader = EpisodeReader::open(Place::of(&config::effective(settings)?.settings)?)?;
            let done = forget(&reader, &tenant.parse()?, out)?;
            done.changed.iter().for_each(|path| out::line(&path.display().to_string()));
            let Forgotten { rows, files, tombstones, .. } = done;
            out::line(&format!("{rows} rows taken out of {files} files, for {tombstones} erased episodes"));
            Ok(())
        }
    }
}

fn of_episodes(args: &BuildArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let tenant = tenant(&settings, &args.tenant)?;
    let reader = EpisodeReader::open(Place::of(&settings)?)?;
    let request = BuildRequest {
        tenant: &tenant,
        kind: kind(args.kind),
        out: &args.out,
        settings: &settings.datasets,
        seed: args.seed,
        now_ms: now_ms()?,
    };
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} episodes, {per_sec}") {
        progress.set_style(style);
    }
    let days_back = args.days_back.unwrap_or(settings.datasets.days_back);
    if !(1..=36_500).contains(&days_back) {
        bail!("--days-back {days_back} is not from 1 to 36500");
    }
    let made = build(&reader, &request, days_back, |read| {
        progress.set_position(read);
        ControlFlow::Continue(())
    });
    progress.finish_and_clear();
    say(&made?, args.json)
}

/// The tenant's description: its synonyms and its prompt are part of a dataset.
pub fn tenant(settings: &Settings, id: &str) -> anyhow::Result<TenantProfile> {
    let id: TenantId = id.parse()?;
    let folder = settings.tenants.dir.join(id.as_str());
    TenantProfile::load(&folder).with_context(|| format!("--tenant {id} is not in tenants.dir"))
}

/// The form by its name on the command line.
pub fn kind(kind: DatasetKind) -> Kind {
    match kind {
        DatasetKind::Sft => Kind::Sft,
        DatasetKind::Messages => Kind::Messages,
        DatasetKind::Rl => Kind::Rl,
        DatasetKind::Verl => Kind::Verl,
        DatasetKind::Trl => Kind::Trl,
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> anyhow::Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// Prints what came of a build; fewer samples than are wanted are a warning.
pub fn say(manifest: &DatasetManifest, json: bool) -> anyhow::Result<()> {
    let counts = &manifest.counts;
    if json {
        out::line(&serde_json::to_string_pretty(manifest)?);
    } else {
        out::line(&format!("read\t{}\nkept\t{}", counts.read, counts.kept));
        for (rule, count) in &counts.dropped {
            out::line(&format!("dropped\t{count}\t{}", serde_json::to_value(rule)?.as_str().unwrap_or_default()));
        }
        out::line(&format!("augmented\t{}", manifest.augmented));
        for file in &manifest.files {
            out::line(&format!("{}\t{}\t{}", file.split, file.rows, file.path));
        }
    }
    if counts.kept < manifest.wanted {
        out::error(&format!("warning: {} samples, {} are wanted (datasets.wanted)", counts.kept, manifest.wanted));
    }
    Ok(())
}
