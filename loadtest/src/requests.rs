//! The bodies that are sent, and under which tenant's key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::HeaderValue;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::error::Error;

/// A request that only needs to be put on the wire.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The JSON body.
    pub body: Bytes,
    /// `Bearer <key>`; `None` for a server without keys.
    pub authorization: Option<HeaderValue>,
}

/// A body with the tenant that asks.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantBody {
    /// `None` where the line names no tenant.
    pub tenant: Option<String>,
    /// The body to send.
    pub body: Value,
}

/// Which dialogues are sent, and how.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only dialogues of this split (`train`, `val`, `test`); all where `None`.
    pub split: Option<String>,
    /// Only these tenants; all where empty.
    pub tenants: Vec<String>,
    /// Sends the first gold rewrite as `rewritten_query`, so that the server skips its rewriter.
    pub with_gold: bool,
}

/// Turns one line of `dialogues.jsonl`, or a ready request body, into what is sent; `None` where the selection drops it.
///
/// A line with `gold_rewrites` is a dialogue; its tenant is `folder`. Any other object is sent as it stands, and its
/// tenant is its `tenant_id`.
///
/// # Errors
/// A sentence that says what is wrong with the line.
pub fn body_of_line(line: &str, folder: &str, selection: &Selection) -> Result<Option<TenantBody>, String> {
    let record: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| format!("not a JSON object: {error}"))?;
    if !record.get("query").is_some_and(Value::is_string) {
        return Err("query is missing: every line needs one".to_owned());
    }
    let Some(gold) = record.get("gold_rewrites") else {
        let tenant = record.get("tenant_id").and_then(Value::as_str).map(str::to_owned);
        return Ok(wanted(selection, tenant.as_deref()).then(|| TenantBody { tenant, body: Value::Object(record) }));
    };
    let in_split = selection.split.as_deref().is_none_or(|split| record.get("split").is_some_and(|own| own == split));
    if !in_split || !wanted(selection, Some(folder)) {
        return Ok(None);
    }
    let mut body = Map::new();
    for field in ["query", "history", "user_profile", "history_summary", "thought"] {
        if let Some(value) = record.get(field) {
            body.insert(field.to_owned(), value.clone());
        }
    }
    body.insert("tenant_id".to_owned(), json!(folder));
    if selection.with_gold {
        let first = gold.get(0).filter(|text| text.is_string());
        let first = first.ok_or("gold_rewrites is empty: give at least one, or run without --with-gold")?;
        body.insert("rewritten_query".to_owned(), first.clone());
    }
    Ok(Some(TenantBody { tenant: Some(folder.to_owned()), body: Value::Object(body) }))
}

fn wanted(selection: &Selection, tenant: Option<&str>) -> bool {
    selection.tenants.is_empty() || tenant.is_some_and(|tenant| selection.tenants.iter().any(|own| own == tenant))
}

/// `DIR/*/dialogues.jsonl`, in name order.
///
/// # Errors
/// The folder cannot be read.
pub fn dialogue_files(data: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(data).map_err(|source| Error::file(data, source))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path().join("dialogues.jsonl")).collect();
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

/// Reads the bodies of all files.
///
/// # Errors
/// A file cannot be read, a line is wrong, or nothing is left to send.
pub fn read_bodies(files: &[PathBuf], selection: &Selection) -> Result<Vec<TenantBody>, Error> {
    let mut bodies = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|source| Error::file(file, source))?;
        let folder = file.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let body = body_of_line(line, folder, selection).map_err(|problem| Error::Line {
                path: file.display().to_string(),
                line: index + 1,
                problem,
            })?;
            bodies.extend(body);
        }
    }
    if bodies.is_empty() {
        return Err(Error::Argument("no request is left to send: check --data, --requests, --split, --tenant".into()));
    }
    Ok(bodies)
}

/// Reads `tenant=key` lines; blank lines and lines that start with `#` are skipped.
///
/// # Errors
/// The file cannot be read, or a line is not `tenant=key`. The key is never part of the error.
pub fn read_keys(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::file(path, source))?;
    let mut keys = BTreeMap::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=').map(|(tenant, key)| (tenant.trim(), key.trim())) {
            Some((tenant, key)) if !tenant.is_empty() && !key.is_empty() => {
                keys.insert(tenant.to_owned(), key.to_owned());
            }
            _ => {
                let problem = "not of the form tenant=key".to_owned();
                return Err(Error::Line { path: path.display().to_string(), line: index + 1, problem });
            }
        }
    }
    Ok(keys)
}

/// Puts bodies and keys together, in an order drawn from `seed` so that tenants mix. Without keys nothing is
/// authorised; with keys each tenant needs one.
///
/// # Errors
/// A tenant has no key, or a key holds characters that a header cannot.
pub fn prepare(
    mut bodies: Vec<TenantBody>,
    keys: Option<&BTreeMap<String, String>>,
    seed: u64,
) -> Result<Vec<Prepared>, Error> {
    bodies.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let headers = keys.map(authorizations).transpose()?;
    let one = |TenantBody { tenant, body }: TenantBody| {
        let authorization = match &headers {
            None => None,
            Some(headers) => Some(header_of(headers, tenant.as_deref())?),
        };
        Ok(Prepared { body: Bytes::from(body.to_string()), authorization })
    };
    bodies.into_iter().map(one).collect()
}

fn authorizations(keys: &BTreeMap<String, String>) -> Result<BTreeMap<&str, HeaderValue>, Error> {
    let mut headers = BTreeMap::new();
    for (tenant, key) in keys {
        let mut header = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
            Error::Argument(format!("the key of tenant {tenant} holds characters that a header cannot carry"))
        })?;
        header.set_sensitive(true);
        headers.insert(tenant.as_str(), header);
    }
    Ok(headers)
}

fn header_of(headers: &BTreeMap<&str, HeaderValue>, tenant: Option<&str>) -> Result<HeaderValue, Error> {
    let found = match tenant {
        Some(tenant) => headers.get(tenant),
        // A body that names no tenant can only mean the one key there is.
        None if headers.len() == 1 => headers.values().next(),
        None => None,
    };
    found.cloned().ok_or_else(|| {
        let tenant = tenant.unwrap_or("(none named)");
        Error::Argument(format!(
            "no key for tenant {tenant}: add {tenant}=KEY to the keys file, or choose with --tenant"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALOGUE: &str = r#"{"id":"d1","conversation_id":"c1","split":"test","history":[{"role":"user","content":"胶原蛋白怎么吃"}],
        "query":"孕妇能喝吗","user_profile":"","history_summary":"","thought":"","gold_rewrites":["胶原蛋白肽 孕妇 能喝吗"],
        "relevant":[{"id":"p1","grade":2}],"query_type":"compliance"}"#;

    #[test]
    fn a_dialogue_becomes_a_request_without_its_labels() {
        let sent = body_of_line(DIALOGUE, "fivedoctors", &Selection::default()).unwrap().unwrap();
        assert_eq!(sent.tenant.as_deref(), Some("fivedoctors"));
        assert_eq!(sent.body["query"], "孕妇能喝吗");
        assert_eq!(sent.body["history"][0]["role"], "user");
        for label in ["gold_rewrites", "relevant", "split", "rewritten_query"] {
            assert!(sent.body.get(label).is_none(), "{label} was sent");
        }
    }

    #[test]
    fn gold_is_sent_only_when_asked() {
        let selection = Selection { with_gold: true, ..Selection::default() };
        let sent = body_of_line(DIALOGUE, "fivedoctors", &selection).unwrap().unwrap();
        assert_eq!(sent.body["rewritten_query"], "胶原蛋白肽 孕妇 能喝吗");
    }

    #[test]
    fn the_selection_drops_other_splits_and_tenants() {
        let train = Selection { split: Some("train".into()), ..Selection::default() };
        assert_eq!(body_of_line(DIALOGUE, "fivedoctors", &train), Ok(None));
        let other = Selection { tenants: vec!["chengla".into()], ..Selection::default() };
        assert_eq!(body_of_line(DIALOGUE, "fivedoctors", &other), Ok(None));
    }

    #[test]
    fn a_ready_body_is_sent_as_it_stands() {
        let line = r#"{"query":"q","tenant_id":"chengla","top_k":3}"#;
        let sent = body_of_line(line, "anything", &Selection::default()).unwrap().unwrap();
        assert_eq!((sent.tenant.as_deref(), &sent.body["top_k"]), (Some("chengla"), &json!(3)));
        assert!(body_of_line("[1]", "x", &Selection::default()).is_err());
        assert!(body_of_line(r#"{"q":1}"#, "x", &Selection::default()).is_err());
    }

    #[test]
    fn every_tenant_needs_a_key_and_no_key_is_shown() {
        let bodies = vec![TenantBody { tenant: Some("a".into()), body: json!({"query": "q"}) }];
        let keys = BTreeMap::from([("b".to_owned(), "rk_secret".to_owned())]);
        let error = prepare(bodies.clone(), Some(&keys), 0).unwrap_err().to_string();
        assert!(error.contains("no key for tenant a") && !error.contains("rk_secret"), "{error}");
        let keys = BTreeMap::from([("a".to_owned(), "rk_secret".to_owned())]);
        let prepared = prepare(bodies, Some(&keys), 0).unwrap();
        assert_eq!(prepared[0].authorization.as_ref().unwrap(), "Bearer rk_secret");
        assert!(!format!("{prepared:?}").contains("rk_secret"));
    }

    #[test]
    fn the_keys_file_names_the_bad_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "# demo\n\na = k1\nb\n").unwrap();
        assert!(read_keys(&path).unwrap_err().to_string().ends_with("keys:4: not of the form tenant=key"));
        std::fs::write(&path, "# demo\n\na = k=1\n").unwrap();
        assert_eq!(read_keys(&path).unwrap(), BTreeMap::from([("a".to_owned(), "k=1".to_owned())]));
    }
}
