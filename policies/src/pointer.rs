//! Which policy is active: one small file for each scope, replaced as a whole.

use std::fs;
use std::path::PathBuf;

use recast_domain::{PolicyId, TenantId};
use serde::{Deserialize, Serialize};

use crate::disk::{self, Lock, Step, read_if_there};
use crate::error::{PolicyError, Result};
use crate::journal::{self, Cause, Event, Journal, Record};
use crate::scope::Scope;
use crate::store::{PolicyStore, VerifiedPolicy};

// Upper case, so that no policy can have these names.
const POINTER: &str = "CURRENT";
const LOCK: &str = "LOCK";
const JOURNAL: &str = "JOURNAL.jsonl";
const FORMAT: u32 = 1;
/// Earlier policies that can be rolled back to, one after the other.
const DEPTH: usize = 16;

/// A policy that serves or served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivePolicy {
    /// Its name.
    pub policy: PolicyId,
    /// BLAKE3 of its manifest when it was promoted.
    pub identity: String,
}

/// What a scope serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// Whose pointer this is.
    pub scope: Scope,
    /// Counts the pointer's moves; 0 before the first.
    pub version: u64,
    /// The policy that serves; `None` where it is left to the default, or to the settings.
    pub current: Option<ActivePolicy>,
    /// What a roll-back would restore; `None` for what served before all policies.
    pub previous: Option<ActivePolicy>,
}

/// The pointer's file. The last policy of `stack` is the active one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pointer {
    format: u32,
    version: u64,
    stack: Vec<ActivePolicy>,
    /// The last move, and where its line belongs in the journal: the pointer moves first, the journal follows.
    journal_at: u64,
    record: Option<Record>,
}

impl Pointer {
    fn empty() -> Self {
        Self { format: FORMAT, version: 0, stack: Vec::new(), journal_at: 0, record: None }
    }

    fn active(&self, scope: &Scope) -> Active {
        let mut newest = self.stack.iter().rev().cloned();
        Active { scope: scope.clone(), version: self.version, current: newest.next(), previous: newest.next() }
    }
}

impl PolicyStore {
    /// What a scope serves.
    ///
    /// # Errors
    /// The pointer cannot be read.
    pub fn active(&self, scope: &Scope) -> Result<Active> {
        Ok(self.read_pointer(scope)?.active(scope))
    }

    /// What a tenant is served: its own active policy, else everyone's.
    ///
    /// # Errors
    /// A pointer cannot be read.
    pub fn active_for(&self, tenant: &TenantId) -> Result<Active> {
        let own = self.active(&Scope::from(tenant.clone()))?;
        if own.current.is_some() { Ok(own) } else { self.active(&Scope::Everyone) }
    }

    /// The active policy of a scope with every byte checked, and that it is still the one that was promoted.
    ///
    /// # Errors
    /// As [`PolicyStore::load`]; also where the manifest is another than that of the promotion.
    pub fn load_active(&self, scope: &Scope) -> Result<Option<VerifiedPolicy>> {
        self.active(scope)?.current.map(|current| self.load_promoted(scope, &current)).transpose()
    }

    fn load_promoted(&self, scope: &Scope, promoted: &ActivePolicy) -> Result<VerifiedPolicy> {
        let policy = self.load(scope, &promoted.policy)?;
        if policy.identity != promoted.identity {
            return Err(PolicyError::damaged(&policy.dir, "is another policy of the name than the one promoted"));
        }
        Ok(policy)
    }

    /// Makes a policy the active one, if the pointer still is at `expected_version`.
    ///
    /// Of several callers that saw the same version, in whatever processes, one succeeds.
    ///
    /// # Errors
    /// The version has moved on, the policy is active already or not sound, or the pointer cannot be written.
    pub fn promote(
        &self,
        scope: &Scope,
        policy: &PolicyId,
        expected_version: u64,
        reason: &str,
        at_ms: i64,
    ) -> Result<Active> {
        let (_lock, mut pointer) = self.lock_pointer(scope, Some(expected_version))?;
        let before = pointer.stack.last().map(|active| active.policy.clone());
        if before.as_ref() == Some(policy) {
            return Err(PolicyError::AlreadyActive { scope: scope.clone(), policy: policy.clone() });
        }
        let verified = self.load(scope, policy)?;
        pointer.stack.push(ActivePolicy { policy: policy.clone(), identity: verified.identity });
        if pointer.stack.len() > DEPTH {
            pointer.stack.remove(0);
        }
        self.move_pointer(scope, pointer, before, Cause::Promotion, reason.to_owned(), at_ms)
    }

    /// Makes the newest earlier policy that is still sound the active one; where there is none, what the settings name.
    ///
    /// # Errors
    /// The version has moved on, no policy is active, or the pointer cannot be written.
    pub fn roll_back(&self, scope: &Scope, expected_version: u64, reason: &str, at_ms: i64) -> Result<Active> {
        let (_lock, mut pointer) = self.lock_pointer(scope, Some(expected_version))?;
        let Some(before) = pointer.stack.pop() else { return Err(PolicyError::NothingActive(scope.clone())) };
        let mut reason = reason.to_owned();
        // A roll-back must end with something that loads, even if the policy before the last was damaged since.
        while let Some(earlier) = pointer.stack.last() {
            match self.load_promoted(scope, earlier) {
                Ok(_) => break,
                Err(error) => reason = format!("{reason}; {} was passed over: {error}", earlier.policy),
            }
            pointer.stack.pop();
        }
        self.move_pointer(scope, pointer, Some(before.policy), Cause::RollBack, reason, at_ms)
    }

    /// Adds a record to the scope's journal and waits until it is on the disk.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn record(&self, scope: &Scope, record: &Record) -> Result<()> {
        let _lock = self.lock_pointer(scope, None)?;
        let path = self.scope_dir(scope).join(JOURNAL);
        Journal::open(&path)?.append(&journal::line(&path, record)?)
    }

    /// Everything that was recorded about a scope, oldest first.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn journal(&self, scope: &Scope) -> Result<Vec<Record>> {
        if !self.scope_dir(scope).is_dir() {
            return Ok(Vec::new());
        }
        let _lock = self.lock_pointer(scope, None)?;
        journal::read(&self.scope_dir(scope).join(JOURNAL))
    }

    /// Does something while the pointer cannot move.
    pub(crate) fn with_pointer_lock<T>(&self, scope: &Scope, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let _lock = self.lock_pointer(scope, None)?;
        act()
    }

    fn pointer_path(&self, scope: &Scope) -> PathBuf {
        self.scope_dir(scope).join(POINTER)
    }

    fn read_pointer(&self, scope: &Scope) -> Result<Pointer> {
        let path = self.pointer_path(scope);
        let Some(bytes) = read_if_there(&path)? else { return Ok(Pointer::empty()) };
        let pointer: Pointer =
            serde_json::from_slice(&bytes).map_err(|error| PolicyError::damaged(&path, error.to_string()))?;
        match pointer.format {
            FORMAT => Ok(pointer),
            other => Err(PolicyError::damaged(&path, format!("format {other}, this recast knows {FORMAT}"))),
        }
    }

    /// Takes the scope's lock, lets the journal catch up with the pointer, and compares versions.
    fn lock_pointer(&self, scope: &Scope, expected: Option<u64>) -> Result<(Lock, Pointer)> {
        let dir = self.scope_dir(scope);
        disk::create_folder(&dir)?;
        let lock = Lock::take(&dir.join(LOCK))?;
        let pointer = self.read_pointer(scope)?;
        if let Some(record) = &pointer.record {
            let path = dir.join(JOURNAL);
            Journal::open(&path)?.ensure_at(pointer.journal_at, &journal::line(&path, record)?)?;
        }
        match expected.filter(|expected| *expected != pointer.version) {
            Some(expected) => Err(PolicyError::Version { scope: scope.clone(), expected, found: pointer.version }),
            None => Ok((lock, pointer)),
        }
    }

    /// The one moment at which another policy becomes active is the rename.
    fn move_pointer(
        &self,
        scope: &Scope,
        mut pointer: Pointer,
        from: Option<PolicyId>,
        cause: Cause,
        reason: String,
        at_ms: i64,
    ) -> Result<Active> {
        let dir = self.scope_dir(scope);
        let journal_path = dir.join(JOURNAL);
        let mut journal = Journal::open(&journal_path)?;
        pointer.version += 1;
        let to = pointer.stack.last().map(|active| active.policy.clone());
        let record = Record { at_ms, event: Event::Activated { version: pointer.version, from, to, cause, reason } };
        let line = journal::line(&journal_path, &record)?;
        pointer.journal_at = journal.length;
        pointer.record = Some(record);

        let path = self.pointer_path(scope);
        let beside = dir.join(format!("{POINTER}.new"));
        let text = serde_json::to_vec_pretty(&pointer)
            .map_err(|error| PolicyError::refused(&path, error.to_string(), "use names that JSON has"))?;
        disk::write_synced(&beside, &text)?;
        self.step(&path, Step::PointerWritten)?;
        fs::rename(&beside, &path).map_err(PolicyError::io(&path))?;
        disk::sync_folder(&dir)?;
        self.step(&path, Step::PointerMoved)?;
        journal.append(&line)?;
        self.step(&journal_path, Step::JournalWritten)?;
        Ok(pointer.active(scope))
    }
}
