//! Checkpoints that survive a kill at any moment.
//!
//! A checkpoint is written into a folder of another name, flushed, and renamed: whoever looks finds whole ones only. No
//! state of random numbers is kept, because what a step draws follows from the seed and the step.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Var};
use recast_model::{AdamW, Weights, read_safetensors, write_safetensors};
use serde::{Deserialize, Serialize};

use crate::error::{LearnError, Result};

const STATE: &str = "state.json";
const WEIGHTS: &str = "weights.safetensors";
const BEST: &str = "best.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";

/// What a checkpoint says beside weights and moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Hash of everything that must not change between two parts of a run.
    pub fingerprint: String,
    /// Steps made.
    pub step: u32,
    /// Steps of the whole run.
    pub steps: u32,
    /// Tokens read.
    pub tokens: u64,
    /// Seconds trained.
    pub seconds: f64,
    /// Step of the best validation so far and its score.
    pub best: Option<(u32, f64)>,
    /// Validations since the best.
    pub stale: u32,
    /// Figures of every validation, by step.
    pub validations: Vec<(u32, BTreeMap<String, f64>)>,
}

/// The checkpoints of a run, in one folder.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
}

impl Checkpoints {
    /// Opens (and creates) the folder; version control is told to leave it alone.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(LearnError::io(dir))?;
        let ignore = dir.join(".gitignore");
        std::fs::write(&ignore, "*\n").map_err(LearnError::io(&ignore))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes all checkpoints: a new run begins.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn clear(&self) -> Result<()> {
        for (_, path) in self.folders()? {
            std::fs::remove_dir_all(&path).map_err(LearnError::io(&path))?;
        }
        Ok(())
    }

    fn folders(&self) -> Result<Vec<(u32, PathBuf)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(LearnError::io(&self.dir))? {
            let path = entry.map_err(LearnError::io(&self.dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".part") {
                std::fs::remove_dir_all(&path).map_err(LearnError::io(&path))?;
            } else if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Writes a checkpoint and drops all but the newest two.
    ///
    /// # Errors
    /// Where the disk refuses; the older checkpoints are whole then.
    pub fn save(
        &self,
        state: &RunState,
        vars: &BTreeMap<String, Var>,
        best: &Weights,
        optimizer: &AdamW,
    ) -> Result<()> {
        self.write(state.step, |part| {
            write_safetensors(&part.join(WEIGHTS), &weights_of(vars))?;
            write_safetensors(&part.join(BEST), best)?;
            optimizer.save(&part.join(OPTIMIZER))?;
            let text = serde_json::to_string_pretty(state).map_err(|e| self.unusable(part, e))?;
            write_flushed(&part.join(STATE), &text)
        })
    }

    /// Fills a folder for a step, makes it appear whole, and drops all but the newest two.
    pub(crate) fn write(&self, step: u32, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let target = self.dir.join(format!("step-{step:07}"));
        let part = self.dir.join(format!("step-{step:07}.part"));
        for old in [&part, &target] {
            if old.exists() {
                std::fs::remove_dir_all(old).map_err(LearnError::io(old))?;
            }
        }
        std::fs::create_dir(&part).map_err(LearnError::io(&part))?;
        fill(&part)?;
        std::fs::rename(&part, &target).map_err(LearnError::io(&target))?;
        std::fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(LearnError::io(&self.dir))?;
        let folders = self.folders()?;
        for (_, path) in &folders[..folders.len().saturating_sub(2)] {
            std::fs::remove_dir_all(path).map_err(LearnError::io(path))?;
        }
        Ok(())
    }

    /// Folder of the newest whole checkpoint.
    pub(crate) fn newest(&self) -> Result<Option<PathBuf>> {
        Ok(self.folders()?.pop().map(|(_, path)| path))
    }

    /// The state of the newest checkpoint, where there is one.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn latest(&self) -> Result<Option<RunState>> {
        let Some((_, path)) = self.folders()?.pop() else { return Ok(None) };
        let file = path.join(STATE);
        let text = std::fs::read_to_string(&file).map_err(LearnError::io(&file))?;
        serde_json::from_str(&text).map(Some).map_err(|e| self.unusable(&path, e))
    }

    /// Puts the newest checkpoint's weights into the variables and its moments into the optimizer; gives the best
    /// weights so far.
    ///
    /// # Errors
    /// Where the checkpoint is damaged or of another model.
    pub fn restore(&self, vars: &BTreeMap<String, Var>, optimizer: &mut AdamW) -> Result<Weights> {
        let Some((_, path)) = self.folders()?.pop() else {
            return Err(self.unusable(&self.dir, "there is none to go on from"));
        };
        put(vars, &read_safetensors(&path.join(WEIGHTS), &Device::Cpu)?)?;
        optimizer.restore(&path.join(OPTIMIZER))?;
        Ok(read_safetensors(&path.join(BEST), &Device::Cpu)?)
    }

    pub(crate) fn unusable(&self, path: &Path, reason: impl std::fmt::Display) -> LearnError {
        let reason = format!("{reason}; start the run anew without resuming");
        LearnError::Checkpoint { path: path.to_owned(), reason }
    }
}

/// Writes a small file and waits until the disk has it.
pub(crate) fn write_flushed(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(LearnError::io(path))?;
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(LearnError::io(path))
}

/// Copies of the variables' present values.
pub(crate) fn weights_of(vars: &BTreeMap<String, Var>) -> Weights {
    vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().detach())).collect()
}

/// As [`weights_of`], on storage of their own: further steps do not change them.
pub(crate) fn copy_of(vars: &BTreeMap<String, Var>) -> Result<Weights> {
    vars.iter().map(|(name, var)| Ok((name.clone(), var.as_tensor().detach().copy()?))).collect()
}

/// Sets variables by name.
pub(crate) fn put(vars: &BTreeMap<String, Var>, weights: &Weights) -> Result<()> {
    for (name, var) in vars {
        let weight = weights
            .get(name)
            .ok_or_else(|| LearnError::Setting(format!("weight {name} is missing in the checkpoint")))?;
        var.set(&weight.to_device(var.device())?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;
    use recast_model::AdamWConfig;

    use super::*;

    fn state(step: u32) -> RunState {
        RunState {
            fingerprint: "f".into(),
            step,
            steps: 9,
            tokens: 3,
            seconds: 0.5,
            best: Some((step, 0.5)),
            stale: 0,
            validations: vec![(step, BTreeMap::from([("exact".to_owned(), 0.5)]))],
        }
    }

    #[test]
    fn the_newest_whole_checkpoint_counts() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path()).unwrap();
        assert!(checkpoints.latest().unwrap().is_none());
        let vars = BTreeMap::from([("w".to_owned(), Var::new(&[1f32, 2.0], &Device::Cpu).unwrap())]);
        let mut optimizer = AdamW::new(&vars, AdamWConfig::default()).unwrap();
        for step in 1..=4 {
            vars["w"].set(&Tensor::new(&[step as f32, 0.0], &Device::Cpu).unwrap()).unwrap();
            checkpoints.save(&state(step), &vars, &copy_of(&vars).unwrap(), &optimizer).unwrap();
        }
        // what a kill in the middle of a save leaves behind
        let part = dir.path().join("step-0000005.part");
        std::fs::create_dir(&part).unwrap();
        std::fs::write(part.join(STATE), "{").unwrap();
        assert_eq!(checkpoints.latest().unwrap(), Some(state(4)));
        vars["w"].set(&Tensor::new(&[9f32, 9.0], &Device::Cpu).unwrap()).unwrap();
        checkpoints.restore(&vars, &mut optimizer).unwrap();
        assert_eq!(vars["w"].to_vec1::<f32>().unwrap(), [4.0, 0.0]);
        assert!(!part.exists() && checkpoints.folders().unwrap().len() == 2);
        checkpoints.clear().unwrap();
        assert!(checkpoints.restore(&vars, &mut optimizer).is_err());
    }
}
