//! Who rewrites for an arm: behind a live answer with stand-ins, in the shadow without.

use std::sync::Arc;
use std::time::Duration;

use crate::policies::Policies;
use recast_config::{RewriterKind, Settings};
use recast_domain::TenantId;
use recast_experiments::{Arm, Definition, Kind};
use recast_rewriter::{Ladder, PassThrough, RemoteRewriter, RewriteCache, RewriteError, Rewriter};

/// Which rewriter a definition names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArmRewriter {
    /// What serves when there is no experiment.
    Configured,
    /// The 32B service.
    Remote,
    /// Nobody: the user's own query.
    PassThrough,
}

impl ArmRewriter {
    /// Reads the name in a definition; `None` for one that is not known.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "configured" => Some(Self::Configured),
            "remote" => Some(Self::Remote),
            "pass_through" => Some(Self::PassThrough),
            _ => None,
        }
    }
}

/// The rewriters of all arms. Shadows have clients of their own, with breakers of their own: a service that fails in the
/// shadow is not left alone by live requests, and the other way round.
pub struct Arms {
    policies: Arc<Policies>,
    kind: RewriterKind,
    live_remote: Option<Arc<Ladder>>,
    live_pass_through: Arc<Ladder>,
    shadow_configured: Option<Arc<dyn Rewriter>>,
    shadow_remote: Option<Arc<dyn Rewriter>>,
}

impl Arms {
    /// The rewriters that the settings allow, beside the ladder that serves.
    ///
    /// # Errors
    /// When a service's address is not usable.
    pub fn open(settings: &Settings, policies: Arc<Policies>) -> Result<Self, RewriteError> {
        let live = &settings.rewriter.remote;
        let shadow = if settings.shadow.remote.url.is_empty() { live } else { &settings.shadow.remote };
        let client = |remote: &recast_config::RemoteRewriterSettings| {
            if remote.url.is_empty() {
                return Ok(None);
            }
            Ok::<_, RewriteError>(Some(Arc::new(RemoteRewriter::new(remote)?) as Arc<dyn Rewriter>))
        };
        // Nothing is kept: only local rewrites are, and these ladders have no local rung.
        let ladder = |remote| Arc::new(Ladder::new(None, remote, RewriteCache::new(0, Duration::ZERO), 1));
        let kind = settings.rewriter.kind;
        Ok(Self {
            policies,
            kind,
            live_remote: client(live)?.map(|remote| ladder(Some(remote))),
            live_pass_through: ladder(None),
            shadow_configured: if kind == RewriterKind::Remote { client(live)? } else { None },
            shadow_remote: client(shadow)?,
        })
    }

    /// Who answers a live request for this arm, with what stands in when it fails; `None` for what is configured, which
    /// is the policy that serves the asker.
    #[must_use]
    pub fn live(&self, rewriter: ArmRewriter) -> Option<Arc<Ladder>> {
        match rewriter {
            ArmRewriter::Configured => None,
            ArmRewriter::Remote => self.live_remote.clone(),
            ArmRewriter::PassThrough => Some(Arc::clone(&self.live_pass_through)),
        }
    }

    /// Who rewrites for this arm in the shadow of a tenant's answer, alone; `None` where it is not there now.
    #[must_use]
    pub fn shadow(&self, rewriter: ArmRewriter, tenant: &TenantId) -> Option<Arc<dyn Rewriter>> {
        match rewriter {
            ArmRewriter::PassThrough => Some(Arc::new(PassThrough)),
            ArmRewriter::Remote => self.shadow_remote.clone(),
            // Asked for anew each time: the model may have been replaced.
            ArmRewriter::Configured => self.policies.incumbent(tenant).local().or_else(|| match self.kind {
                RewriterKind::Local => None,
                RewriterKind::Remote => self.shadow_configured.clone(),
                RewriterKind::PassThrough => Some(Arc::new(PassThrough)),
            }),
        }
    }

    /// What is wrong with a rewriter that a definition names, for an arm that answers live or one that does not.
    #[must_use]
    pub fn problem(&self, name: &str, live: bool) -> Option<String> {
        match ArmRewriter::parse(name) {
            None if name.starts_with("policy:") => {
                Some("policies cannot be arms yet: use configured, remote or pass_through".to_owned())
            }
            None => Some(format!("{name:?} is not known: use configured, remote or pass_through")),
            Some(ArmRewriter::Remote) => missing_remote(live, self.live_remote.is_some(), self.shadow_remote.is_some()),
            Some(_) => None,
        }
    }
}

/// What is wrong with an arm that is the 32B service, where the settings have an address for live answers, or for the
/// shadow.
fn missing_remote(live: bool, has_live: bool, has_shadow: bool) -> Option<String> {
    match (live, has_live, has_shadow) {
        (true, false, _) => Some("remote answers live, and rewriter.remote.url is empty: set it".to_owned()),
        (false, _, false) => Some("remote is not configured: set shadow.remote.url or rewriter.remote.url".to_owned()),
        _ => None,
    }
}

/// What these settings lack to run each arm of a definition that is checked by itself: the place of the arm, and what to
/// do about it.
#[must_use]
pub fn missing_services(definition: &Definition, settings: &Settings) -> Vec<(usize, String)> {
    let has_live = !settings.rewriter.remote.url.is_empty();
    let has_shadow = has_live || !settings.shadow.remote.url.is_empty();
    let missing = |(place, arm): (usize, &Arm)| {
        let live = definition.kind != Kind::Shadow || arm.name == definition.control;
        let remote = ArmRewriter::parse(&arm.rewriter) == Some(ArmRewriter::Remote);
        let message = if remote { missing_remote(live, has_live, has_shadow) } else { None };
        message.map(|message| (place, message))
    };
    definition.arms.iter().enumerate().filter_map(missing).collect()
}
