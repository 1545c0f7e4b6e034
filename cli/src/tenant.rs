use std::path::Path;

use anyhow::{Context, bail};
use recast_config::TenantProfile;
use recast_domain::KbName;
use recast_retrieval::Retriever;

use crate::args::{TenantArgs, TenantCommand};
use crate::{config, ingest, out};

const FILES: [&str; 3] = ["tenant.toml", "passages.jsonl", "dialogues.jsonl"];

/// `recast tenant add`
pub fn run(args: &TenantArgs) -> anyhow::Result<()> {
    let TenantCommand::Add { dir, settings } = &args.command;
    let effective = config::effective(settings)?;
    let profile = check(dir)?;
    let target = effective.settings.tenants.dir.join(profile.id.as_str());
    if target.exists() && target.canonicalize()? != dir.canonicalize()? {
        bail!("{} exists already: remove it first, or edit it in place", target.display());
    }
    if !target.exists() {
        std::fs::create_dir_all(&target)?;
        for name in FILES.iter().filter(|name| dir.join(name).is_file()) {
            std::fs::copy(dir.join(name), target.join(name)).with_context(|| format!("copying {name}"))?;
        }
    }
    out::error(&format!("{} is in {}; a running gateway picks it up within seconds", profile.id, target.display()));

    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match Retriever::open(&effective.settings).await {
            Ok(retriever) => {
                let passages = target.join("passages.jsonl");
                ingest::into_store(&retriever, &profile.id, &KbName::default(), &[passages]).await
            }
            Err(error) => bail!(
                "its passages are not ingested yet ({error}); while a gateway runs, send them with \
                 `recast ingest {} --tenant {} --url ... --key ...`",
                target.join("passages.jsonl").display(),
                profile.id
            ),
        }
    })
}

/// Everything wrong with a folder at once; dialogues are optional.
fn check(dir: &Path) -> anyhow::Result<TenantProfile> {
    if dir.join("dialogues.jsonl").is_file() {
        return Ok(recast_episodes::load_tenant_folder(dir)?.profile);
    }
    let profile = TenantProfile::load(dir)?;
    recast_episodes::load_passages(&dir.join("passages.jsonl"))?;
    Ok(profile)
}
