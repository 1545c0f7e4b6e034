//! Documents into passages into points. An unchanged document costs one look-up; a changed one replaces its passages.
//!
//! A replacement writes all new passages before it deletes stale ones. Each point carries the hash and the number of
//! passages of its document, so a replacement that a crash cut short is seen (and redone) the next time.
use std::collections::HashSet;
use std::sync::Arc;

use recast_domain::{KbName, Passage, TenantId};
use serde::Serialize;
use uuid::Uuid;

use crate::bm25::passage_vector;
use crate::chunk::{ChunkLimits, chunks};
use crate::document::{Body, Document};
use crate::embed::{TextKind, checked};
use crate::error::RetrievalError;
use crate::knowledge::{DocumentInfo, Knowledge};
use crate::rerank::RerankPassage;
use crate::retriever::Retriever;
use crate::store::{Point, PointHead, Scope};

/// Passages embedded and written together.
const GROUP_PASSAGES: usize = 128;

/// What putting a document did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PutReport {
    /// The document.
    pub doc_id: String,
    /// `false` where the very same content was stored already.
    pub changed: bool,
    /// Passages it has.
    pub passages: usize,
}

/// The text of a passage as it is searched, embedded and reranked: with its title, where it does not say it itself.
pub(crate) fn search_text(passage: &Passage) -> String {
    if passage.title.is_empty() || passage.text.contains(&passage.title) {
        passage.text.clone()
    } else {
        format!("{}\n{}", passage.title, passage.text)
    }
}

fn cut(document: &Document, kb: &KbName, limits: ChunkLimits) -> Vec<Passage> {
    let passage = |id: String, text: String, metadata: recast_domain::Metadata| Passage {
        id,
        doc_id: document.doc_id.clone(),
        title: document.title.clone(),
        text,
        source: document.source.clone(),
        kb_name: kb.clone(),
        metadata,
    };
    match &document.body {
        Body::Passages(passages) => passages
            .iter()
            .map(|cut| {
                let mut metadata = document.metadata.clone();
                metadata.extend(cut.metadata.clone());
                passage(cut.id.clone(), cut.text.clone(), metadata)
            })
            .collect(),
        Body::Parts(parts) => {
            let texts = parts.iter().flat_map(|part| {
                let context = part.context.as_str();
                let with_context =
                    move |text: String| if context.is_empty() { text } else { format!("{context}\n{text}") };
                chunks(&part.text, limits).into_iter().map(with_context)
            });
            let numbered = texts.enumerate();
            numbered
                .map(|(index, text)| passage(format!("{}#{index}", document.doc_id), text, document.metadata.clone()))
                .collect()
        }
    }
}

fn is_whole(heads: &[PointHead], hash: &str) -> bool {
    let chunks: HashSet<u32> = heads.iter().map(|head| head.chunk).collect();
    !heads.is_empty()
        && heads.iter().all(|head| head.doc_hash == hash && head.chunks as usize == heads.len())
        && chunks.len() == heads.len()
}

struct Change {
    points: Vec<Point>,
    old: Vec<Uuid>,
}

impl Retriever {
    /// Stores a document; when this returns, searches find it, also after a crash.
    ///
    /// # Errors
    /// A document that is not valid, or a failing embedder or store. The old content stays findable then.
    pub async fn put_document(
        &self,
        tenant: &TenantId,
        kb: &KbName,
        document: Document,
    ) -> Result<PutReport, RetrievalError> {
        let mut reports = self.put_documents(tenant, kb, vec![document], &|_| {}).await?;
        reports.pop().ok_or_else(|| RetrievalError::Store("a document was not reported".to_owned()))
    }

    /// Stores many documents in groups; `on_report` is called as each is done.
    ///
    /// # Errors
    /// As [`Self::put_document`]; documents reported before stay stored.
    pub async fn put_documents(
        &self,
        tenant: &TenantId,
        kb: &KbName,
        documents: Vec<Document>,
        on_report: &(dyn Fn(&PutReport) + Send + Sync),
    ) -> Result<Vec<PutReport>, RetrievalError> {
        documents.iter().try_for_each(Document::check)?;
        let scope = Scope { tenant: tenant.clone(), kb: kb.clone() };
        let knowledge = self.knowledge_or_new(&scope).await?;
        let _one_writer = knowledge.writing.lock().await;
        let mut reports = Vec::with_capacity(documents.len());
        let mut group: Vec<(PutReport, Option<Change>)> = Vec::new();
        let mut waiting = HashSet::new();
        let mut pending = 0;
        for document in documents {
            // The same document twice: the first must be stored before the second is compared with it.
            if !waiting.insert(document.doc_id.clone()) {
                self.commit(&scope, &knowledge, &mut group, &mut reports, on_report).await?;
                waiting = HashSet::from([document.doc_id.clone()]);
                pending = 0;
            }
            let entry = self.compare(&scope, &document).await?;
            pending += entry.1.as_ref().map_or(0, |change| change.points.len());
            group.push(entry);
            if pending >= GROUP_PASSAGES {
                self.commit(&scope, &knowledge, &mut group, &mut reports, on_report).await?;
                waiting.clear();
                pending = 0;
            }
        }
        self.commit(&scope, &knowledge, &mut group, &mut reports, on_report).await?;
        Ok(reports)
    }

    async fn compare(&self, scope: &Scope, document: &Document) -> Result<(PutReport, Option<Change>), RetrievalError> {
        let limits = self.chunk_limits();
        let hash = format!("{}-{}-{}", document.content_hash(), limits.tokens, limits.overlap);
        let heads = self.store().document(scope, &document.doc_id).await?;
        let report = |changed, passages| PutReport { doc_id: document.doc_id.clone(), changed, passages };
        if is_whole(&heads, &hash) {
            return Ok((report(false, heads.len()), None));
        }
        let passages = cut(document, &scope.kb, limits);
        let total = u32::try_from(passages.len())
            .map_err(|_| RetrievalError::invalid("text", "gives more passages than can be counted"))?;
        let points = (0..).zip(passages).map(|(chunk, passage)| Point {
            id: scope.point_id(&document.doc_id, chunk),
            tenant: scope.tenant.clone(),
            sparse: passage_vector(&search_text(&passage)),
            passage,
            doc_hash: hash.clone(),
            chunk,
            chunks: total,
            dense: Vec::new(),
        });
        let points: Vec<Point> = points.collect();
        let old = heads.into_iter().map(|head| head.id).collect();
        Ok((report(true, points.len()), Some(Change { points, old })))
    }

    async fn commit(
        &self,
        scope: &Scope,
        knowledge: &Arc<Knowledge>,
        group: &mut Vec<(PutReport, Option<Change>)>,
        reports: &mut Vec<PutReport>,
        on_report: &(dyn Fn(&PutReport) + Send + Sync),
    ) -> Result<(), RetrievalError> {
        let mut texts = Vec::new();
        for point in group.iter().flat_map(|(_, change)| change).flat_map(|change| &change.points) {
            texts.push(search_text(&point.passage));
        }
        let mut vectors = match (self.embedder(), texts.is_empty()) {
            (Some(embedder), false) => {
                let vectors = embedder.embed(TextKind::Passage, &texts).await?;
                checked(vectors, texts.len(), embedder.dimension())?
            }
            _ => vec![Vec::new(); texts.len()],
        }
        .into_iter();
        let mut changed = false;
        for (report, change) in group.drain(..) {
            if let Some(Change { mut points, old }) = change {
                for (point, vector) in points.iter_mut().zip(&mut vectors) {
                    point.dense = vector;
                }
                let replaced = self.store().fetch(scope, &old).await?;
                let fresh: HashSet<Uuid> = points.iter().map(|point| point.id).collect();
                let stale: Vec<Uuid> = old.into_iter().filter(|id| !fresh.contains(id)).collect();
                self.store().upsert(points.clone()).await?;
                if !stale.is_empty() {
                    self.store().delete(&stale).await?;
                }
                replaced.iter().for_each(|point| knowledge.remove(point));
                points.iter().for_each(|point| knowledge.add(point));
                metrics::counter!("recast_ingested_passages_total").increment(points.len() as u64);
                changed = true;
            }
            on_report(&report);
            reports.push(report);
        }
        if changed {
            knowledge.bump(self.store().as_ref(), scope).await?;
            self.prepare_reranker(texts.into_iter().map(RerankPassage::new).collect());
        }
        Ok(())
    }

    /// Deletes a document with all its passages.
    ///
    /// # Errors
    /// When there is no such document, or the store fails.
    pub async fn delete_document(&self, tenant: &TenantId, kb: &KbName, doc_id: &str) -> Result<(), RetrievalError> {
        let scope = Scope { tenant: tenant.clone(), kb: kb.clone() };
        let absent = || RetrievalError::NoDocument { doc_id: doc_id.to_owned(), kb_name: kb.to_string() };
        let Some(knowledge) = self.knowledge(&scope).await? else { return Err(absent()) };
        let _one_writer = knowledge.writing.lock().await;
        let ids: Vec<Uuid> = self.store().document(&scope, doc_id).await?.into_iter().map(|head| head.id).collect();
        if ids.is_empty() {
            return Err(absent());
        }
        let removed = self.store().fetch(&scope, &ids).await?;
        self.store().delete(&ids).await?;
        removed.iter().for_each(|point| knowledge.remove(point));
        knowledge.bump(self.store().as_ref(), &scope).await
    }

    /// Documents of a knowledge base in the order of their ids, after `after`.
    ///
    /// # Errors
    /// When the store fails. An unknown knowledge base has no documents.
    pub async fn list_documents(
        &self,
        tenant: &TenantId,
        kb: &KbName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DocumentInfo>, RetrievalError> {
        let scope = Scope { tenant: tenant.clone(), kb: kb.clone() };
        let knowledge = self.knowledge(&scope).await?;
        Ok(knowledge.map(|knowledge| knowledge.documents(after, limit)).unwrap_or_default())
    }

    /// Counts the changes of a knowledge base; part of every key under which something derived from it is cached.
    ///
    /// # Errors
    /// When the store fails. An unknown knowledge base is at 0.
    pub async fn generation(&self, tenant: &TenantId, kb: &KbName) -> Result<u64, RetrievalError> {
        let scope = Scope { tenant: tenant.clone(), kb: kb.clone() };
        Ok(self.knowledge(&scope).await?.map_or(0, |knowledge| knowledge.generation()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_whole_only_with_all_its_passages_of_one_hash() {
        let head = |chunk, chunks, hash: &str| PointHead { id: Uuid::nil(), doc_hash: hash.to_owned(), chunk, chunks };
        assert!(is_whole(&[head(0, 2, "a"), head(1, 2, "a")], "a"));
        assert!(!is_whole(&[head(0, 2, "a")], "a"));
        assert!(!is_whole(&[head(0, 2, "a"), head(1, 2, "b")], "a"));
        assert!(!is_whole(&[head(0, 1, "b"), head(1, 2, "b")], "b"));
        assert!(!is_whole(&[head(0, 1, "b")], "a"));
        assert!(!is_whole(&[], "a"));
    }

    #[test]
    fn passages_keep_context_title_and_metadata() {
        let document = crate::document::markdown("d", "d.md", "# T\n\n## 用法\n\n每天一瓶。\n");
        let limits = ChunkLimits { tokens: 256, overlap: 64 };
        let passages = cut(&document, &KbName::default(), limits);
        assert_eq!(passages[0].text, "用法\n每天一瓶。");
        assert_eq!((passages[0].id.as_str(), passages[0].title.as_str()), ("d#0", "T"));
        assert_eq!(search_text(&passages[0]), "T\n用法\n每天一瓶。");
    }
}
