//! `/general_rag` on the wire: what a request may say, and what a reply says.

use std::collections::BTreeMap;

use recast_config::{LimitSettings, RetrievalSettings};
use recast_domain::{
    Conversation, Degradation, EpisodeId, KbName, Legs, Metadata, PolicyId, RewriteSource, Role, Timings, Trace, Turn,
    parse_history,
};
use recast_retrieval::store::{Filter, Scalar, Test};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::problem::{FieldError, Problem};

const ID_CHARS: usize = 256;
/// Tags of a request.
const TAGS: usize = 16;
/// Characters of a tag's name.
const TAG_CHARS: usize = 64;

/// A request as it came: JSON, with no field held against its meaning yet. Unknown fields are ignored; null is absent.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = RagRequest)]
pub struct RawRequest {
    /// The question as the user typed it; required.
    #[schema(value_type = String, required = true)]
    query: Option<Value>,
    /// The key's tenant; another one is refused.
    #[schema(value_type = Option<String>)]
    tenant_id: Option<Value>,
    /// Knowledge base; `default` if absent.
    #[schema(value_type = Option<String>)]
    kb_name: Option<Value>,
    /// Earlier turns: one text (`用户: ...\n助手: ...`) or a list of `{role, content}`.
    #[schema(value_type = Option<Object>)]
    history: Option<Value>,
    /// What is known of the asker.
    #[schema(value_type = Option<String>)]
    user_profile: Option<Value>,
    /// A summary of turns that were cut.
    #[schema(value_type = Option<String>)]
    history_summary: Option<Value>,
    /// The caller's note on the intent.
    #[schema(value_type = Option<String>)]
    thought: Option<Value>,
    /// Hits wanted; clamped to what the server allows.
    #[schema(value_type = Option<u32>)]
    top_k: Option<Value>,
    /// Relevance below which hits are left out, 0 to 1.
    #[schema(value_type = Option<f32>)]
    score_threshold: Option<Value>,
    /// Searched as it is, instead of a rewrite of ours.
    #[schema(value_type = Option<String>)]
    rewritten_query: Option<Value>,
    /// What the metadata of a hit must be: `{"aspect": "price"}`, `{"aspect": ["price", "size"]}` for any of these, or a
    /// list of conditions `{"key": "year", "gte": 2024}`.
    #[schema(value_type = Option<Object>)]
    filters: Option<Value>,
    /// The asker; the unit of erasure.
    #[schema(value_type = Option<String>)]
    user_id: Option<Value>,
    /// The conversation.
    #[schema(value_type = Option<String>)]
    conversation_id: Option<Value>,
    /// Marks by which the episode is found again, such as `{"channel": "app"}`: at most 16 texts by name.
    #[schema(value_type = Option<Object>)]
    tags: Option<Value>,
}

/// A request whose every field makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct RagRequest {
    /// The question and its context.
    pub conversation: Conversation,
    /// The knowledge base to search.
    pub kb_name: KbName,
    /// Hits wanted, within the server's bound.
    pub top_k: u32,
    /// Relevance below which hits are left out, 0 to 1.
    pub score_threshold: f32,
    /// A rewrite that the caller brought along.
    pub rewritten_query: Option<String>,
    /// Conditions that every hit meets.
    pub filters: Vec<Filter>,
    /// The asker.
    pub user_id: Option<String>,
    /// The conversation.
    pub conversation_id: Option<String>,
    /// Marks by which the episode is found again.
    pub tags: BTreeMap<String, String>,
}

impl RawRequest {
    /// Reads JSON.
    ///
    /// # Errors
    /// 400 for anything that is not a JSON object in UTF-8, or nests deeper than 127 levels.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        // An array would pass as a struct's fields in order.
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Problem::malformed("the body must be a JSON object"));
        }
        serde_json::from_slice(body).map_err(|error| Problem::malformed(format!("the body is not valid JSON: {error}")))
    }

    /// The tenant that the body names, if it names one.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant_id.as_ref().and_then(Value::as_str)
    }

    /// Holds every field against its meaning.
    ///
    /// # Errors
    /// 422 naming every field that is wrong.
    pub fn check(self, limits: &LimitSettings, defaults: &RetrievalSettings) -> Result<RagRequest, Problem> {
        let mut faults = Faults::default();
        let query = faults.text("query", self.query, limits.query_chars).unwrap_or_default();
        if query.trim().is_empty() && !faults.names("query") {
            faults.add("query", "is missing or empty: give the user's question");
        }
        faults.text("tenant_id", self.tenant_id, usize::MAX);
        let kb_name = match faults.text("kb_name", self.kb_name, usize::MAX) {
            None => KbName::default(),
            Some(name) => name.parse().unwrap_or_else(|error: recast_domain::IdError| {
                faults.add("kb_name", error.to_string());
                KbName::default()
            }),
        };
        let history = faults.history(self.history, limits);
        let context = limits.context_chars;
        let conversation = Conversation {
            query,
            history,
            user_profile: faults.text("user_profile", self.user_profile, context).unwrap_or_default(),
            history_summary: faults.text("history_summary", self.history_summary, context).unwrap_or_default(),
            thought: faults.text("thought", self.thought, context).unwrap_or_default(),
        };
        let rewritten = faults.text("rewritten_query", self.rewritten_query, limits.rewritten_query_chars);
        let request = RagRequest {
            conversation: conversation.without_repeated_question(),
            kb_name,
            top_k: faults.top_k(self.top_k, limits.top_k).unwrap_or(defaults.top_k),
            score_threshold: faults.threshold(self.score_threshold).unwrap_or(defaults.score_threshold),
            rewritten_query: rewritten.filter(|text| !text.trim().is_empty()),
            filters: faults.filters(self.filters, limits.filters),
            user_id: faults.text("user_id", self.user_id, ID_CHARS).filter(|id| !id.is_empty()),
            conversation_id: faults.text("conversation_id", self.conversation_id, ID_CHARS).filter(|id| !id.is_empty()),
            tags: faults.tags(self.tags),
        };
        if faults.0.is_empty() { Ok(request) } else { Err(Problem::fields(faults.0)) }
    }
}

/// Collects what is wrong, so that a caller learns of all of it at once.
#[derive(Default)]
struct Faults(Vec<FieldError>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), message: message.into() });
    }

    fn names(&self, field: &str) -> bool {
        self.0.iter().any(|fault| fault.field == field)
    }

    fn text(&mut self, field: &str, value: Option<Value>, max_chars: usize) -> Option<String> {
        match value? {
            Value::String(text) if too_long(&text, max_chars) => {
                self.add(field, format!("has more than {max_chars} characters"));
                None
            }
            Value::String(text) => Some(text),
            _ => {
                self.add(field, "must be a text");
                None
            }
        }
    }

    fn history(&mut self, value: Option<Value>, limits: &LimitSettings) -> Vec<Turn> {
        let turns = match value {
            None => Vec::new(),
            Some(Value::String(text)) => parse_history(&text),
            Some(Value::Array(items)) => {
                let turns = items.into_iter().enumerate().filter_map(|(index, item)| self.turn(index, item));
                turns.filter(|turn| !turn.content.trim().is_empty()).collect()
            }
            Some(_) => {
                self.add("history", "must be a text or a list of {role, content}");
                Vec::new()
            }
        };
        if turns.len() > limits.history_turns {
            self.add("history", format!("has more than {} turns: send the newest", limits.history_turns));
        }
        let chars: usize = turns.iter().map(|turn| turn.content.chars().count()).sum();
        if chars > limits.history_chars {
            self.add("history", format!("has more than {} characters: send the newest turns", limits.history_chars));
        }
        turns
    }

    fn turn(&mut self, index: usize, item: Value) -> Option<Turn> {
        let Value::Object(mut turn) = item else {
            self.add(format!("history[{index}]"), "must be an object {role, content}");
            return None;
        };
        let role = match turn.get("role").and_then(Value::as_str) {
            Some("user") => Some(Role::User),
            Some("assistant") => Some(Role::Assistant),
            _ => {
                self.add(format!("history[{index}].role"), "must be \"user\" or \"assistant\"");
                None
            }
        };
        let content = match turn.get_mut("content").map(Value::take) {
            Some(Value::String(content)) => Some(content),
            _ => {
                self.add(format!("history[{index}].content"), "must be a text");
                None
            }
        };
        Some(Turn { role: role?, content: content? })
    }

    fn top_k(&mut self, value: Option<Value>, max: u32) -> Option<u32> {
        let value = value?;
        let clamped = if let Some(number) = value.as_i64() {
            Some(number.clamp(1, i64::from(max)))
        } else if value.is_u64() {
            Some(i64::from(max))
        } else {
            None
        };
        if clamped.is_none() {
            self.add("top_k", "must be a whole number");
        }
        clamped.and_then(|number| u32::try_from(number).ok())
    }

    fn threshold(&mut self, value: Option<Value>) -> Option<f32> {
        let number = value?.as_f64().filter(|number| (0.0..=1.0).contains(number));
        if number.is_none() {
            self.add("score_threshold", "must be a number from 0 to 1");
        }
        #[expect(clippy::cast_possible_truncation, reason = "a number from 0 to 1 only loses digits")]
        number.map(|number| number as f32)
    }

    fn tags(&mut self, value: Option<Value>) -> BTreeMap<String, String> {
        let given = match value {
            None => return BTreeMap::new(),
            Some(Value::Object(map)) if map.len() <= TAGS => map,
            Some(Value::Object(_)) => {
                self.add("tags", format!("has more than {TAGS} names"));
                return BTreeMap::new();
            }
            Some(_) => {
                self.add("tags", "must be an object {name: text}");
                return BTreeMap::new();
            }
        };
        let mut tags = BTreeMap::new();
        for (name, value) in given {
            // a filter writes name=value
            let named = !name.is_empty() && !too_long(&name, TAG_CHARS) && !name.contains('=');
            if !named {
                let message = format!("a name must have 1 to {TAG_CHARS} characters and no =");
                self.add(shown("tags", &name), message);
            } else if let Some(text) = self.text(&shown("tags", &name), Some(value), ID_CHARS) {
                tags.insert(name, text);
            }
        }
        tags
    }

    fn filters(&mut self, value: Option<Value>, max: usize) -> Vec<Filter> {
        let conditions: Vec<(String, Result<Filter, String>)> = match value {
            None => return Vec::new(),
            Some(Value::Object(map)) => {
                map.into_iter().map(|(key, value)| (shown("filters", &key), equals(&key, value))).collect()
            }
            Some(Value::Array(items)) => {
                let parse = |item| serde_json::from_value(item).map_err(|error: serde_json::Error| error.to_string());
                items.into_iter().enumerate().map(|(index, item)| (format!("filters[{index}]"), parse(item))).collect()
            }
            Some(_) => {
                self.add("filters", "must be an object {key: value} or a list of conditions {key, equals}");
                return Vec::new();
            }
        };
        if conditions.len() > max {
            self.add("filters", format!("has more than {max} conditions"));
            return Vec::new();
        }
        let mut filters = Vec::with_capacity(conditions.len());
        for (field, condition) in conditions {
            match condition {
                Ok(filter) => filters.push(filter),
                Err(message) => self.add(field, message),
            }
        }
        filters
    }
}

fn shown(field: &str, key: &str) -> String {
    format!("{field}.{}", key.chars().take(64).collect::<String>())
}

/// The short form of a condition: `key: value`, or `key: [value, ...]` for any of these.
fn equals(key: &str, value: Value) -> Result<Filter, String> {
    let values = if let Value::Array(values) = value { values } else { vec![value] };
    let scalars: Result<Vec<Scalar>, _> = values.into_iter().map(serde_json::from_value).collect();
    let message = "must be a text, a whole number, true or false, or a list of these";
    let scalars = scalars.map_err(|_| message.to_owned())?;
    Filter::new(key, Test::Any(scalars), false).map_err(|error| error.to_string())
}

fn too_long(text: &str, max_chars: usize) -> bool {
    // The length in bytes is at hand, and is never below the length in characters.
    text.len() > max_chars && text.chars().count() > max_chars
}

/// A reply.
#[derive(Debug, Serialize, ToSchema)]
pub struct RagReply<'a> {
    /// The operators' contract.
    pub data: RagData<'a>,
    /// Where this exchange is remembered.
    #[schema(value_type = String)]
    pub episode_id: EpisodeId,
    /// Whether it is.
    pub episode_stored: bool,
    /// Which policy wrote the query.
    #[schema(value_type = String)]
    pub policy: &'a PolicyId,
    /// How the query came about.
    #[schema(value_type = String)]
    pub rewrite_source: RewriteSource,
    /// What did not work as meant.
    #[schema(value_type = Vec<String>)]
    pub degraded: &'a [Degradation],
    /// Wall time by stage.
    #[schema(value_type = Object)]
    pub timings: Timings,
}

/// The operators' contract.
#[derive(Debug, Serialize, ToSchema)]
pub struct RagData<'a> {
    /// The query that was searched.
    pub rewritten_query: &'a str,
    /// As received.
    pub user_profile: &'a str,
    /// As received.
    pub history_summary: &'a str,
    /// What was found, best first.
    pub recall: Vec<RecallItem<'a>>,
}

/// A hit.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecallItem<'a> {
    /// The passage's text.
    pub content: &'a str,
    /// Calibrated similarity, 0 to 1.
    pub score: f32,
    /// Calibrated score of the reranker, 0 to 1; null where it did not run on this passage.
    pub reranker_score: Option<f32>,
    /// Passage id.
    pub id: &'a str,
    /// Document id.
    pub doc_id: &'a str,
    /// The document's title.
    pub title: &'a str,
    /// Where the document came from.
    pub source: &'a str,
    /// The knowledge base.
    #[schema(value_type = String)]
    pub kb_name: &'a KbName,
    /// Facts of the passage.
    #[schema(value_type = Object)]
    pub metadata: &'a Metadata,
    /// 1 is the best.
    pub rank: u32,
    /// Rank and score in each leg: `{"bm25": {"rank", "score"}, "dense": ...}`.
    #[schema(value_type = Object)]
    pub legs: Legs,
}

impl<'a> RagReply<'a> {
    /// The reply to a run of the pipeline.
    #[must_use]
    pub fn new(conversation: &'a Conversation, trace: &'a Trace, episode_id: EpisodeId, episode_stored: bool) -> Self {
        let recall = trace.hits.iter().map(|hit| RecallItem {
            content: &hit.passage.text,
            score: hit.score,
            reranker_score: hit.reranker_score,
            id: &hit.passage.id,
            doc_id: &hit.passage.doc_id,
            title: &hit.passage.title,
            source: &hit.passage.source,
            kb_name: &hit.passage.kb_name,
            metadata: &hit.passage.metadata,
            rank: hit.rank,
            legs: hit.legs,
        });
        Self {
            data: RagData {
                rewritten_query: &trace.rewrite.text,
                user_profile: &conversation.user_profile,
                history_summary: &conversation.history_summary,
                recall: recall.collect(),
            },
            episode_id,
            episode_stored,
            policy: &trace.rewrite.policy,
            rewrite_source: trace.rewrite.source,
            degraded: &trace.degraded,
            timings: trace.timings,
        }
    }
}

#[cfg(test)]
#[path = "dto_tests.rs"]
mod tests;
