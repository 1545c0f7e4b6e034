//! `recast datasets import`: rewrites out of the workbook of a batch run.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::{Context, bail};
use recast_episodes::datasets::workbook::{Fault, import};
use recast_episodes::datasets::{BuildRequest, Kind};

use crate::args::ImportArgs;
use crate::{config, datasets, out};

/// Faults that are printed; the rest is counted.
const SHOWN: u64 = 20;

/// `recast datasets import`
pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let tenant = datasets::tenant(&settings, &args.tenant)?;
    let kind = datasets::kind(args.kind);
    if !matches!(kind, Kind::Sft | Kind::Messages) {
        bail!("--kind {}: a workbook holds rewrites: give sft or messages", kind.name());
    }
    let request = BuildRequest {
        tenant: &tenant,
        kind,
        out: &args.out,
        settings: &settings.datasets,
        seed: args.seed,
        now_ms: datasets::now_ms()?,
    };
    let mut log = match &args.faults {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("--faults {}", path.display()))?;
            Some(BufWriter::new(file))
        }
        None => None,
    };
    let (mut said, mut unwritten) = (0, None);
    let imported = import(&args.file, &request, |fault: &Fault| {
        said += 1;
        if said <= SHOWN {
            out::error(&fault.to_string());
        }
        if let Some(log) = &mut log {
            let line = serde_json::to_string(fault).map_err(std::io::Error::other);
            if let Err(error) = line.and_then(|line| writeln!(log, "{line}")) {
                unwritten.get_or_insert(error);
            }
        }
    });
    if said > SHOWN {
        let hint = if log.is_some() { "" } else { ": --faults FILE has them all" };
        out::error(&format!("and {} more faults{hint}", said - SHOWN));
    }
    if let Some(log) = &mut log {
        log.flush().context("--faults")?;
    }
    let imported = imported?;
    if let Some(error) = unwritten {
        return Err(error).context("--faults: not every fault could be written");
    }
    if imported.faults > 0 {
        out::error(&format!(
            "{} faults in {} rows; the other rows are imported",
            imported.faults, imported.faulty_rows
        ));
    }
    datasets::say(&imported.manifest, args.json)
}
