//! One policy version as an engine that was tried before it serves.

use std::sync::Arc;
use std::time::Duration;

use recast_config::{RewriterSettings, TenantProfile};
use recast_domain::{Conversation, PolicyId, Role, TenantId, Turn};
use recast_policies::VerifiedPolicy;
use recast_rewriter::{Ladder, LocalRewriter, PARITY_NATS, RewriteRequest, Rewriter};
use tokio::time::Instant;

/// How long a trial rewrite may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Questions that every version must rewrite before it serves.
const TRIALS: [(&str, &str); 3] = [
    ("多少钱", "胶原蛋白肽饮怎么喝"),
    ("孕妇能喝吗", "这款饮料有什么成分"),
    ("how much is the cap", "concessional contributions"),
];

/// A version that serves or is tried.
pub struct Version {
    /// Its name, which replies and episodes carry.
    pub policy: PolicyId,
    /// Hash of its manifest.
    pub identity: String,
    /// Its engine, with the stand-ins of the gateway behind it.
    pub ladder: Arc<Ladder>,
    /// The engine alone.
    pub rewriter: Arc<dyn Rewriter>,
}

impl Version {
    /// Loads an engine beside the one that serves, and tries it: the learner's network must agree with it about its own
    /// completions, where that can be found out, and it must rewrite a few questions.
    ///
    /// # Errors
    /// In words, when it does not load, or fails the trial.
    pub async fn load(settings: &RewriterSettings, base: &Ladder, policy: &VerifiedPolicy) -> Result<Self, String> {
        let settings = RewriterSettings { adapter: policy.dir.clone(), ..settings.clone() };
        let name = policy.manifest.policy.clone();
        let rewriter = LocalRewriter::load(&settings).await.map_err(|error| error.to_string())?.named(name.clone());
        match rewriter.parity(&settings).await.map_err(|error| error.to_string())? {
            // what it says of its own rewrites is what the next round of learning starts from
            Some(nats) if nats > PARITY_NATS => {
                return Err(format!(
                    "its log-probabilities are {nats:e} nats from the learner's, allowed are {PARITY_NATS:e}"
                ));
            }
            nats => tracing::info!(policy = %name, nats, "serving and learner agree about this policy"),
        }
        let rewriter: Arc<dyn Rewriter> = Arc::new(rewriter);
        for (query, before) in TRIALS {
            let request = trial(query, before).ok_or("the trial has no tenant")?;
            let written = rewriter.rewrite(&request, Instant::now() + PATIENCE).await;
            let written = written.map_err(|error| format!("it does not rewrite {query:?}: {error}"))?;
            if written.log_probs.iter().any(|log_prob| !log_prob.is_finite()) {
                return Err(format!("its probabilities for {query:?} are not finite"));
            }
        }
        let ladder = Arc::new(base.beside(Arc::clone(&rewriter)));
        Ok(Self { policy: name, identity: policy.identity.clone(), ladder, rewriter })
    }
}

fn trial(query: &str, before: &str) -> Option<RewriteRequest> {
    let id: TenantId = "trial".parse().ok()?;
    let tenant = TenantProfile {
        id,
        name: "trial".to_owned(),
        domain: String::new(),
        system_prompt: "把问题改写成检索词。".to_owned(),
        synonyms: Default::default(),
        term_expansion: Default::default(),
        protected_terms: Vec::new(),
        redact: false,
        retention_days: None,
    };
    let history = vec![Turn { role: Role::User, content: before.to_owned() }];
    let conversation = Conversation { query: query.to_owned(), history, ..Conversation::default() };
    Some(RewriteRequest { tenant: Arc::new(tenant), conversation, seed: 0 })
}
