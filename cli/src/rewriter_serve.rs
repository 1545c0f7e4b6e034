//! `recast rewriter serve`: a model folder behind the contract of the 32B rewrite service.

use recast_config::RewriterKind;
use recast_gateway::{RewriteService, init_telemetry};
use tokio::runtime::Runtime;

use crate::args::{RewriterArgs, RewriterCommand};
use crate::stop::Stop;
use crate::{config, out};

/// `recast rewriter serve`
pub fn run(args: &RewriterArgs) -> anyhow::Result<()> {
    let RewriterCommand::Serve(args) = &args.command;
    let mut settings = config::effective(&args.settings)?.settings;
    settings.rewriter.kind = RewriterKind::Local;
    settings.rewriter.model = args.model.clone();
    settings.rewriter.adapter = Default::default();
    // A service that passed questions on to another one would hide that its own model fails.
    settings.rewriter.remote.url.clear();
    settings.server.listen = args.listen;
    if let Some(tenants) = &args.tenants {
        settings.tenants.dir = tenants.clone();
    }
    let api_key = args.api_key_env.as_deref().map(config::secret).transpose()?;
    let runtime = Runtime::new()?;
    let telemetry = {
        let _inside = runtime.enter();
        init_telemetry(&settings.telemetry)?
    };
    let outcome = runtime.block_on(async {
        let mut stop = Stop::listen(args.stop_with_stdin)?;
        let service = RewriteService::start(&settings, api_key).await?;
        out::line(&format!("listening on http://{}", service.address()));
        stop.asked().await?;
        if !service.shutdown().await {
            out::error("some questions were broken off: server.drain_seconds was over");
        }
        anyhow::Ok(())
    });
    telemetry.shutdown();
    outcome
}
