//! Changes of experiments: checked against everything that runs, saved as a new version, in force at once.

use std::collections::BTreeMap;

use recast_episodes::{EpisodeError, ExperimentChange, ExperimentRecord};
use recast_experiments::{Definition, Kind, Problem, check};
use serde_json::Value;

use crate::arena::table::{Entry, Table};
use crate::arena::{Arena, BY_CONFIGURATION};
use crate::error::GatewayError;
use crate::keys::now_ms;

/// A wanted change.
#[derive(Debug, Clone)]
pub struct Change {
    /// What the experiment is to be.
    pub definition: Definition,
    /// The version that the change was made for; 0 for a new experiment, `None` for whatever is there.
    pub expected: Option<u32>,
    /// Who wants it.
    pub author: String,
    /// Why.
    pub note: String,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The definition is wrong.
    #[error("{} problem(s) in the definition", .0.len())]
    Problems(Vec<Problem>),
    /// The store refused, or somebody else was faster.
    #[error(transparent)]
    Store(#[from] EpisodeError),
}

impl Arena {
    /// Checks a definition, saves it as the next version and puts it in force.
    ///
    /// # Errors
    /// Every problem of the definition; a conflict of versions; a store that cannot be written.
    pub async fn change(&self, change: Change) -> Result<Entry, ChangeError> {
        let _one = self.changing.lock().await;
        let problems = self.problems(std::slice::from_ref(&change.definition));
        if !problems.is_empty() {
            return Err(ChangeError::Problems(problems));
        }
        Ok(self.save(change).await?)
    }

    /// Stops an experiment: switched off (`enabled = false`), or killed. Always possible, whatever its definition says.
    ///
    /// # Errors
    /// A conflict of versions; a store that cannot be written. `None` where there is no such experiment.
    pub async fn stop(
        &self,
        id: &str,
        killed: bool,
        expected: Option<u32>,
        author: &str,
        note: &str,
    ) -> Result<Option<Entry>, EpisodeError> {
        let _one = self.changing.lock().await;
        let table = self.table();
        let Some(entry) = table.all.get(id) else { return Ok(None) };
        let mut definition = entry.definition.clone();
        if killed {
            definition.killed = true;
        } else {
            definition.enabled = false;
        }
        if definition == entry.definition && expected.is_none_or(|expected| expected == entry.version) {
            return Ok(Some(entry.clone()));
        }
        let change = Change { definition, expected, author: author.to_owned(), note: note.to_owned() };
        self.save(change).await.map(Some)
    }

    /// What is wrong with new definitions, beside those that are on.
    fn problems(&self, new: &[Definition]) -> Vec<Problem> {
        let tenants: Vec<String> = self.tenants.snapshot().keys().map(ToString::to_string).collect();
        let table = self.table();
        let others = table.all.values().filter(|entry| entry.is_on()).map(|entry| &entry.definition);
        let others: Vec<Definition> =
            others.filter(|other| new.iter().all(|new| new.id != other.id)).cloned().collect();
        // The others come first: what is wrong with them alone is not the new ones' fault.
        let known = check(&others, &tenants);
        let all: Vec<Definition> = others.iter().chain(new).cloned().collect();
        let mut problems: Vec<Problem> =
            check(&all, &tenants).into_iter().filter(|problem| !known.contains(problem)).collect();
        for (index, definition) in new.iter().enumerate() {
            let path = field_prefix(others.len() + index);
            for (arm_index, arm) in definition.arms.iter().enumerate() {
                let live = definition.kind != Kind::Shadow || arm.name == definition.control;
                let field = format!("{path}arms[{arm_index}].rewriter");
                let said = problems.iter().any(|problem| problem.field == field);
                if let Some(message) = self.arms.problem(&arm.rewriter, live).filter(|_| !said) {
                    problems.push(Problem { field, message });
                }
            }
        }
        for problem in &mut problems {
            for index in 0..new.len() {
                let prefix = field_prefix(others.len() + index);
                if let Some(rest) = problem.field.strip_prefix(&prefix) {
                    problem.field =
                        if new.len() == 1 { rest.to_owned() } else { format!("{}{rest}", field_prefix(index)) };
                    break;
                }
            }
        }
        problems
    }

    /// The caller holds `changing`.
    async fn save(&self, change: Change) -> Result<Entry, EpisodeError> {
        let Change { definition, expected, author, note } = change;
        let text = serde_json::to_string(&definition).map_err(|error| EpisodeError::Invalid(error.to_string()))?;
        let created_ms = i64::try_from(now_ms()).unwrap_or(i64::MAX);
        let change = ExperimentChange {
            id: definition.id.clone(),
            definition: text,
            expected_version: expected,
            created_ms,
            author: author.clone(),
            note: note.clone(),
        };
        let version = self.episodes().save_experiment(change).await?;
        tracing::info!(experiment = definition.id, version, author, note, "an experiment has changed");
        let entry = Entry { version, definition, created_ms, author, note };
        let before = self.table();
        let mut all = before.all.clone();
        all.insert(entry.definition.id.clone(), entry.clone());
        self.table.store(std::sync::Arc::new(Table::new(all, &self.arms, self.window, &before)));
        Ok(entry)
    }

    /// Puts the stored definitions in force.
    pub(super) async fn load(&self) -> Result<(), EpisodeError> {
        let stored = self.episodes().read(|reader| reader.experiments()).await?;
        let mut all = BTreeMap::new();
        for record in stored {
            match entry(&record) {
                Ok(entry) => drop(all.insert(record.id, entry)),
                Err(error) => {
                    tracing::error!(experiment = record.id, %error, "a stored experiment cannot be read; it does not run");
                }
            }
        }
        let table = Table::new(all, &self.arms, self.window, &Table::default());
        self.table.store(std::sync::Arc::new(table));
        Ok(())
    }

    /// Saves what the configuration says, where it says something new: a change through the API stands until the
    /// configuration itself changes. An experiment that has left the configuration is switched off.
    pub(super) async fn configure(&self, written: &[Value]) -> Result<(), GatewayError> {
        let (mut wanted, mut problems) = (Vec::new(), Vec::new());
        for (index, one) in written.iter().enumerate() {
            match serde_json::from_value::<Definition>(one.clone()) {
                Ok(definition) => wanted.push(definition),
                Err(error) => {
                    problems.push(Problem { field: format!("define[{index}]"), message: error.to_string() });
                }
            }
        }
        let mut fresh = Vec::new();
        for definition in &wanted {
            if self.last_configured(&definition.id).await?.as_ref() != Some(definition) {
                fresh.push(definition.clone());
            }
        }
        problems.extend(self.problems(&fresh));
        if !problems.is_empty() {
            return Err(GatewayError::Experiments { problems });
        }
        let save = |definition| Change {
            definition,
            expected: None,
            author: BY_CONFIGURATION.to_owned(),
            note: String::new(),
        };
        for definition in fresh {
            self.save(save(definition)).await?;
        }
        for (id, entry) in &self.table().all {
            let left = entry.is_on() && wanted.iter().all(|one| one.id != *id);
            if left && self.last_configured(id).await?.is_some() {
                self.stop(id, false, None, BY_CONFIGURATION, "no longer in the configuration").await?;
            }
        }
        Ok(())
    }

    /// What the configuration said when it last had something new to say about an experiment.
    async fn last_configured(&self, id: &str) -> Result<Option<Definition>, EpisodeError> {
        let id = id.to_owned();
        let versions = self.episodes().read(move |reader| reader.experiment_versions(&id)).await?;
        let last = versions.iter().rev().find(|record| record.author == BY_CONFIGURATION && record.note.is_empty());
        Ok(last.and_then(|record| serde_json::from_str(&record.definition).ok()))
    }
}

/// How the check names the definition at a position.
fn field_prefix(index: usize) -> String {
    format!("define[{index}].")
}

fn entry(record: &ExperimentRecord) -> Result<Entry, serde_json::Error> {
    Ok(Entry {
        version: record.version,
        definition: serde_json::from_str(&record.definition)?,
        created_ms: record.created_ms,
        author: record.author.clone(),
        note: record.note.clone(),
    })
}
