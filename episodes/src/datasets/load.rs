//! Rewrites read back for a trainer: an envelope, or chats one a line.

use std::path::Path;

use recast_domain::{Conversation, Turn, parse_history};
use serde::Deserialize;

use crate::dataset::{DatasetError, DatasetProblem};

/// A rewrite to learn from, as a dataset holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSample {
    /// Whose it is.
    pub tenant_id: String,
    /// Its id, unlike the others' of the file.
    pub sample_id: String,
    /// The conversation it is from.
    pub conversation_id: String,
    /// The question with its context.
    pub conversation: Conversation,
    /// The rewrite.
    pub rewrite: String,
}

#[derive(Deserialize)]
struct Envelope {
    tenant_id: String,
    samples: Vec<RowText>,
}

#[derive(Deserialize)]
struct RowText {
    sample_id: String,
    #[serde(default)]
    conversation_id: Option<String>,
    original_query: String,
    rewritten_query: String,
    context: ContextText,
    metadata: MetadataText,
}

#[derive(Deserialize)]
struct MetadataText {
    #[serde(default)]
    tenant_id: Option<String>,
}

#[derive(Deserialize)]
struct ContextText {
    #[serde(default)]
    user_profile: String,
    #[serde(default)]
    history_summary: String,
    #[serde(default)]
    history_context: String,
    #[serde(default)]
    thought_unit: String,
    #[serde(default)]
    history: Option<Vec<Turn>>,
}

impl RowText {
    fn sample(self, tenant: Option<&str>) -> Result<TrainingSample, String> {
        for (field, text) in [("original_query", &self.original_query), ("rewritten_query", &self.rewritten_query)] {
            if text.trim().is_empty() {
                return Err(format!("{field}: is empty"));
            }
        }
        let tenant = tenant.map(str::to_owned).or(self.metadata.tenant_id);
        let tenant_id = tenant.ok_or("metadata.tenant_id: is missing: name the tenant")?;
        let context = self.context;
        Ok(TrainingSample {
            tenant_id,
            conversation_id: self.conversation_id.unwrap_or_else(|| self.sample_id.clone()),
            sample_id: self.sample_id,
            conversation: Conversation {
                query: self.original_query,
                history: context.history.unwrap_or_else(|| parse_history(&context.history_context)),
                user_profile: context.user_profile,
                history_summary: context.history_summary,
                thought: context.thought_unit,
            },
            rewrite: self.rewritten_query,
        })
    }
}

/// Reads the file of one split: `*.json` is an envelope, everything else holds a chat a line, as `recast datasets build`
/// writes them with `--kind sft` and `--kind messages`.
///
/// # Errors
/// With every row that cannot be used, by line or by place in the envelope.
pub fn load_rewrites(path: &Path) -> Result<Vec<TrainingSample>, DatasetError> {
    let problem = |line, message| DatasetProblem { path: path.to_owned(), line, message };
    let whole = |message| DatasetError { problems: vec![problem(None, message)] };
    let text = std::fs::read_to_string(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    let (mut samples, mut problems) = (Vec::new(), Vec::new());
    if path.extension().is_some_and(|ending| ending == "json") {
        let mut deserializer = serde_json::Deserializer::from_str(&text);
        let envelope: Envelope = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| whole(format!("{}: {}", error.path(), error.inner())))?;
        for (place, row) in envelope.samples.into_iter().enumerate() {
            match row.sample(Some(&envelope.tenant_id)) {
                Ok(sample) => samples.push(sample),
                Err(message) => problems.push(problem(None, format!("samples[{place}].{message}"))),
            }
        }
    } else {
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let mut deserializer = serde_json::Deserializer::from_str(line);
            let row: Result<RowText, _> = serde_path_to_error::deserialize(&mut deserializer);
            let sample =
                row.map_err(|error| format!("{}: {}", error.path(), error.inner())).and_then(|row| row.sample(None));
            match sample {
                Ok(sample) => samples.push(sample),
                Err(message) => problems.push(problem(Some(number), message)),
            }
        }
    }
    if samples.is_empty() && problems.is_empty() {
        problems.push(problem(None, "holds no sample: build the dataset of more episodes".to_owned()));
    }
    if problems.is_empty() { Ok(samples) } else { Err(DatasetError { problems }) }
}
