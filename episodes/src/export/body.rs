//! The JSON of an episode and of a shadow's answer, read without copying what is only passed on.

use std::borrow::Cow;
use std::fmt;

use recast_domain::Timings;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A text that is borrowed where it holds no escapes.
#[derive(Debug)]
pub(crate) struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Words)
    }
}

/// How many elements a list has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count(pub u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Count;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_seq(Counting)
    }
}

/// The sum of a list of numbers; `None` of an empty one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum(pub Option<f64>);

impl<'de> Deserialize<'de> for Sum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Adding;
        impl<'de> Visitor<'de> for Adding {
            type Value = Sum;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of numbers")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sum, A::Error> {
                let mut sum = None;
                while let Some(number) = list.next_element::<f64>()? {
                    sum = Some(sum.unwrap_or(0.0) + number);
                }
                Ok(Sum(sum))
            }
        }
        deserializer.deserialize_seq(Adding)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct ConversationText<'a> {
    #[serde(borrow)]
    pub query: Text<'a>,
    #[serde(borrow)]
    pub history: &'a RawValue,
    #[serde(borrow)]
    pub user_profile: Text<'a>,
    #[serde(borrow)]
    pub history_summary: Text<'a>,
    #[serde(borrow)]
    pub thought: Text<'a>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RequestText<'a> {
    #[serde(borrow)]
    pub kb_name: Text<'a>,
    pub top_k: u32,
    pub score_threshold: f64,
    #[serde(borrow)]
    pub user_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub conversation_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub request_id: Text<'a>,
    #[serde(borrow, default)]
    pub tags: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SamplingText {
    pub temperature: f64,
    pub top_p: f64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RewriteText<'a> {
    #[serde(borrow)]
    pub text: Text<'a>,
    #[serde(borrow)]
    pub source: Text<'a>,
    #[serde(borrow)]
    pub policy: Text<'a>,
    pub token_ids: Count,
    pub log_probs: Sum,
    pub prompt_tokens: u64,
    pub sampling: Option<SamplingText>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AssignmentText<'a> {
    #[serde(borrow)]
    pub experiment: Text<'a>,
    pub version: u32,
    #[serde(borrow)]
    pub arm: Text<'a>,
}

/// An episode, as far as a row needs it.
#[derive(Debug, Deserialize)]
pub(crate) struct Body<'a> {
    #[serde(borrow)]
    pub conversation: ConversationText<'a>,
    #[serde(borrow)]
    pub request: RequestText<'a>,
    #[serde(borrow)]
    pub rewrite: RewriteText<'a>,
    #[serde(borrow)]
    pub prompt_hash: Text<'a>,
    #[serde(borrow)]
    pub hits: &'a RawValue,
    pub timings: Timings,
    #[serde(borrow)]
    pub degraded: &'a RawValue,
    #[serde(default)]
    pub redacted: bool,
    #[serde(borrow, default)]
    pub experiment: Option<AssignmentText<'a>>,
}

/// A shadow's answer, as far as a row needs it.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer<'a> {
    #[serde(borrow)]
    pub rewrite: RewriteText<'a>,
    #[serde(borrow)]
    pub hits: &'a RawValue,
    pub timings: Timings,
    #[serde(borrow)]
    pub degraded: &'a RawValue,
}

/// What is known of a list of hits without its texts.
#[derive(Debug, Default)]
pub(crate) struct HitList<'a> {
    pub count: u64,
    pub top: Option<TopHit<'a>>,
}

/// A hit without its text.
#[derive(Debug, Deserialize)]
pub(crate) struct TopHit<'a> {
    #[serde(borrow)]
    pub id: Text<'a>,
    pub score: f64,
    pub reranker_score: Option<f64>,
}

impl<'de: 'a, 'a> Deserialize<'de> for HitList<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = HitList<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of hits")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<HitList<'de>, A::Error> {
                let top: Option<TopHit<'de>> = list.next_element()?;
                let mut count = u64::from(top.is_some());
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(HitList { count, top })
            }
        }
        deserializer.deserialize_seq(First)
    }
}

/// Whether a raw list holds nothing.
pub(crate) fn is_empty(list: &RawValue) -> bool {
    list.get().trim_start_matches('[').trim_start().starts_with(']')
}
