//! `recast eval`: retrieval quality of raw queries, rewrites and gold rewrites through the one pipeline.

mod collection;
mod measure;
mod report;

use std::path::Path;

use recast_domain::Split;
use tokio::runtime::Runtime;

use crate::args::{EvalArgs, SplitArg};
use crate::{config, labelled, out};

/// `recast eval`
pub fn run(args: &EvalArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let data = args.data.clone().unwrap_or_else(|| settings.tenants.dir.clone());
    let runtime = Runtime::new()?;
    let report = if is_collection(&data) {
        runtime.block_on(collection::measure(&settings, &data, args.split))?
    } else {
        let tenants = labelled::load(&data, args.tenant.as_deref())?;
        runtime.block_on(async {
            let (_parts, pipeline) = labelled::open(&settings, &tenants).await?;
            measure::measure(&pipeline, &tenants, args.split.into(), args.limit).await
        })?
    };
    out::line(&report::text(&report));
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

fn is_collection(path: &Path) -> bool {
    ["corpus.jsonl", "corpus.tsv", "docs.tsv"].iter().any(|name| path.join(name).is_file())
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Val => Self::Val,
            SplitArg::Test => Self::Test,
        }
    }
}
