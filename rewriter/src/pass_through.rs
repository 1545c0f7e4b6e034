use async_trait::async_trait;
use recast_domain::{PolicyId, Rewrite, RewriteSource};
use tokio::time::Instant;

use crate::{Result, RewriteRequest, Rewriter};

/// Answers with the user's own query.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassThrough;

impl PassThrough {
    /// The user's own query as a rewrite.
    #[must_use]
    pub fn of(request: &RewriteRequest) -> Rewrite {
        Rewrite::plain(request.conversation.query.clone(), RewriteSource::PassThrough, PolicyId::pass_through())
    }
}

#[async_trait]
impl Rewriter for PassThrough {
    fn policy(&self) -> PolicyId {
        PolicyId::pass_through()
    }

    async fn rewrite(&self, request: &RewriteRequest, _deadline: Instant) -> Result<Rewrite> {
        Ok(Self::of(request))
    }
}
