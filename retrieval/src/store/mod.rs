//! Where passages and their vectors are kept: one trait over the embedded engine and the server.
//!
//! Callers never write tenant or knowledge base into a filter: every call takes a [`Scope`], and the stores add it.
mod edge;
mod filter;
mod identity;
mod payload;
mod qdrant;
mod sparse_copy;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use recast_domain::{KbName, Passage, TenantId};
use uuid::Uuid;

pub use edge::EdgeStore;
pub use filter::{Filter, Scalar, Test};
pub use identity::CollectionSpec;
pub use qdrant::QdrantStore;

use crate::bm25::Sparse;
use crate::error::RetrievalError;

/// Name of the dense vector.
pub(crate) const DENSE: &str = "dense";
/// Name of the sparse vector.
pub(crate) const BM25: &str = "bm25";

/// A knowledge base of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub kb: KbName,
}

impl Scope {
    /// The id of the passage at `chunk` of a document: the same wherever and whenever it is ingested.
    #[must_use]
    pub fn point_id(&self, doc_id: &str, chunk: u32) -> Uuid {
        let name = format!("{}\0{}\0{doc_id}\0{chunk}", self.tenant, self.kb);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }

    /// The id of the record that counts the changes of this knowledge base.
    #[must_use]
    pub(crate) fn generation_id(&self) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}\0{}", self.tenant, self.kb).as_bytes())
    }
}

/// A passage as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// [`Scope::point_id`].
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// What is found and shown.
    pub passage: Passage,
    /// Hash of the document's content.
    pub doc_hash: String,
    /// Place within the document, from 0.
    pub chunk: u32,
    /// Passages of the document.
    pub chunks: u32,
    /// Unit-length vector; empty where the collection has no dense leg.
    pub dense: Vec<f32>,
    /// BM25 weights.
    pub sparse: Sparse,
}

impl Point {
    /// Whether it belongs to `scope`.
    #[must_use]
    pub fn is_in(&self, scope: &Scope) -> bool {
        self.tenant == scope.tenant && self.passage.kb_name == scope.kb
    }
}

/// What tells whether a stored document is whole and current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointHead {
    /// The passage's point.
    pub id: Uuid,
    /// Hash of the content that it was cut from.
    pub doc_hash: String,
    /// Place within the document, from 0.
    pub chunk: u32,
    /// Passages of the document at that time.
    pub chunks: u32,
}

/// One leg's query vector.
#[derive(Debug, Clone, Copy)]
pub enum LegQuery<'a> {
    /// IDF-weighted words.
    Bm25(&'a Sparse),
    /// Unit-length vector.
    Dense(&'a [f32]),
}

/// A point and its score in one leg.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The point.
    pub id: Uuid,
    /// BM25, or cosine.
    pub score: f32,
}

/// A knowledge base that exists, and the number of changes made to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The knowledge base.
    pub scope: Scope,
    /// Grows with every committed ingest or deletion.
    pub generation: u64,
}

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreHealth {
    /// Whether it answers.
    pub ready: bool,
    /// Changes that a power loss (not a crash) could take back; 0 for a server.
    pub unflushed: u64,
}

/// A collection of passages.
///
/// Writes are durable against a crash of the process when they return. Searches see them from then on.
#[async_trait]
pub trait VectorStore: Send + Sync {
    /// Inserts or replaces points by id.
    async fn upsert(&self, points: Vec<Point>) -> Result<(), RetrievalError>;

    /// Deletes points by id; absent ones are ignored.
    async fn delete(&self, ids: &[Uuid]) -> Result<(), RetrievalError>;

    /// The best `limit` points of one leg within `scope` that pass all filters, best first.
    async fn search(
        &self,
        scope: &Scope,
        filters: &[Filter],
        leg: LegQuery<'_>,
        limit: usize,
    ) -> Result<Vec<Scored>, RetrievalError>;

    /// The points with these ids, in their order; absent ones and those outside `scope` are left out.
    async fn fetch(&self, scope: &Scope, ids: &[Uuid]) -> Result<Vec<Arc<Point>>, RetrievalError>;

    /// The heads of all points of a document.
    async fn document(&self, scope: &Scope, doc_id: &str) -> Result<Vec<PointHead>, RetrievalError>;

    /// A page of points of `scope` in the order of their ids, and where the next page starts.
    async fn scroll(
        &self,
        scope: &Scope,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<(Vec<Point>, Option<Uuid>), RetrievalError>;

    /// Exact number of passages in `scope`.
    async fn count(&self, scope: &Scope) -> Result<u64, RetrievalError>;

    /// All knowledge bases and their generations.
    async fn generations(&self) -> Result<Vec<Generation>, RetrievalError>;

    /// Stores a generation.
    async fn set_generation(&self, generation: &Generation) -> Result<(), RetrievalError>;

    /// Makes all writes durable against power loss.
    async fn flush(&self) -> Result<(), RetrievalError>;

    /// Whether it works.
    async fn health(&self) -> StoreHealth;

    /// Copies the collection into the empty folder `to`, at one point in time.
    async fn backup(&self, to: &Path) -> Result<(), RetrievalError>;
}
