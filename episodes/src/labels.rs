//! What people wrote down about answers: a better rewrite, the passages that answer, a score, a word.

use recast_domain::{EpisodeId, TenantId};
use serde::{Deserialize, Serialize};

use crate::db::{self, Connection};
use crate::error::EpisodeError;
use crate::reader::{EpisodeReader, hex};
use crate::scores::PutCounts;
use crate::write::Written;

/// Characters of a rewrite at most; the quality filter of datasets keeps no longer one.
const REWRITE_CHARS: usize = 500;
/// Characters of an author, a passage id or a label at most.
const WORD_CHARS: usize = 200;
/// Passages that one label may name.
const RELEVANT_MAX: usize = 100;

// the same label again changes nothing; a corrected one replaces what the author said before
const PUT: &str = "INSERT INTO labels (tenant, episode, author, kind, value, created_ms)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6
    WHERE EXISTS (SELECT 1 FROM episodes WHERE tenant = ?1 AND id = ?2)
    ON CONFLICT (tenant, episode, author, kind) DO UPDATE SET
        value = excluded.value, created_ms = excluded.created_ms
    WHERE labels.value <> excluded.value";

/// What a label says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelValue {
    /// The rewrite as it should have been.
    GoldRewrite(String),
    /// Ids of the passages that answer the question.
    Relevant(Vec<String>),
    /// How good the answer was, 0 to 1.
    Score(f64),
    /// A word for it.
    Label(String),
}

impl LabelValue {
    /// The name of this kind in files and in the store.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::GoldRewrite(_) => "gold_rewrite",
            Self::Relevant(_) => "relevant",
            Self::Score(_) => "score",
            Self::Label(_) => "label",
        }
    }

    /// What is wrong with it, naming the field, or `None`.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        match self {
            Self::GoldRewrite(text) => text_fault("gold_rewrite", text, REWRITE_CHARS),
            Self::Label(text) => text_fault("label", text, WORD_CHARS),
            Self::Score(score) if (0.0..=1.0).contains(score) => None,
            Self::Score(score) => Some(format!("score: {score} is not from 0 to 1")),
            Self::Relevant(ids) if ids.is_empty() => Some("relevant: names no passage".to_owned()),
            Self::Relevant(ids) if ids.len() > RELEVANT_MAX => {
                Some(format!("relevant: names {} passages, at most {RELEVANT_MAX} are kept", ids.len()))
            }
            Self::Relevant(ids) => ids.iter().find_map(|id| text_fault("relevant", id, WORD_CHARS)),
        }
    }
}

/// What is wrong with a text of a label, or `None`.
fn text_fault(field: &str, text: &str, max: usize) -> Option<String> {
    let chars = text.chars().count();
    if text.trim().is_empty() {
        Some(format!("{field}: is empty"))
    } else if chars > max {
        Some(format!("{field}: has {chars} characters, at most {max} are kept"))
    } else {
        None
    }
}

/// One label of one author about one episode.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelRecord {
    /// Whose episode it is.
    pub tenant: TenantId,
    /// The episode.
    pub episode: EpisodeId,
    /// Who says so. An author has one label of each kind about an episode.
    pub author: String,
    /// What is said.
    pub value: LabelValue,
    /// When it was taken in, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
}

impl LabelRecord {
    /// What is wrong with it, naming the field, or `None`.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        text_fault("author", &self.author, WORD_CHARS).or_else(|| self.value.fault())
    }
}

/// # Errors
/// When the database fails.
pub(crate) fn put(connection: &Connection, labels: &[LabelRecord]) -> db::Result<Written> {
    let mut counts = PutCounts::default();
    for one in labels {
        let (tenant, episode) = (one.tenant.as_str(), one.episode.0.as_bytes());
        let value = stored(&one.value);
        let values = [
            tenant.into(),
            episode.into(),
            (&one.author).into(),
            one.value.kind().into(),
            (&value).into(),
            one.created_ms.into(),
        ];
        let changed = connection.execute(PUT, &values)?;
        counts.count(connection, changed, (tenant, episode))?;
    }
    Ok(Written::Counted(counts))
}

/// A value as it lies in the store: JSON without the kind, which has a column of its own.
fn stored(value: &LabelValue) -> String {
    match value {
        LabelValue::GoldRewrite(text) | LabelValue::Label(text) => serde_json::json!(text),
        LabelValue::Relevant(ids) => serde_json::json!(ids),
        LabelValue::Score(score) => serde_json::json!(score),
    }
    .to_string()
}

/// A value out of its kind and its JSON.
///
/// # Errors
/// With what cannot be understood.
pub(crate) fn read(kind: &str, value: &str) -> Result<LabelValue, String> {
    let wrong = |error: serde_json::Error| format!("its label {kind}: {error}");
    match kind {
        "gold_rewrite" => serde_json::from_str(value).map(LabelValue::GoldRewrite).map_err(wrong),
        "relevant" => serde_json::from_str(value).map(LabelValue::Relevant).map_err(wrong),
        "score" => serde_json::from_str(value).map(LabelValue::Score).map_err(wrong),
        "label" => serde_json::from_str(value).map(LabelValue::Label).map_err(wrong),
        other => Err(format!("{other:?} is no kind of label: update recast")),
    }
}

impl EpisodeReader {
    /// All labels of one episode, oldest first.
    ///
    /// # Errors
    /// When the store, or one of the labels, cannot be read.
    pub fn labels(&self, tenant: &TenantId, episode: EpisodeId) -> Result<Vec<LabelRecord>, EpisodeError> {
        let rows = self.read(|connection| {
            let sql = "SELECT author, kind, value, created_ms FROM labels
                WHERE tenant = ?1 AND episode = ?2 ORDER BY created_ms, author, kind";
            connection.query(sql, &[tenant.as_str().into(), episode.0.as_bytes().into()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
        })?;
        let label = |(author, kind, value, created_ms): (String, String, String, i64)| {
            let unreadable = |message| EpisodeError::Unreadable { id: hex(episode.0.as_bytes()), message };
            let value = read(&kind, &value).map_err(unreadable)?;
            Ok(LabelRecord { tenant: tenant.clone(), episode, author, value, created_ms })
        };
        rows.into_iter().map(label).collect()
    }
}

#[cfg(test)]
mod tests {
    use recast_config::Durability;

    use super::*;
    use crate::EpisodeStore;
    use crate::testing::{episode, settings};

    fn label(episode: EpisodeId, tenant: &str, author: &str, value: LabelValue) -> LabelRecord {
        LabelRecord { tenant: tenant.parse().unwrap(), episode, author: author.to_owned(), value, created_ms: 9 }
    }

    #[tokio::test]
    async fn labels_are_idempotent_by_author_and_kind_and_know_only_their_tenant() {
        let dir = tempfile::tempdir().unwrap();
        let store = EpisodeStore::open(dir.path().join("e.db"), &settings(Durability::Strict)).unwrap();
        let one = episode("a", 1);
        let (id, tenant) = (one.id, one.tenant.clone());
        store.append(one).await.unwrap();
        let gold = |author, text: &str| label(id, "a", author, LabelValue::GoldRewrite(text.to_owned()));
        let score = label(id, "a", "li", LabelValue::Score(0.5));
        let first = vec![gold("li", "胶原蛋白肽 孕妇"), score.clone()];
        assert_eq!(store.put_labels(first.clone()).await.unwrap(), PutCounts { stored: 2, known: 0, no_episode: 0 });
        assert_eq!(store.put_labels(first).await.unwrap(), PutCounts { stored: 0, known: 2, no_episode: 0 });
        let theirs = label(id, "b", "li", LabelValue::Score(1.0));
        let nowhere = label(EpisodeId::now(), "a", "li", LabelValue::Score(1.0));
        let more = vec![gold("li", "胶原蛋白肽 孕妇 禁忌"), gold("wu", "孕妇 胶原蛋白"), theirs, nowhere];
        assert_eq!(store.put_labels(more).await.unwrap(), PutCounts { stored: 2, known: 0, no_episode: 2 });
        let found = store.reader().labels(&tenant, id).unwrap();
        assert_eq!(found, [gold("li", "胶原蛋白肽 孕妇 禁忌"), score, gold("wu", "孕妇 胶原蛋白")]);
        assert!(store.reader().labels(&"b".parse().unwrap(), id).unwrap().is_empty());
        let bad = store.put_labels(vec![label(id, "a", "li", LabelValue::Score(1.5))]).await.unwrap_err();
        assert!(bad.to_string().contains("score: 1.5 is not from 0 to 1"), "{bad}");
        store.close().await;
    }

    #[test]
    fn faults_name_their_field() {
        let faults = [
            (LabelValue::GoldRewrite(" ".into()), "gold_rewrite: is empty"),
            (LabelValue::GoldRewrite("长".repeat(501)), "gold_rewrite: has 501 characters"),
            (LabelValue::Relevant(Vec::new()), "relevant: names no passage"),
            (LabelValue::Relevant(vec![String::new()]), "relevant: is empty"),
            (LabelValue::Score(f64::NAN), "score: NaN"),
            (LabelValue::Label(String::new()), "label: is empty"),
        ];
        for (value, expected) in faults {
            assert!(value.fault().unwrap().starts_with(expected), "{value:?}");
        }
    }
}
