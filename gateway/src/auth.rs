//! Who is calling: the key decides the tenant.

use crate::keys::{Caller, KeyRing, Scope, now_ms};
use crate::problem::Problem;
use http::{HeaderMap, StatusCode, header};

/// The caller, if the request carries a live key of this scope.
///
/// # Errors
/// The same 401 for every missing or wrong key; 403 for a key that may not do this.
pub fn caller(ring: &KeyRing, headers: &HeaderMap, wanted: Scope) -> Result<Caller, Problem> {
    let caller = bearer(headers).and_then(|key| ring.verify(key, now_ms())).ok_or_else(unauthorised)?;
    if caller.scope.covers(wanted) {
        Ok(caller)
    } else {
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "scope",
            format!("this key may not do this: it needs the scope {wanted}"),
        ))
    }
}

/// Refuses a body that speaks for another tenant than the key.
///
/// # Errors
/// 403 when both are there and differ.
pub fn same_tenant(caller: &Caller, named: Option<&str>) -> Result<(), Problem> {
    match named {
        Some(named) if named != caller.tenant.as_str() => {
            let detail = "tenant_id is not the tenant of this key: leave it out, or use that tenant's key";
            Err(Problem::new(StatusCode::FORBIDDEN, "tenant", detail))
        }
        _ => Ok(()),
    }
}

fn unauthorised() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "a valid key is needed: authorization: Bearer rk_...")
}

/// The token of `authorization: Bearer ...`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyFile;
    use http::HeaderValue;
    use secrecy::ExposeSecret;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn scopes_and_tenants_are_held() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("keys.json"));
        let tenant: recast_domain::TenantId = "a".parse().unwrap();
        let serve = file.create(&tenant, Scope::Serve, None).unwrap();
        let admin = file.create(&tenant, Scope::Admin, None).unwrap();
        let ring = KeyRing::new(file.list().unwrap());
        let with = |key: &secrecy::SecretString| headers(&format!("bearer {}", key.expose_secret()));
        let found = caller(&ring, &with(&serve.text), Scope::Serve).unwrap();
        assert!(same_tenant(&found, Some("a")).is_ok() && same_tenant(&found, None).is_ok());
        assert_eq!(same_tenant(&found, Some("b")).unwrap_err().status(), StatusCode::FORBIDDEN);
        assert_eq!(caller(&ring, &with(&serve.text), Scope::Admin).unwrap_err().status(), StatusCode::FORBIDDEN);
        assert!(caller(&ring, &with(&admin.text), Scope::Serve).is_ok());
    }

    #[test]
    fn every_wrong_key_gets_the_same_answer() {
        let ring = KeyRing::default();
        let none = caller(&ring, &HeaderMap::new(), Scope::Serve).unwrap_err();
        for wrong in ["Bearer x", "Basic rk_a_b", "Bearer ", "rk_a_b"] {
            let problem = caller(&ring, &headers(wrong), Scope::Serve).unwrap_err();
            assert_eq!(format!("{problem:?}"), format!("{none:?}"));
        }
    }
}
