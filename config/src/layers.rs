use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::Settings;
use crate::checks;

const DEFAULTS: &str = include_str!("../profiles/default.toml");

/// The shipped profiles by name.
pub const PROFILES: [(&str, &str); 2] =
    [("demo", include_str!("../profiles/demo.toml")), ("production", include_str!("../profiles/production.toml"))];

const ENV_PREFIX: &str = "RECAST__";
const SECRETS: [&str; 7] = [
    "episodes.url",
    "rewriter.remote.api_key",
    "retrieval.qdrant.api_key",
    "embedder.api_key",
    "reranker.api_key",
    "judge.api_key",
    "shadow.remote.api_key",
];

/// One thing wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's path (`server.listen`), or the file where no key can be named.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

/// Every problem of a configuration, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one problem.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the configuration has {} problem(s):", self.problems.len())?;
        for problem in &self.problems {
            writeln!(f, "  {}: {}", problem.key, problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Where the layer over the defaults comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A shipped profile, by name.
    Profile(String),
    /// A TOML file.
    File(PathBuf),
}

impl Source {
    /// Reads what a person typed: the name of a shipped profile, or else a path.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if PROFILES.iter().any(|(name, _)| *name == text) {
            Self::Profile(text.to_owned())
        } else {
            Self::File(PathBuf::from(text))
        }
    }
}

/// Checked settings, and the merged table they came from.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The typed settings.
    pub settings: Settings,
    table: Table,
}

impl Effective {
    /// The merged settings as TOML, with secrets masked.
    #[must_use]
    pub fn display(&self) -> String {
        let mut table = self.table.clone();
        for path in SECRETS {
            if let Some(Value::String(text)) = lookup_mut(&mut table, path)
                && !text.is_empty()
            {
                *text = "***".to_owned();
            }
        }
        table.to_string()
    }
}

fn lookup_mut<'a>(table: &'a mut Table, path: &str) -> Option<&'a mut Value> {
    match path.split_once('.') {
        None => table.get_mut(path),
        Some((head, rest)) => lookup_mut(table.get_mut(head)?.as_table_mut()?, rest),
    }
}

/// Merges the shipped defaults, `source` and the overrides in `env` (`RECAST__SECTION__KEY`), and checks the whole.
///
/// The environment is passed in, so that tests never touch the process's own.
///
/// # Errors
/// All problems at once: unreadable or malformed files, unknown keys, wrong types, values that make no sense.
pub fn load(source: &Source, env: impl IntoIterator<Item = (String, String)>) -> Result<Effective, ConfigError> {
    let mut problems = Vec::new();
    let mut table = defaults()?;
    let schema = table.clone();

    match layer(source) {
        Ok(over) => overlay(&mut table, over, &schema, "", &mut problems),
        Err(problem) => problems.push(problem),
    }
    for (name, text) in env.into_iter().collect::<BTreeMap<_, _>>() {
        // The runtime's own variable; it sorts before ours, so that ours wins.
        let path = if name == "ORT_DYLIB_PATH" { Some("ONNXRUNTIME__LIBRARY") } else { name.strip_prefix(ENV_PREFIX) };
        if let Some(path) = path {
            match env_layer(&path.to_lowercase().replace("__", "."), &text, &schema) {
                Ok(over) => overlay(&mut table, over, &schema, "", &mut problems),
                Err(message) => problems.push(Problem::new(name, message)),
            }
        }
    }
    // A choice outside its list is found here, section by section, so that one does not hide another.
    problems.extend(section_problems(&table));
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let settings = from_table::<Settings>(table.clone()).map_err(|message| one("settings", message))?;
    let problems = checks::problems(&settings);
    if problems.is_empty() { Ok(Effective { settings, table }) } else { Err(ConfigError { problems }) }
}

fn one(key: &str, message: impl Into<String>) -> ConfigError {
    ConfigError { problems: vec![Problem::new(key, message)] }
}

fn defaults() -> Result<Table, ConfigError> {
    DEFAULTS.parse::<Table>().map_err(|error| one("profiles/default.toml", error.to_string()))
}

fn layer(source: &Source) -> Result<Table, Problem> {
    let (name, text) = match source {
        Source::Profile(name) => {
            let shipped = PROFILES.iter().find(|(known, _)| known == name);
            let (_, text) = shipped.ok_or_else(|| Problem::new(name, "no shipped profile has this name"))?;
            (name.clone(), (*text).to_owned())
        }
        Source::File(path) => (path.display().to_string(), read(path)?),
    };
    text.parse::<Table>().map_err(|error| Problem::new(name, error.to_string().trim_end().to_owned()))
}

fn read(path: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(path).map_err(|error| {
        let profiles = PROFILES.map(|(name, _)| name).join(", ");
        Problem::new(
            path.display().to_string(),
            format!("cannot be read ({error}); give a TOML file or one of the shipped profiles: {profiles}"),
        )
    })
}

/// Lays `over` on `base`; keys and types must be those of `schema`.
fn overlay(base: &mut Table, over: Table, schema: &Table, prefix: &str, problems: &mut Vec<Problem>) {
    for (key, value) in over {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let Some(expected) = schema.get(&key) else {
            problems.push(Problem::new(path, unknown_key(&key, schema)));
            continue;
        };
        match (expected, value) {
            (Value::Table(schema), Value::Table(over)) => {
                if let Some(Value::Table(base)) = base.get_mut(&key) {
                    overlay(base, over, schema, &path, problems);
                }
            }
            (Value::Float(_), Value::Integer(number)) => {
                #[expect(clippy::cast_precision_loss, reason = "settings are small numbers")]
                base.insert(key, Value::Float(number as f64));
            }
            (expected, value) if expected.same_type(&value) => {
                base.insert(key, value);
            }
            (expected, value) => problems
                .push(Problem::new(path, format!("expected {}, found {}", type_name(expected), type_name(&value)))),
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Float(_) => "a number",
        Value::Integer(_) => "a whole number",
        Value::String(_) => "a text",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
        Value::Datetime(_) => "a date",
    }
}

fn unknown_key(key: &str, schema: &Table) -> String {
    let nearest = schema.keys().map(|known| (edit_distance(key, known), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 3 => format!("unknown key; did you mean {known}?"),
        _ => {
            let known: Vec<_> = schema.keys().map(String::as_str).collect();
            format!("unknown key; known here: {}", known.join(", "))
        }
    }
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Turns `a.b` and a text into the table `{a: {b: value}}`, with the type that the schema has there.
fn env_layer(path: &str, text: &str, schema: &Table) -> Result<Table, String> {
    let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
    let expected = schema.get(head);
    let value = match (rest, expected) {
        (Some(rest), Some(Value::Table(schema))) => Value::Table(env_layer(rest, text, schema)?),
        (None, Some(Value::String(_))) => Value::String(text.to_owned()),
        (None, Some(Value::Table(_))) => return Err("names a section; name a key in it".to_owned()),
        (None, Some(_)) => text
            .parse::<Value>()
            .map_err(|_| format!("expected {}, found {text:?}", expected.map_or("a value", type_name)))?,
        _ => return Err(unknown_key(head, schema)),
    };
    Ok(Table::from_iter([(head.to_owned(), value)]))
}

fn from_table<T: DeserializeOwned>(table: Table) -> Result<T, String> {
    Value::Table(table).try_into::<T>().map_err(|error| error.to_string().trim_end().to_owned())
}

/// Values of the right type outside their range or list, key by key: each key is tried alone over the defaults.
fn section_problems(table: &Table) -> Vec<Problem> {
    let Ok(defaults) = defaults() else { return Vec::new() };
    let mut problems = Vec::new();
    let mut keys = Vec::new();
    leaf_paths(table, "", &mut keys);
    for (path, value) in keys {
        let mut probe = defaults.clone();
        if let Some(slot) = lookup_mut(&mut probe, &path) {
            *slot = value.clone();
        }
        if let Err(message) = from_table::<Settings>(probe) {
            let reason = message.lines().next().unwrap_or_default().to_owned();
            problems.push(Problem::new(path, reason));
        }
    }
    problems
}

fn leaf_paths(table: &Table, prefix: &str, out: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => leaf_paths(inner, &path, out),
            value => out.push((path, value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, env: &[(&str, &str)]) -> Result<Effective, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recast.toml");
        std::fs::write(&path, text).unwrap();
        load(&Source::File(path), env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn keys(error: ConfigError) -> Vec<String> {
        error.problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn shipped_profiles_are_valid() {
        for (name, _) in PROFILES {
            load(&Source::parse(name), []).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn all_problems_are_reported_at_once_with_their_paths() {
        let text = "[server]\nlisten = 5\n[rewriter]\nkind = \"magic\"\nmodle = \"x\"\n[colour]\nred = 1\n";
        let env = [("RECAST__DEADLINES__REQUEST_MS", "soon"), ("RECAST__NOPE", "1"), ("PATH", "/bin")];
        let found = keys(load_text(text, &env).unwrap_err());
        for key in [
            "server.listen",
            "rewriter.kind",
            "rewriter.modle",
            "colour",
            "RECAST__DEADLINES__REQUEST_MS",
            "RECAST__NOPE",
        ] {
            assert!(found.iter().any(|name| name == key), "{key} is missing in {found:?}");
        }
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn a_typo_is_answered_with_the_right_key() {
        let error = load_text("[rewriter]\nmodle = \"x\"\n", &[]).unwrap_err();
        assert_eq!(error.problems[0].message, "unknown key; did you mean model?");
    }

    #[test]
    fn the_environment_wins_and_takes_the_keys_type() {
        let env = [("RECAST__SERVER__LISTEN", "127.0.0.1:0"), ("RECAST__RETRIEVAL__RRF_K", "20")];
        let settings = load_text("[server]\nlisten = \"127.0.0.1:9\"\n", &env).unwrap().settings;
        assert_eq!(settings.server.listen.port(), 0);
        assert!((settings.retrieval.rrf_k - 20.0).abs() < f32::EPSILON);

        let env = [("ORT_DYLIB_PATH", "/a.so")];
        assert_eq!(load_text("", &env).unwrap().settings.onnxruntime.library, Path::new("/a.so"));
    }

    #[test]
    fn values_without_sense_are_all_named() {
        let text = "[retrieval]\nscore_threshold = 1.5\nchunk_overlap = 256\n[rewriter]\nkind = \"remote\"\n";
        let found = keys(load_text(text, &[]).unwrap_err());
        assert_eq!(found, ["rewriter.remote.url", "retrieval.score_threshold", "retrieval.chunk_overlap"]);
    }

    #[test]
    fn experiments_are_lists_of_tables() {
        let text = "[[experiments.define]]\nid = \"one\"\nrate = 0.5\n[[experiments.define]]\nid = \"two\"\n";
        let settings = load_text(text, &[]).unwrap().settings;
        let ids: Vec<_> = settings.experiments.define.iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["one", "two"]);
    }

    #[test]
    fn secrets_never_print() {
        for section in ["embedder", "judge", "shadow.remote"] {
            let effective = load_text(&format!("[{section}]\napi_key = \"canary-secret\"\n"), &[]).unwrap();
            assert!(!effective.display().contains("canary-secret"), "{section}");
            assert!(!format!("{:?}", effective.settings).contains("canary-secret"), "{section}");
        }
        let store = load_text("[episodes]\nurl = \"postgresql://u:canary-secret@h/d\"\n", &[]).unwrap();
        assert!(
            !store.display().contains("canary-secret") && !format!("{:?}", store.settings).contains("canary-secret")
        );
    }
}
