//! Test doubles: a provider that plays a script, and what a model sees of a prompt.
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use recast_config::{JudgeSettings, Source, load};
use recast_domain::{Conversation, Role, TenantId, Turn};
use recast_judge::{JudgeBooks, JudgeItem, RawReply, StoredReply, Transport, VerdictKey};
use serde_json::{Value, json};

/// One thing that the provider does.
pub enum Step {
    /// Answers with this status, `Retry-After` in seconds, and body.
    Status(u16, Option<u64>, String),
    /// Answers with status 200 and this message in place of the model's.
    Message(Value, &'static str),
    /// Never answers.
    Hang,
    /// The connection breaks.
    Break,
    /// Scores honestly: see [`Provider::honest`].
    Score,
}

impl Step {
    pub fn status(status: u16) -> Self {
        Self::Status(status, None, "{}".to_owned())
    }

    pub fn content(content: &str) -> Self {
        Self::Message(json!({"content": content}), "stop")
    }
}

/// Scores the rewrites of a material: one number for all four dimensions, by the text of the rewrite.
pub type Scorer = Box<dyn Fn(&str) -> i64 + Send + Sync>;

/// A provider that plays its script and then repeats the last step's kind: scoring, or what `after` says.
pub struct Provider {
    script: Mutex<VecDeque<Step>>,
    after: fn() -> Step,
    score: Scorer,
    /// The bodies that were sent.
    pub sent: Mutex<Vec<Value>>,
}

impl Provider {
    pub fn new(script: impl IntoIterator<Item = Step>, after: fn() -> Step) -> Self {
        let script = Mutex::new(script.into_iter().collect());
        Self { script, after, score: Box::new(|text| text.chars().count() as i64 % 5 + 1), sent: Mutex::default() }
    }

    pub fn scoring(score: impl Fn(&str) -> i64 + Send + Sync + 'static) -> Self {
        Self { score: Box::new(score), ..Self::new([], || Step::Score) }
    }

    pub fn calls(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    fn honest(&self, body: &Value) -> String {
        let material = material(&messages(body).1);
        if let Some(rewrite) = material["rewrite"].as_str() {
            return row(None, (self.score)(rewrite)).to_string();
        }
        let rows = material["rewrites"].as_array().unwrap().iter();
        let rows: Vec<Value> =
            rows.map(|entry| row(entry["id"].as_str(), (self.score)(entry["text"].as_str().unwrap()))).collect();
        json!({ "entries": rows }).to_string()
    }
}

#[async_trait]
impl Transport for Provider {
    async fn post(&self, body: &Value) -> Result<RawReply, String> {
        self.sent.lock().unwrap().push(body.clone());
        let step = self.script.lock().unwrap().pop_front().unwrap_or_else(self.after);
        let good = |message: Value, finish: &str| RawReply {
            status: 200,
            retry_after: None,
            body: json!({
                "choices": [{"message": message, "finish_reason": finish}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 200}
            })
            .to_string(),
        };
        match step {
            Step::Status(status, retry_after, body) => {
                Ok(RawReply { status, retry_after: retry_after.map(Duration::from_secs), body })
            }
            Step::Message(message, finish) => Ok(good(message, finish)),
            Step::Hang => pending().await,
            Step::Break => Err("connection reset".to_owned()),
            Step::Score => Ok(good(json!({"content": self.honest(body)}), "stop")),
        }
    }
}

/// The same score in all dimensions, as a judge writes it.
pub fn row(id: Option<&str>, all: i64) -> Value {
    let mut row = json!({"改写质量": all, "领域适配": all, "意图保持": all, "可检索性": all, "评分理由": "双"});
    if let Some(id) = id {
        row["id"] = json!(id);
    }
    row
}

/// The system and the user message of a request.
pub fn messages(body: &Value) -> (String, String) {
    let text = |index: usize| body["messages"][index]["content"].as_str().unwrap().to_owned();
    (text(0), text(1))
}

/// The material in a user message, as an honest model reads it.
pub fn material(user: &str) -> Value {
    let line = user.lines().nth(1).unwrap();
    serde_json::from_str(&serde_json::from_str::<String>(line).unwrap()).unwrap()
}

/// The judge's section of the settings, with some keys changed.
pub fn settings(over: &[(&str, &str)]) -> JudgeSettings {
    let base = [("KIND", "\"openai\""), ("URL", "http://127.0.0.1:1/v1"), ("MODEL", "m"), ("CANARY_RATE", "0.0")];
    let env = base
        .iter()
        .chain(over)
        .map(|(key, value)| (format!("RECAST__JUDGE__{}", key.to_uppercase()), value.trim_matches('"').to_owned()));
    load(&Source::parse("demo"), env.collect::<Vec<_>>()).unwrap().settings.judge
}

/// A question of a shop's.
pub fn item(query: &str) -> JudgeItem {
    let turn = |role, content: &str| Turn { role, content: content.to_owned() };
    JudgeItem {
        tenant: "shop".parse().unwrap(),
        domain: "营养保健食品".to_owned(),
        terms: Vec::new(),
        conversation: Conversation {
            query: query.to_owned(),
            history: vec![turn(Role::User, "胶原蛋白肽饮怎么样"), turn(Role::Assistant, "卖得很好")],
            ..Conversation::default()
        },
        passages: Vec::new(),
        repeat: 0,
    }
}

/// Books that outlive a judge, in memory.
#[derive(Default)]
pub struct Books {
    pub replies: Mutex<HashMap<(TenantId, VerdictKey), StoredReply>>,
    pub costs: Mutex<HashMap<(TenantId, u64), f64>>,
}

#[async_trait]
impl JudgeBooks for Books {
    async fn reply(&self, tenant: &TenantId, key: &VerdictKey) -> Result<Option<StoredReply>, String> {
        Ok(self.replies.lock().unwrap().get(&(tenant.clone(), *key)).cloned())
    }

    async fn keep(&self, tenant: &TenantId, key: &VerdictKey, reply: &StoredReply, _: i64) -> Result<(), String> {
        self.replies.lock().unwrap().insert((tenant.clone(), *key), reply.clone());
        Ok(())
    }

    async fn cost(&self, tenant: &TenantId, day: u64) -> Result<f64, String> {
        Ok(self.costs.lock().unwrap().get(&(tenant.clone(), day)).copied().unwrap_or_default())
    }

    async fn add_cost(&self, tenant: &TenantId, day: u64, cost: f64) -> Result<(), String> {
        *self.costs.lock().unwrap().entry((tenant.clone(), day)).or_default() += cost;
        Ok(())
    }
}
