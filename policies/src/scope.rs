use std::fmt;
use std::str::FromStr;

use recast_domain::{IdError, TenantId};
use serde::{Deserialize, Serialize};

/// Folder and text of [`Scope::Everyone`].
const DEFAULT: &str = "default";

/// Whose policies these are: one tenant's, or those of all tenants that have none of their own.
///
/// As text it is the tenant's id, or `default`; a tenant of that name therefore has no policies apart from everyone's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// Tenants without an active policy of their own.
    Everyone,
    /// One tenant.
    Tenant(TenantId),
}

impl Scope {
    /// The text of the scope, which is also the name of its folder.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Everyone => DEFAULT,
            Self::Tenant(tenant) => tenant.as_str(),
        }
    }
}

impl From<TenantId> for Scope {
    fn from(tenant: TenantId) -> Self {
        if tenant.as_str() == DEFAULT { Self::Everyone } else { Self::Tenant(tenant) }
    }
}

impl FromStr for Scope {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse::<TenantId>().map(Self::from)
    }
}

impl TryFrom<String> for Scope {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.as_str().to_owned()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str(DEFAULT),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_one_folder_below_the_store() {
        assert_eq!("default".parse::<Scope>().unwrap(), Scope::Everyone);
        assert_eq!("acme".parse::<Scope>().unwrap().as_str(), "acme");
        for bad in ["", "..", "a/b", ".hidden", "A"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn it_is_text_in_json() {
        let scope: Scope = serde_json::from_str("\"acme\"").unwrap();
        assert_eq!(serde_json::to_string(&scope).unwrap(), "\"acme\"");
        assert!(serde_json::from_str::<Scope>("\"../x\"").is_err());
    }
}
