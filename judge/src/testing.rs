//! What the tests of this crate share.
use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use recast_domain::TenantId;

use crate::{JudgeBooks, StoredReply, VerdictKey};

/// Books in memory that can be told to fail.
#[derive(Default)]
pub(crate) struct TestBooks {
    pub replies: Mutex<HashMap<(TenantId, VerdictKey), StoredReply>>,
    pub costs: Mutex<HashMap<(TenantId, u64), f64>>,
    broken: bool,
}

impl TestBooks {
    pub fn broken() -> Self {
        Self { broken: true, ..Self::default() }
    }

    fn works(&self) -> Result<(), String> {
        if self.broken { Err("disk".to_owned()) } else { Ok(()) }
    }
}

#[async_trait]
impl JudgeBooks for TestBooks {
    async fn reply(&self, tenant: &TenantId, key: &VerdictKey) -> Result<Option<StoredReply>, String> {
        self.works()?;
        Ok(self.replies.lock().unwrap().get(&(tenant.clone(), *key)).cloned())
    }

    async fn keep(&self, tenant: &TenantId, key: &VerdictKey, reply: &StoredReply, _: i64) -> Result<(), String> {
        self.works()?;
        self.replies.lock().unwrap().insert((tenant.clone(), *key), reply.clone());
        Ok(())
    }

    async fn cost(&self, tenant: &TenantId, day: u64) -> Result<f64, String> {
        self.works()?;
        Ok(self.costs.lock().unwrap().get(&(tenant.clone(), day)).copied().unwrap_or_default())
    }

    async fn add_cost(&self, tenant: &TenantId, day: u64, cost: f64) -> Result<(), String> {
        self.works()?;
        *self.costs.lock().unwrap().entry((tenant.clone(), day)).or_default() += cost;
        Ok(())
    }
}
