//! What trainers send, held against its meaning.

use std::sync::Arc;

use recast_config::{Settings, TenantProfile};
use recast_domain::{Conversation, KbName};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::dto::RawRequest;
use crate::problem::{FieldError, Problem};
use crate::scoring::item::Item;

/// An item id may be this long.
const ID_CHARS: usize = 256;
/// Completions are cut off here; longer ones are invalid for any question that the server takes.
const COMPLETION_CHARS: usize = 20_000;
/// Marks that a trainer's tokenizer may leave at the end of a completion.
const ENDS: [&str; 4] = ["<|im_end|>", "<|endoftext|>", "</s>", "<|eot_id|>"];

/// A completion to score.
#[derive(Debug, Clone, PartialEq, ToSchema)]
pub struct Sample {
    /// A dialogue of the tenant's folder, an episode, or a name for the question in `context`.
    pub item_id: String,
    /// The rewrite that was sampled.
    pub completion: String,
    /// Comes back as sent.
    #[schema(value_type = Option<String>)]
    pub sample_id: Option<Value>,
    /// Comes back as sent.
    #[schema(value_type = Option<String>)]
    pub group_id: Option<Value>,
    /// Comes back as sent.
    #[schema(value_type = Option<String>)]
    pub policy_version: Option<Value>,
    /// The question itself, as in `/general_rag`, with an optional `baseline`.
    #[schema(value_type = Option<Object>)]
    pub context: Option<Context>,
}

/// A question that comes with its completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    conversation: Conversation,
    kb_name: KbName,
    baseline: String,
}

impl Context {
    /// The item of this question; without a baseline, completions are compared with the question as typed.
    #[must_use]
    pub fn item(&self, id: &str, tenant: &Arc<TenantProfile>) -> Item {
        Item {
            id: id.to_owned(),
            tenant: Arc::clone(tenant),
            conversation: self.conversation.clone(),
            kb_name: self.kb_name.clone(),
            labels: Vec::new(),
            baseline: self.baseline.clone(),
            episode: None,
        }
    }
}

/// What is to be scored.
pub struct Wanted {
    /// In the order of the request.
    pub samples: Vec<Sample>,
    /// Whether the caller sent one by itself.
    pub single: bool,
}

/// Reads one sample, a list, `{"samples": [...]}`, or columns.
///
/// # Errors
/// 400 for anything that is not JSON; 422 naming every field that is wrong.
pub fn read(body: &[u8], settings: &Settings) -> Result<Wanted, Problem> {
    let value = json(body)?;
    let (rows, single) = match value {
        Value::Array(rows) => (rows, false),
        Value::Object(mut fields) => match fields.remove("samples") {
            Some(Value::Array(rows)) => (rows, false),
            Some(_) => return Err(Problem::field("samples", "must be a list")),
            None if fields.get("completion").is_some_and(Value::is_array) => (columns(fields)?, false),
            None => (vec![Value::Object(fields)], true),
        },
        _ => return Err(Problem::malformed("the body must be a JSON object or a list")),
    };
    if rows.is_empty() {
        return Err(Problem::field("samples", "is empty"));
    }
    let mut wrong = Vec::new();
    let mut samples = Vec::with_capacity(rows.len());
    for (place, row) in rows.into_iter().enumerate() {
        let prefix = if single { String::new() } else { format!("samples[{place}].") };
        match sample(row, &prefix, settings) {
            Ok(sample) => samples.push(sample),
            Err(faults) => wrong.extend(faults),
        }
    }
    if wrong.is_empty() { Ok(Wanted { samples, single }) } else { Err(Problem::fields(wrong)) }
}

/// Reads OpenRLHF's three lists: texts of prompt and completion, the prompts, and the item ids as labels.
///
/// # Errors
/// 400 for anything that is not JSON; 422 where the lists are missing, or do not fit together.
pub fn openrlhf(body: &[u8], settings: &Settings) -> Result<Vec<Sample>, Problem> {
    #[derive(Deserialize)]
    struct Body {
        query: Vec<String>,
        prompts: Vec<String>,
        labels: Vec<String>,
    }
    let body: Body = serde_json::from_value(json(body)?)
        .map_err(|error| Problem::field("body", format!("must hold the lists query, prompts and labels: {error}")))?;
    if body.query.is_empty() || body.query.len() != body.prompts.len() || body.query.len() != body.labels.len() {
        return Err(Problem::field("query", "must be as long as prompts and labels, and not empty"));
    }
    let mut wrong = Vec::new();
    let mut samples = Vec::with_capacity(body.query.len());
    for (place, ((query, prompt), label)) in body.query.iter().zip(&body.prompts).zip(body.labels).enumerate() {
        let Some(completion) = query.strip_prefix(prompt.as_str()) else {
            let message = "does not begin with its prompt: the completion cannot be told".to_owned();
            wrong.push(FieldError { field: format!("query[{place}]"), message });
            continue;
        };
        let row = serde_json::json!({"item_id": label, "completion": completion});
        match sample(row, &format!("[{place}]."), settings) {
            Ok(sample) => samples.push(sample),
            Err(faults) => wrong.extend(faults),
        }
    }
    if wrong.is_empty() { Ok(samples) } else { Err(Problem::fields(wrong)) }
}

fn json(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::malformed(format!("the body is not valid JSON: {error}")))
}

/// `{item_id: [a, b], completion: [x, y], group_id: "g"}` as rows; what is no list belongs to every row.
fn columns(fields: Map<String, Value>) -> Result<Vec<Value>, Problem> {
    let rows = fields.get("completion").and_then(Value::as_array).map_or(0, Vec::len);
    let uneven = fields.iter().find(|(_, column)| column.as_array().is_some_and(|values| values.len() != rows));
    if let Some((name, _)) = uneven {
        return Err(Problem::field(name.clone(), format!("must have {rows} entries, as completion has")));
    }
    let cell = |column: &Value, row: usize| match column {
        Value::Array(values) => values[row].clone(),
        one => one.clone(),
    };
    let row = |row| fields.iter().map(|(name, column)| (name.clone(), cell(column, row))).collect();
    Ok((0..rows).map(|at| Value::Object(row(at))).collect())
}

fn sample(row: Value, prefix: &str, settings: &Settings) -> Result<Sample, Vec<FieldError>> {
    let fault =
        |field: &str, message: &str| FieldError { field: format!("{prefix}{field}"), message: message.to_owned() };
    let Value::Object(mut fields) = row else { return Err(vec![fault("", "must be an object {item_id, completion}")]) };
    let mut wrong = Vec::new();
    let mut text = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => text,
        _ => {
            wrong.push(fault(name, "is missing, or no text"));
            String::new()
        }
    };
    let (item_id, completion) = (text("item_id"), text("completion"));
    if item_id.chars().count() > ID_CHARS {
        wrong.push(fault("item_id", "has more than 256 characters"));
    }
    let mut echo = |name: &str| fields.remove(name).filter(|value| !value.is_null());
    let (sample_id, group_id, policy_version) = (echo("sample_id"), echo("group_id"), echo("policy_version"));
    let context = match echo("context").map(|context| read_context(context, prefix, settings)).transpose() {
        Ok(context) => context,
        Err(faults) => {
            wrong.extend(faults);
            None
        }
    };
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let completion = cleaned(&completion);
    Ok(Sample { item_id, completion, sample_id, group_id, policy_version, context })
}

fn read_context(context: Value, prefix: &str, settings: &Settings) -> Result<Context, Vec<FieldError>> {
    let fault = |field: &str, message: String| FieldError { field: format!("{prefix}context{field}"), message };
    let Value::Object(mut fields) = context else {
        return Err(vec![fault("", "must be an object with the question, as in /general_rag".to_owned())]);
    };
    let baseline = match fields.remove("baseline") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(_) => return Err(vec![fault(".baseline", "must be a text".to_owned())]),
    };
    let request: RawRequest =
        serde_json::from_value(Value::Object(fields)).map_err(|error| vec![fault("", error.to_string())])?;
    let request = request.check(&settings.limits, &settings.retrieval).map_err(|problem| {
        let rename = |one: &FieldError| fault(&format!(".{}", one.field), one.message.clone());
        problem.errors().iter().map(rename).collect::<Vec<_>>()
    })?;
    let baseline = baseline.unwrap_or_else(|| request.conversation.query.clone());
    Ok(Context { conversation: request.conversation, kb_name: request.kb_name, baseline })
}

/// Without the marks and the white space around a completion.
fn cleaned(completion: &str) -> String {
    let mut text = completion.trim();
    while let Some(shorter) = ENDS.iter().find_map(|end| text.strip_suffix(end)) {
        text = shorter.trim_end();
    }
    text.chars().take(COMPLETION_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings() -> Settings {
        recast_config::load(&recast_config::Source::parse("demo"), Vec::new()).unwrap().settings
    }

    fn samples(body: &Value) -> Vec<(String, String)> {
        let wanted = read(body.to_string().as_bytes(), &settings()).unwrap_or_else(|problem| panic!("{problem:?}"));
        wanted.samples.into_iter().map(|sample| (sample.item_id, sample.completion)).collect()
    }

    #[test]
    fn four_shapes_say_the_same() {
        let both = [("a".to_owned(), "x".to_owned()), ("a".to_owned(), "y".to_owned())];
        let rows = json!([{"item_id": "a", "completion": "x"}, {"item_id": "a", "completion": " y<|im_end|>\n"}]);
        assert_eq!(samples(&rows), both);
        assert_eq!(samples(&json!({"samples": rows})), both);
        assert_eq!(samples(&json!({"item_id": "a", "completion": ["x", "y"], "group_id": 7})), both);
        assert_eq!(samples(&json!({"item_id": ["a", "a"], "completion": ["x", "y"]})), both);
        assert_eq!(samples(&json!({"item_id": "a", "completion": "x"})), both[..1]);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let body = json!([{"item_id": 1}, {"item_id": "a", "completion": "x", "context": {"query": ""}}, 5]);
        let Err(problem) = read(body.to_string().as_bytes(), &settings()) else { panic!() };
        let fields: Vec<&str> = problem.errors().iter().map(|error| error.field.as_str()).collect();
        let expected = ["samples[0].item_id", "samples[0].completion", "samples[1].context.query", "samples[2]."];
        assert_eq!(fields, expected);
        assert!(read(b"[]", &settings()).is_err() && read(b"{", &settings()).is_err());
        let uneven = json!({"item_id": ["a"], "completion": ["x", "y"]}).to_string();
        assert!(read(uneven.as_bytes(), &settings()).is_err());
    }

    #[test]
    fn a_completion_is_what_follows_its_prompt() {
        let body = json!({"query": ["Q: a\nA: b</s>"], "prompts": ["Q: a\nA:"], "labels": ["d1"]}).to_string();
        let samples = openrlhf(body.as_bytes(), &settings()).unwrap();
        assert_eq!((samples[0].item_id.as_str(), samples[0].completion.as_str()), ("d1", "b"));
        let other = json!({"query": ["b"], "prompts": ["a"], "labels": ["d1"]}).to_string();
        assert_eq!(openrlhf(other.as_bytes(), &settings()).unwrap_err().errors()[0].field, "query[0]");
    }
}
