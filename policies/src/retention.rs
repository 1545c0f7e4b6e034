//! Which policies are kept.

use std::collections::BTreeSet;

use recast_domain::PolicyId;

use crate::disk::{self, read_if_there};
use crate::error::{PolicyError, Result};
use crate::journal::{Event, Record};
use crate::manifest::Manifest;
use crate::scope::Scope;
use crate::store::PolicyStore;

/// Names of pinned policies, a JSON list.
const PINS: &str = "PINS.json";

impl PolicyStore {
    /// Keeps a policy whatever [`PolicyStore::retain`] is told, or no longer.
    ///
    /// # Errors
    /// There is no such policy, or the list cannot be written.
    pub fn pin(&self, scope: &Scope, policy: &PolicyId, pinned: bool, at_ms: i64) -> Result<()> {
        self.show(scope, policy)?;
        let _lock = self.publish_lock(scope)?;
        let mut pins = self.pins(scope)?;
        let changed = if pinned { pins.insert(policy.clone()) } else { pins.remove(policy) };
        if !changed {
            return Ok(());
        }
        let path = self.scope_dir(scope).join(PINS);
        let text = serde_json::to_vec(&pins)
            .map_err(|error| PolicyError::refused(&path, error.to_string(), "use names that JSON has"))?;
        disk::replace(&path, &text)?;
        self.record(scope, &Record { at_ms, event: Event::Pinned { policy: policy.clone(), pinned } })
    }

    /// The pinned policies of a scope.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn pins(&self, scope: &Scope) -> Result<BTreeSet<PolicyId>> {
        let path = self.scope_dir(scope).join(PINS);
        match read_if_there(&path)? {
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| PolicyError::damaged(&path, error.to_string()))
            }
            None => Ok(BTreeSet::new()),
        }
    }

    /// Deletes all but the newest `keep` policies of a scope, and returns the names of those deleted.
    ///
    /// Never deleted: the active policy, the one a roll-back would restore, parents of an active policy, the candidate
    /// at the gate, and pinned ones.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn retain(&self, scope: &Scope, keep: usize, at_ms: i64) -> Result<Vec<PolicyId>> {
        let _publishing = self.publish_lock(scope)?;
        let mut retired = Vec::new();
        let newest_first: Vec<Manifest> = self.list(scope)?.into_iter().rev().collect();
        for manifest in newest_first.into_iter().skip(keep) {
            // Asked for each anew and under the pointer's lock: a promotion may come in between.
            let policy = manifest.policy;
            let deleted = self.with_pointer_lock(scope, || {
                let spare = !self.needed(scope)?.contains(&policy);
                if spare {
                    self.retire(scope, &policy)?;
                }
                Ok(spare)
            })?;
            if deleted {
                self.record(scope, &Record { at_ms, event: Event::Retired { policy: policy.clone() } })?;
                retired.push(policy);
            }
        }
        Ok(retired)
    }

    fn needed(&self, scope: &Scope) -> Result<BTreeSet<PolicyId>> {
        let mut needed = self.pins(scope)?;
        let active = self.active(scope)?;
        needed.extend(active.current.into_iter().chain(active.previous).map(|active| active.policy));
        needed.extend(self.gate(scope)?.map(|gate| gate.policy().clone()));
        // Everyone's policies may be the parents of a tenant's.
        let heirs = if *scope == Scope::Everyone { self.scopes()? } else { vec![scope.clone()] };
        for heir in heirs {
            if let Some(current) = self.active(&heir)?.current {
                needed.extend(self.show(&heir, &current.policy)?.parent);
            }
        }
        Ok(needed)
    }
}
