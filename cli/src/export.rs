//! `recast episodes export` and `recast episodes stats`.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use recast_domain::TenantId;
use recast_episodes::export::{
    ExportFilter, ExportRequest, FeedbackWanted, Format, Progress, Source, export, parse_time,
};
use recast_episodes::{EpisodeReader, Place, stats::gather};

use crate::args::{ExportArgs, FeedbackArg, FilterArgs, FormatArg, StatsArgs};
use crate::{config, out};

/// Shown rates and bars are renewed this often.
const BAR_HZ: u8 = 5;

/// `recast episodes export`
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let reader = EpisodeReader::open(Place::of(&config::effective(&args.settings)?.settings)?)?;
    let request = ExportRequest {
        tenants: tenants(&reader, &args.filter)?,
        filter: filter(&args.filter)?,
        format: match args.format {
            FormatArg::Parquet => Format::Parquet,
            FormatArg::Jsonl => Format::Jsonl,
            FormatArg::Csv => Format::Csv,
            FormatArg::Xlsx => Format::Xlsx,
        },
        rows_per_file: args.rows_per_file,
        folder: args.out.clone(),
        resume: args.resume,
    };
    let start = Instant::now();
    let mut bar = Bar::new();
    let made = export(&reader, &request, |progress| bar.show(progress));
    bar.end();
    let manifest = made?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    out::line(&format!(
        "{} rows in {} files, {:.1} MB, in {seconds:.1} s: {}",
        manifest.rows,
        manifest.files.len(),
        bytes as f64 / 1e6,
        args.out.join("manifest.json").display()
    ));
    if manifest.cut_cells > 0 {
        out::error(&format!(
            "{} cells held more than the 32767 characters of a workbook's cell and were cut: the other formats hold them \
             whole",
            manifest.cut_cells
        ));
    }
    if manifest.drift != Default::default() {
        out::error(&format!(
            "between the parts of this export {} verdicts and rewards were replaced and {} shadow runs ended: start anew \
             for one consistent moment",
            manifest.drift.replaced, manifest.drift.ended_runs
        ));
    }
    if manifest.unreadable.count > 0 {
        bail!(
            "{} episodes could not be read and are in no file; the first: {}",
            manifest.unreadable.count,
            manifest.unreadable.first.join("; ")
        );
    }
    Ok(())
}

/// `recast episodes stats`
pub fn stats(args: &StatsArgs) -> anyhow::Result<()> {
    let reader = EpisodeReader::open(Place::of(&config::effective(&args.settings)?.settings)?)?;
    let stats = gather(&reader, &tenants(&reader, &args.filter)?, &filter(&args.filter)?)?;
    if let Some(file) = &args.html {
        std::fs::write(file, stats.html()).with_context(|| format!("--html {}", file.display()))?;
    }
    out::line(&if args.json { serde_json::to_string_pretty(&stats)? } else { stats.text() });
    Ok(())
}

/// The tenant that was asked for, or all that have episodes: the person at the store's machine may read all of it.
fn tenants(reader: &EpisodeReader, args: &FilterArgs) -> anyhow::Result<Vec<TenantId>> {
    match &args.tenant {
        Some(tenant) => Ok(vec![tenant.parse::<TenantId>()?]),
        None => Ok(Source::open(reader)?.0.tenants()?),
    }
}

fn filter(args: &FilterArgs) -> anyhow::Result<ExportFilter> {
    Ok(ExportFilter {
        from_ms: args.from.as_deref().map(|text| parse_time(text, "--from")).transpose()?,
        to_ms: args.to.as_deref().map(|text| parse_time(text, "--to")).transpose()?,
        experiment: args.experiment.clone(),
        arm: args.arm.clone(),
        policy: args.policy.as_deref().map(str::parse).transpose()?,
        degraded: args.degraded,
        feedback: args.feedback.map(|wanted| match wanted {
            FeedbackArg::Any => FeedbackWanted::Any,
            FeedbackArg::None => FeedbackWanted::None,
            FeedbackArg::Up => FeedbackWanted::Up,
            FeedbackArg::Down => FeedbackWanted::Down,
        }),
        tag: args.tag.clone(),
    })
}

/// How far the export is, on a terminal; nothing where standard error goes elsewhere.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new() -> Self {
        Self(None)
    }

    fn show(&mut self, progress: Progress) -> ControlFlow<()> {
        let bar = self.0.get_or_insert_with(|| {
            let target = indicatif::ProgressDrawTarget::stderr_with_hz(BAR_HZ);
            let bar = ProgressBar::with_draw_target(Some(progress.of), target);
            if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} episodes, {per_sec}, {eta} left") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        bar.set_position(progress.rows);
        ControlFlow::Continue(())
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
