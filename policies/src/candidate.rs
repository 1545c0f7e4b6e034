//! The candidate at a scope's gate, kept beside the pointer so that it survives a restart.

use std::path::PathBuf;

use crate::disk::{self, read_if_there};
use crate::error::{PolicyError, Result};
use crate::gate::{Gate, GateRecord, Stage, Verdict};
use crate::journal::{Cause, Event, Record};
use crate::scope::Scope;
use crate::store::PolicyStore;

const GATE: &str = "GATE.json";

impl PolicyStore {
    /// The candidate at the gate, or the last that was there.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn gate(&self, scope: &Scope) -> Result<Option<Gate>> {
        let path = self.gate_path(scope);
        let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| PolicyError::damaged(&path, error.to_string()))
    }

    /// Journals a decision, then keeps the gate as it is after it.
    ///
    /// A crash between the two repeats the decision, which the journal then shows twice: better than one it lacks.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn keep_gate(&self, scope: &Scope, gate: &Gate, record: &GateRecord, at_ms: i64) -> Result<()> {
        // a hold is no decision: what it rests on lies in the gate itself
        if record.verdict != Verdict::Hold {
            self.record(scope, &Record { at_ms, event: Event::Gate(Box::new(record.clone())) })?;
        }
        let path = self.gate_path(scope);
        let text = serde_json::to_vec(gate)
            .map_err(|error| PolicyError::refused(&path, error.to_string(), "keep only values that JSON has"))?;
        disk::replace(&path, &text)
    }

    /// Number of the next candidate's attempt: 1 and one more for each that was compared on held-out questions with this
    /// incumbent. Another incumbent is another question, and gets alpha anew; one that comes back by a roll-back goes
    /// on where it was.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn next_attempt(&self, scope: &Scope) -> Result<u32> {
        let mut attempt = 1;
        let mut earlier = Vec::new();
        for record in self.journal(scope)? {
            match record.event {
                Event::Activated { cause: Cause::Promotion, .. } => earlier.push(std::mem::replace(&mut attempt, 1)),
                Event::Activated { cause: Cause::RollBack, .. } => attempt = earlier.pop().unwrap_or(attempt),
                Event::Gate(gate) if gate.before == Stage::Offline && gate.after != Stage::Offline => attempt += 1,
                _ => {}
            }
        }
        Ok(attempt)
    }

    fn gate_path(&self, scope: &Scope) -> PathBuf {
        self.scope_dir(scope).join(GATE)
    }
}
