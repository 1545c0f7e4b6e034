//! What the learner says about itself, and the switch that stops it: small files, so that both work whatever state the
//! learner and the gateway are in.

use std::path::{Path, PathBuf};

use anyhow::Context;
use recast_learner::rl::StepMetrics;
use serde::{Deserialize, Serialize};

const STATUS: &str = "status.json";
const OFF: &str = "OFF";

/// The switch: while its file is there, nothing is learned.
#[derive(Debug, Clone)]
pub struct Switch(PathBuf);

impl Switch {
    /// The switch of a learner's folder.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn at(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        Ok(Self(dir.join(OFF)))
    }

    /// Stops the learner, for a reason.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn off(&self, why: &str) -> anyhow::Result<()> {
        std::fs::write(&self.0, why).with_context(|| self.0.display().to_string())
    }

    /// Lets it run.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn on(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| self.0.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// The reason, while it is off. A file that cannot be read counts as off.
    pub fn why_off(&self) -> Option<String> {
        self.0.exists().then(|| std::fs::read_to_string(&self.0).unwrap_or_else(|error| error.to_string()))
    }
}

/// Where the learner is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// learning, waiting, or ended.
    pub state: String,
    /// Why, in words.
    pub reason: String,
    /// The round's folder.
    pub round: String,
    /// Steps made of how many.
    pub step: u64,
    /// As above.
    pub steps: u64,
    /// Questions that are learned from.
    pub questions: usize,
    /// Figures of the last step.
    pub metrics: Option<StepMetrics>,
    /// When this was written, milliseconds since the Unix epoch, UTC.
    pub at_ms: i64,
    /// The learner's process.
    pub process: u32,
}

impl Status {
    /// It waits for something.
    pub fn waiting(reason: &str) -> Self {
        Self { state: "waiting".to_owned(), reason: reason.to_owned(), ..Self::default() }
    }
}

/// Writes where the learner is; whoever reads sees the old or the new whole.
///
/// # Errors
/// When the file cannot be written.
pub fn write(dir: &Path, status: &Status) -> anyhow::Result<()> {
    let status = Status { at_ms: super::round::now_ms(), process: std::process::id(), ..status.clone() };
    let (path, fresh) = (dir.join(STATUS), dir.join("status.json.new"));
    std::fs::write(&fresh, serde_json::to_vec_pretty(&status)?).with_context(|| fresh.display().to_string())?;
    std::fs::rename(&fresh, &path).with_context(|| path.display().to_string())
}

/// Where the learner is, as far as it said.
pub fn read(dir: &Path) -> Option<Status> {
    serde_json::from_slice(&std::fs::read(dir.join(STATUS)).ok()?).ok()
}

/// The status for people.
///
/// # Errors
/// When nothing was ever said.
pub fn shown(dir: &Path) -> anyhow::Result<String> {
    let status = read(dir).with_context(|| format!("{}: no learner has run here", dir.join(STATUS).display()))?;
    Ok(serde_json::to_string_pretty(&status)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_keeps_its_reason_and_the_status_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let switch = Switch::at(dir.path()).unwrap();
        assert!(switch.why_off().is_none());
        switch.off("too dear").unwrap();
        assert_eq!(switch.why_off().as_deref(), Some("too dear"));
        switch.on().unwrap();
        switch.on().unwrap();
        assert!(switch.why_off().is_none());
        assert!(shown(dir.path()).is_err());
        write(dir.path(), &Status::waiting("12 questions")).unwrap();
        assert_eq!(read(dir.path()).unwrap().reason, "12 questions");
    }
}
