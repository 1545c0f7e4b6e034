use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::RetrievalError;

/// A value that metadata is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
}

/// What a field must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// One of these.
    Any(Vec<Scalar>),
    /// A number within bounds; at least one is given.
    Range {
        /// Above.
        gt: Option<f64>,
        /// At least.
        gte: Option<f64>,
        /// Below.
        lt: Option<f64>,
        /// At most.
        lte: Option<f64>,
    },
}

/// A condition on the passages of a search. All conditions of a search must hold.
///
/// As JSON: `{"key": "year", "equals": 2024}`, `{"key": "entity", "any": ["a", "b"]}`, `{"key": "price", "lte": 100}`,
/// each with an optional `"not": true`. Keys are metadata keys, or `doc_id`, `title`, `source`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawFilter")]
pub struct Filter {
    key: String,
    test: Test,
    not: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFilter {
    key: String,
    equals: Option<Scalar>,
    any: Option<Vec<Scalar>>,
    gt: Option<f64>,
    gte: Option<f64>,
    lt: Option<f64>,
    lte: Option<f64>,
    #[serde(default)]
    not: bool,
}

const OWN_KEYS: [&str; 3] = ["doc_id", "title", "source"];
const MAX_VALUES: usize = 64;

impl TryFrom<RawFilter> for Filter {
    type Error = RetrievalError;

    fn try_from(raw: RawFilter) -> Result<Self, RetrievalError> {
        let bounds = [raw.gt, raw.gte, raw.lt, raw.lte];
        let ranged = bounds.iter().any(Option::is_some);
        let test = match (raw.equals, raw.any, ranged) {
            (Some(value), None, false) => Test::Any(vec![value]),
            (None, Some(values), false) => Test::Any(values),
            (None, None, true) => Test::Range { gt: raw.gt, gte: raw.gte, lt: raw.lt, lte: raw.lte },
            _ => {
                return Err(RetrievalError::invalid(
                    "filters",
                    "give one of equals, any, or a range of gt, gte, lt, lte",
                ));
            }
        };
        Self::new(&raw.key, test, raw.not)
    }
}

impl Filter {
    /// A checked condition.
    ///
    /// # Errors
    /// A key that is no metadata key, or no value, or too many.
    pub fn new(key: &str, test: Test, not: bool) -> Result<Self, RetrievalError> {
        let legal = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ');
        if key.is_empty() || key.len() > 128 || !key.chars().all(legal) {
            return Err(RetrievalError::invalid(
                "filters.key",
                "must be 1 to 128 bytes of letters, digits, _, - or space",
            ));
        }
        if matches!(&test, Test::Any(values) if values.is_empty() || values.len() > MAX_VALUES) {
            return Err(RetrievalError::invalid("filters.any", format!("must hold 1 to {MAX_VALUES} values")));
        }
        let path = if OWN_KEYS.contains(&key) { key.to_owned() } else { format!("metadata.\"{key}\"") };
        Ok(Self { key: path, test, not })
    }

    /// The payload path.
    pub(crate) fn path(&self) -> &str {
        &self.key
    }

    pub(crate) fn test(&self) -> &Test {
        &self.test
    }

    pub(crate) fn is_negated(&self) -> bool {
        self.not
    }

    /// The condition in the engine's JSON form.
    pub(crate) fn to_json(&self) -> Value {
        match &self.test {
            Test::Any(values) => {
                let matches = values.iter().map(|value| {
                    let value = match value {
                        Scalar::Bool(value) => json!(value),
                        Scalar::Integer(value) => json!(value),
                        Scalar::Text(value) => json!(value),
                    };
                    json!({"key": self.key, "match": {"value": value}})
                });
                json!({"should": matches.collect::<Vec<_>>()})
            }
            Test::Range { gt, gte, lt, lte } => {
                json!({"key": self.key, "range": {"gt": gt, "gte": gte, "lt": lt, "lte": lte}})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<Filter, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn conditions_are_checked_when_read() {
        assert_eq!(parse(json!({"key": "entity", "equals": "x"})).unwrap().path(), "metadata.\"entity\"");
        assert_eq!(parse(json!({"key": "doc_id", "any": ["x", "y"]})).unwrap().path(), "doc_id");
        for bad in [
            json!({"key": "tenant_id\"", "equals": "x"}),
            json!({"key": "", "equals": "x"}),
            json!({"key": "a", "any": []}),
            json!({"key": "a"}),
            json!({"key": "a", "equals": 1, "lte": 2}),
            json!({"key": "a", "equal": 1}),
        ] {
            assert!(parse(bad.clone()).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn the_tenant_cannot_be_named_by_a_caller() {
        let filter = parse(json!({"key": "tenant_id", "equals": "other"})).unwrap();
        assert_eq!(filter.path(), "metadata.\"tenant_id\"");
    }
}
