//! The rooms that the pipeline runs in, opened from settings; all that offline evaluation needs.

use std::sync::Arc;

use recast_config::Settings;
use recast_domain::TenantId;
use recast_retrieval::Retriever;
use recast_rewriter::Ladder;

use crate::error::GatewayError;
use crate::pipeline::Pipeline;
use crate::tenants::Tenants;

/// Tenants, retriever and rewriter, wired into the one pipeline.
#[derive(Clone)]
pub struct Parts {
    /// The tenants in force.
    pub tenants: Arc<Tenants>,
    /// The pipeline over them.
    pub pipeline: Pipeline,
}

impl Parts {
    /// Opens the knowledge bases and loads the models.
    ///
    /// # Errors
    /// The first part that cannot be opened; the cheap ones are tried first.
    pub async fn open(settings: &Settings) -> Result<Self, GatewayError> {
        let dir = &settings.tenants.dir;
        if let Err(source) = std::fs::read_dir(dir) {
            return Err(GatewayError::NoTenants { path: dir.clone(), source });
        }
        let tenants = Arc::new(Tenants::open(dir)?);
        if tenants.snapshot().is_empty() {
            tracing::warn!(dir = %dir.display(), "tenants.dir holds no tenant: every request will be refused");
        }
        std::fs::create_dir_all(&settings.state.dir)
            .map_err(|source| GatewayError::StateDir { path: settings.state.dir.clone(), source })?;
        let retriever = Arc::new(Retriever::open(settings).await?);
        retriever.set_tenants(&tenants.snapshot());
        let ladder = Arc::new(Ladder::from_settings(&settings.rewriter).await?);
        let pipeline = Pipeline::new(ladder, retriever, settings.deadlines.clone());
        Ok(Self { tenants, pipeline })
    }

    /// The days that tenants keep their episodes, where they say so themselves.
    pub fn retention(&self) -> Vec<(TenantId, u32)> {
        let tenants = self.tenants.snapshot();
        tenants.values().filter_map(|tenant| Some((tenant.id.clone(), tenant.retention_days?))).collect()
    }

    /// Picks up changed tenants; says whether there were any.
    pub fn reload_tenants(&self) -> bool {
        let changed = self.tenants.reload();
        if let Some(tenants) = &changed {
            self.pipeline.retriever().set_tenants(tenants);
        }
        changed.is_some()
    }
}
