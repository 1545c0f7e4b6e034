use anyhow::bail;
use recast_episodes::Place;

use crate::args::{BackupArgs, DoctorArgs, RestoreArgs};
use crate::{config, out};

const DUMP: &str = "with PostgreSQL use pg_dump --format=custom";
const RESTORE: &str = "with PostgreSQL stop the gateways and use pg_restore";

/// `recast backup`
pub fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let report = recast_episodes::backup(Place::of(&settings)?.file("recast backup", DUMP)?, &args.file)?;
    out::error(&format!(
        "{} episodes, {} bytes, verified. Knowledge bases are rebuilt from their documents by `recast ingest`; keys.json is \
         copied like any file.",
        report.episodes, report.bytes
    ));
    Ok(())
}

/// `recast restore`
pub fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let report =
        recast_episodes::restore(&args.file, Place::of(&settings)?.file("recast restore", RESTORE)?, args.force)?;
    out::error(&format!("{} episodes, {} bytes are back", report.episodes, report.bytes));
    Ok(())
}

/// `recast doctor`
pub fn doctor(args: &DoctorArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let report = recast_episodes::doctor(Place::of(&settings)?, &settings.episodes);
    out::line(&format!("store\t{}", report.place));
    out::line(&format!("schema\t{}", report.schema_version.map_or("-".to_owned(), |version| version.to_string())));
    out::line(&format!("episodes\t{}", report.episodes));
    out::line(&format!("bytes\t{} (and {} in the write-ahead log)", report.bytes, report.wal_bytes));
    out::line(&format!("free disk\t{}", report.free_bytes.map_or("-".to_owned(), |bytes| bytes.to_string())));
    out::line(&format!("a gateway writes to it\t{}", if report.writer_running { "yes" } else { "no" }));
    for finding in &report.findings {
        out::line(&format!("problem\t{}\n  fix\t{}", finding.problem, finding.fix));
    }
    if report.findings.is_empty() {
        out::line("no problems");
        Ok(())
    } else {
        bail!("{} problem(s) found", report.findings.len())
    }
}
