use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: use 1 to {max} characters out of {alphabet}")]
pub struct IdError {
    what: &'static str,
    text: String,
    max: usize,
    alphabet: &'static str,
}

fn checked(what: &'static str, text: &str, max: usize, extra: &[char]) -> Result<String, IdError> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || extra.contains(&c);
    if text.is_empty() || text.len() > max || !text.chars().all(legal) || text.starts_with('.') {
        return Err(IdError {
            what,
            text: text.chars().take(80).collect(),
            max,
            alphabet: if extra.contains(&'.') { "a-z 0-9 _ - . (not first)" } else { "a-z 0-9 _ -" },
        });
    }
    Ok(text.to_owned())
}

macro_rules! checked_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $extra:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                checked($what, text, $max, $extra).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_id!(
    /// A tenant. Every store, cache and search call asks for one, so that no call can forget it.
    TenantId, "tenant_id", 64, &['_', '-']
);
checked_id!(
    /// A knowledge base of a tenant; `default` where the caller names none.
    KbName, "kb_name", 64, &['_', '-', '.']
);
checked_id!(
    /// The identity of a rewriting policy: the content hash of a model, or the name of a fixed one (`pass-through`, `remote`).
    PolicyId, "policy", 96, &['_', '-', '.']
);

impl Default for KbName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl PolicyId {
    /// The policy that answers with the user's own query.
    #[must_use]
    pub fn pass_through() -> Self {
        Self("pass-through".to_owned())
    }

    /// The policy of a rewrite that the caller brought along.
    #[must_use]
    pub fn given() -> Self {
        Self("given".to_owned())
    }

    /// The 32B rewrite service.
    #[must_use]
    pub fn remote() -> Self {
        Self("remote".to_owned())
    }
}

/// One answered request. Time-ordered (UUID version 7), so that a list by id is a list by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpisodeId(pub Uuid);

impl EpisodeId {
    /// A fresh id for an episode that starts now.
    #[must_use]
    pub fn now() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for EpisodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EpisodeId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_ids_are_short_lowercase_words() {
        assert!("fivedoctors".parse::<TenantId>().is_ok());
        for bad in ["", "Five", "a b", "../etc", "汉", "a\0"] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad:?} must be refused");
        }
        assert!("x".repeat(65).parse::<TenantId>().is_err());
    }

    #[test]
    fn a_knowledge_base_cannot_climb_out_of_its_folder() {
        assert!("faq.v2".parse::<KbName>().is_ok());
        assert!("..".parse::<KbName>().is_err());
    }

    #[test]
    fn ids_are_checked_when_read() {
        assert!(serde_json::from_str::<TenantId>("\"A\"").is_err());
    }
}
