//! What is known in memory of a knowledge base; rebuilt from the store at start, so that a crash can leave nothing wrong.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use serde::Serialize;

use crate::error::RetrievalError;
use crate::statistics::Statistics;
use crate::store::{Generation, Point, Scope, VectorStore};

const PAGE: usize = 1000;

/// A document as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DocumentInfo {
    /// The document.
    pub doc_id: String,
    /// Its title; may be empty.
    pub title: String,
    /// Where it came from; may be empty.
    pub source: String,
    /// Passages stored.
    pub passages: u32,
}

#[derive(Debug, Default)]
struct Contents {
    statistics: Statistics,
    documents: BTreeMap<String, DocumentInfo>,
}

/// A knowledge base.
#[derive(Debug)]
pub(crate) struct Knowledge {
    contents: RwLock<Contents>,
    generation: AtomicU64,
    /// One writer at a time: a document is read, compared and replaced as a whole.
    pub(crate) writing: tokio::sync::Mutex<()>,
}

impl Knowledge {
    pub(crate) fn empty() -> Self {
        Self {
            contents: RwLock::new(Contents::default()),
            generation: AtomicU64::new(0),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) async fn load(store: &dyn VectorStore, generation: &Generation) -> Result<Self, RetrievalError> {
        let knowledge = Self::empty();
        let mut from = None;
        loop {
            let (points, next) = store.scroll(&generation.scope, from, PAGE).await?;
            points.iter().for_each(|point| knowledge.add(point));
            from = next;
            if from.is_none() {
                break;
            }
        }
        knowledge.generation.store(generation.generation, Ordering::Release);
        Ok(knowledge)
    }

    pub(crate) fn with_statistics<T>(&self, read: impl FnOnce(&Statistics) -> T) -> T {
        read(&self.contents.read().unwrap_or_else(PoisonError::into_inner).statistics)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.contents.read().unwrap_or_else(PoisonError::into_inner).documents.is_empty()
    }

    /// Counts a change and stores the count.
    pub(crate) async fn bump(&self, store: &dyn VectorStore, scope: &Scope) -> Result<(), RetrievalError> {
        let generation = self.generation() + 1;
        store.set_generation(&Generation { scope: scope.clone(), generation }).await?;
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }

    pub(crate) fn add(&self, point: &Point) {
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        contents.statistics.add(&point.sparse);
        let passage = &point.passage;
        let document = contents.documents.entry(passage.doc_id.clone()).or_insert_with(|| DocumentInfo {
            doc_id: passage.doc_id.clone(),
            title: String::new(),
            source: String::new(),
            passages: 0,
        });
        document.passages += 1;
        document.title.clone_from(&passage.title);
        document.source.clone_from(&passage.source);
    }

    pub(crate) fn remove(&self, point: &Point) {
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        contents.statistics.remove(&point.sparse);
        if let Some(document) = contents.documents.get_mut(&point.passage.doc_id) {
            document.passages = document.passages.saturating_sub(1);
            if document.passages == 0 {
                contents.documents.remove(&point.passage.doc_id);
            }
        }
    }

    pub(crate) fn documents(&self, after: Option<&str>, limit: usize) -> Vec<DocumentInfo> {
        use std::ops::Bound::{Excluded, Unbounded};
        let contents = self.contents.read().unwrap_or_else(PoisonError::into_inner);
        let start = after.map_or(Unbounded, Excluded);
        contents
            .documents
            .range::<str, _>((start, Unbounded))
            .take(limit)
            .map(|(_, document)| document.clone())
            .collect()
    }
}
