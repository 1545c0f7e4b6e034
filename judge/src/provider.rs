//! What each kind of service understands. A parameter that a service does not know is answered with status 400, so
//! the request is made from this table and never tried out.
use recast_config::JudgeProvider;
use serde_json::{Map, Value, json};

/// The name of the parameter that bounds a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenLimit {
    /// `max_tokens`.
    MaxTokens,
    /// `max_completion_tokens`; the model's hidden reasoning counts too.
    MaxCompletionTokens,
}

/// What a service understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether a temperature may be sent.
    pub temperature: bool,
    /// How a reply is bounded.
    pub token_limit: TokenLimit,
    /// Whether a JSON schema is enforced; else only "some JSON object" can be asked for.
    pub json_schema: bool,
    /// Whether a seed may be sent.
    pub seed: bool,
    /// Tokens on top of the reply's, for reasoning that is not shown.
    pub reasoning_tokens: u32,
}

/// Low, so that the same question has nearly the same scores.
pub(crate) const TEMPERATURE: f64 = 0.1;
const SEED: u32 = 7;

impl Capabilities {
    /// The row of one provider.
    #[must_use]
    pub fn of(provider: JudgeProvider) -> Self {
        let plain = Self {
            temperature: true,
            token_limit: TokenLimit::MaxTokens,
            json_schema: true,
            seed: true,
            reasoning_tokens: 0,
        };
        match provider {
            JudgeProvider::Gpt5 => Self {
                temperature: false,
                token_limit: TokenLimit::MaxCompletionTokens,
                seed: false,
                reasoning_tokens: 4000,
                ..plain
            },
            JudgeProvider::Openai | JudgeProvider::Vllm => plain,
            JudgeProvider::Deepseek => Self { json_schema: false, seed: false, ..plain },
            JudgeProvider::Local => Self { json_schema: false, ..plain },
        }
    }

    /// The body of a chat request.
    pub(crate) fn body(self, model: &str, system: &str, user: &str, reply_tokens: u32, schema: &Value) -> Value {
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(model));
        let messages = json!([{"role": "system", "content": system}, {"role": "user", "content": user}]);
        body.insert("messages".to_owned(), messages);
        if self.temperature {
            body.insert("temperature".to_owned(), json!(TEMPERATURE));
        }
        if self.seed {
            body.insert("seed".to_owned(), json!(SEED));
        }
        let limit = match self.token_limit {
            TokenLimit::MaxTokens => "max_tokens",
            TokenLimit::MaxCompletionTokens => "max_completion_tokens",
        };
        body.insert(limit.to_owned(), json!(self.total_tokens(reply_tokens)));
        let format = if self.json_schema {
            json!({"type": "json_schema", "json_schema": {"name": "verdict", "strict": true, "schema": schema}})
        } else {
            json!({"type": "json_object"})
        };
        body.insert("response_format".to_owned(), format);
        Value::Object(body)
    }

    pub(crate) fn total_tokens(self, reply_tokens: u32) -> u32 {
        reply_tokens.saturating_add(self.reasoning_tokens)
    }
}

/// What to change when a service refuses a parameter.
pub(crate) fn fix(parameter: &str, message: &str) -> String {
    let names = |word: &str| parameter == word || message.contains(word);
    let advice = if names("max_completion_tokens") && !message.contains("max_tokens'") {
        "this service wants max_tokens: set judge.provider to openai, deepseek, vllm or local"
    } else if names("max_tokens") || names("temperature") {
        "this model takes no temperature or no max_tokens: set judge.provider = \"gpt5\""
    } else if names("response_format") || names("json_schema") || names("schema") {
        "this service enforces no JSON schema: set judge.provider to deepseek or local"
    } else if names("seed") {
        "this service takes no seed: set judge.provider = \"deepseek\""
    } else {
        "check judge.provider, judge.model and judge.url"
    };
    advice.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(provider: JudgeProvider) -> Vec<String> {
        let body = Capabilities::of(provider).body("m", "s", "u", 500, &json!({}));
        let mut keys: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    }

    #[test]
    fn each_service_is_sent_what_it_understands() {
        let plain = ["max_tokens", "messages", "model", "response_format", "seed", "temperature"];
        assert_eq!(keys(JudgeProvider::Gpt5), ["max_completion_tokens", "messages", "model", "response_format"]);
        assert_eq!(keys(JudgeProvider::Openai), plain);
        assert_eq!(keys(JudgeProvider::Vllm), plain);
        assert_eq!(keys(JudgeProvider::Local), plain);
        assert_eq!(
            keys(JudgeProvider::Deepseek),
            ["max_tokens", "messages", "model", "response_format", "temperature"]
        );
        for (provider, kind) in [
            (JudgeProvider::Gpt5, "json_schema"),
            (JudgeProvider::Vllm, "json_schema"),
            (JudgeProvider::Deepseek, "json_object"),
            (JudgeProvider::Local, "json_object"),
        ] {
            let body = Capabilities::of(provider).body("m", "s", "u", 500, &json!({}));
            assert_eq!(body["response_format"]["type"], kind, "{provider:?}");
        }
        let gpt5 = Capabilities::of(JudgeProvider::Gpt5).body("m", "s", "u", 500, &json!({}));
        assert_eq!(gpt5["max_completion_tokens"], 4500, "hidden reasoning has its room");
    }

    #[test]
    fn a_refused_parameter_is_answered_with_the_fix() {
        let words =
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.";
        assert!(fix("max_tokens", words).contains("gpt5"));
        assert!(fix("temperature", "").contains("gpt5"));
        assert!(fix("max_completion_tokens", "unknown field").contains("max_tokens"));
        assert!(fix("response_format", "").contains("deepseek"));
        assert!(fix("seed", "").contains("deepseek"));
        assert!(fix("", "no such thing").contains("judge.model"));
    }
}
