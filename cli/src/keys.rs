use std::time::Duration;

use anyhow::Context;
use recast_config::{Effective, TenantProfile};
use recast_domain::TenantId;
use recast_gateway::{KeyFile, KeyRecord, Scope};
use secrecy::ExposeSecret;

use crate::args::{self, KeysArgs, KeysCommand};
use crate::{config, out};

const DAY: Duration = Duration::from_secs(86_400);

/// `recast keys create|rotate|revoke|list`
pub fn run(args: &KeysArgs) -> anyhow::Result<()> {
    match &args.command {
        KeysCommand::Create { tenant, scope, days, settings } => {
            let effective = config::effective(settings)?;
            let tenant = known_tenant(&effective, tenant)?;
            let key = file(&effective).create(&tenant, (*scope).into(), days.map(|days| DAY * days))?;
            out::line(key.text.expose_secret());
            out::error("shown once: only a hash of it is kept");
        }
        KeysCommand::Rotate { id, grace_hours, settings } => {
            let grace = Duration::from_secs(3600) * *grace_hours;
            let key = file(&config::effective(settings)?).rotate(id, grace)?;
            out::line(key.text.expose_secret());
            out::error(&format!("shown once; {id} goes on working for {grace_hours} h"));
        }
        KeysCommand::Revoke { id, settings } => {
            file(&config::effective(settings)?).revoke(id)?;
            out::error(&format!("{id} is revoked; a running gateway notices within seconds"));
        }
        KeysCommand::List { settings } => {
            for record in file(&config::effective(settings)?).list()? {
                out::line(&row(&record));
            }
        }
    }
    Ok(())
}

/// The key file of these settings.
pub fn file(effective: &Effective) -> KeyFile {
    KeyFile::new(effective.settings.keys_file())
}

fn known_tenant(effective: &Effective, name: &str) -> anyhow::Result<TenantId> {
    let tenant: TenantId = name.parse()?;
    let dir = effective.settings.tenants.dir.join(tenant.as_str());
    TenantProfile::load(&dir).with_context(|| format!("tenant {tenant} is not in tenants.dir"))?;
    Ok(tenant)
}

fn row(record: &KeyRecord) -> String {
    let scope = record.scope;
    let state = match (record.revoked_ms, record.expires_ms) {
        (Some(at), _) => format!("revoked at {at}"),
        (None, Some(at)) => format!("expires at {at}"),
        (None, None) => "no end".to_owned(),
    };
    format!("{}\t{}\t{scope}\tcreated at {}\t{state}", record.id, record.tenant, record.created_ms)
}

impl From<args::Scope> for Scope {
    fn from(scope: args::Scope) -> Self {
        match scope {
            args::Scope::Serve => Self::Serve,
            args::Scope::Train => Self::Train,
            args::Scope::Admin => Self::Admin,
        }
    }
}
