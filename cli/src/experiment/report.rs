//! `recast experiment report`: what the episode store knows of an experiment.

use std::path::Path;

use anyhow::{Context, bail};
use recast_episodes::{EpisodeReader, Place};
use recast_experiments::report::{Report, compute, html, text};
use recast_gateway::report_input;

use crate::args::ReportArgs;
use crate::{config, out};

/// `recast experiment report`
pub fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let reader = EpisodeReader::open(Place::of(&settings)?)?;
    let Some(input) = report_input(&reader, &args.id, args.version, &settings.tenants.dir)? else {
        let known: Vec<String> = reader.experiments()?.into_iter().map(|one| one.id).collect();
        let version = args.version.map_or_else(String::new, |version| format!(" version {version} of"));
        bail!("there is no{version} experiment {:?}; the store knows: {}", args.id, known.join(", "));
    };
    show(&compute(&input), args.json, args.html.as_deref())
}

/// Prints a report, and writes its page.
///
/// # Errors
/// When the page cannot be written.
pub fn show(report: &Report, json: bool, page: Option<&Path>) -> anyhow::Result<()> {
    if let Some(path) = page {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).with_context(|| format!("--html {}", dir.display()))?;
        }
        std::fs::write(path, html(report)).with_context(|| format!("--html {}", path.display()))?;
        out::error(&format!("page written to {}", path.display()));
    }
    out::line(&if json { serde_json::to_string_pretty(report)? } else { text(report) });
    Ok(())
}
