//! A Qdrant server or cluster, over gRPC.
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use qdrant_client::qdrant::vector_output::Vector as OutputVector;
use qdrant_client::qdrant::{
    Condition, CountPointsBuilder, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, DeletePointsBuilder,
    Distance, FieldType, Filter as EngineFilter, GetPointsBuilder, KeywordIndexParamsBuilder, NamedVectors, PointId,
    PointStruct, PointsIdsList, Query, QueryPointsBuilder, Range, RetrievedPoint, ScrollPointsBuilder,
    SparseVectorParamsBuilder, SparseVectorsConfigBuilder, UpsertPointsBuilder, Value as EngineValue, Vector,
    VectorInput, VectorParamsBuilder, VectorsConfigBuilder, VectorsOutput, point_id::PointIdOptions,
};
use qdrant_client::{Payload, Qdrant, QdrantError};
use recast_config::QdrantSettings;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::bm25::Sparse;
use crate::error::RetrievalError;
use crate::store::{
    BM25, CollectionSpec, DENSE, Filter, Generation, LegQuery, Point, PointHead, Scalar, Scope, Scored, StoreHealth,
    Test, VectorStore, payload,
};

/// Key of the collection's metadata under which its spec is kept.
const SPEC_KEY: &str = "recast";
const SCROLL_PAGE: u32 = 1000;

fn store_error(error: QdrantError) -> RetrievalError {
    RetrievalError::Store(error.to_string())
}

/// A collection on a server.
pub struct QdrantStore {
    client: Qdrant,
    collection: String,
}

fn connect(settings: &QdrantSettings) -> Result<Qdrant, RetrievalError> {
    let timeout = Duration::from_millis(settings.timeout_ms);
    // The client's own check blocks a thread and prints; `open` asks for the collection instead.
    let mut config = Qdrant::from_url(&settings.url).skip_compatibility_check();
    config.set_timeout(timeout);
    config.set_connect_timeout(timeout);
    config.set_keep_alive_while_idle(true);
    let key = settings.api_key.expose_secret();
    if !key.is_empty() {
        config.set_api_key(key);
    }
    config.build().map_err(store_error)
}

impl QdrantStore {
    /// Connects, and creates the collection where it is missing.
    ///
    /// # Errors
    /// When the server cannot be reached, or the collection was made with other models.
    pub async fn open(
        settings: &QdrantSettings,
        collection: &str,
        spec: &CollectionSpec,
    ) -> Result<Self, RetrievalError> {
        let store = Self { client: connect(settings)?, collection: collection.to_owned() };
        if !store.client.collection_exists(collection).await.map_err(store_error)? {
            store.create(settings, spec).await?;
        }
        store.check(spec).await?;
        Ok(store)
    }

    /// Deletes the collection with all it holds.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses.
    pub async fn remove(settings: &QdrantSettings, collection: &str) -> Result<(), RetrievalError> {
        let client = connect(settings)?;
        if client.collection_exists(collection).await.map_err(store_error)? {
            client.delete_collection(collection).await.map_err(store_error)?;
        }
        Ok(())
    }

    async fn create(&self, settings: &QdrantSettings, spec: &CollectionSpec) -> Result<(), RetrievalError> {
        let mut sparse = SparseVectorsConfigBuilder::default();
        sparse.add_named_vector_params(BM25, SparseVectorParamsBuilder::default());
        let text = serde_json::to_string(spec).map_err(|error| RetrievalError::Store(error.to_string()))?;
        let metadata: HashMap<String, Value> = HashMap::from([(SPEC_KEY.to_owned(), Value::String(text))]);
        let mut create = CreateCollectionBuilder::new(&self.collection)
            .sparse_vectors_config(sparse)
            .shard_number(settings.shard_number)
            .replication_factor(settings.replication_factor)
            .write_consistency_factor(settings.write_consistency_factor)
            .metadata(metadata);
        if spec.has_dense() {
            let mut dense = VectorsConfigBuilder::default();
            dense.add_named_vector_params(DENSE, VectorParamsBuilder::new(spec.dimension as u64, Distance::Cosine));
            create = create.vectors_config(dense);
        }
        self.client.create_collection(create).await.map_err(store_error)?;
        for field in payload::INDEXED {
            let params = KeywordIndexParamsBuilder::default().is_tenant(field == payload::TENANT);
            let index = CreateFieldIndexCollectionBuilder::new(&self.collection, field, FieldType::Keyword)
                .field_index_params(params)
                .wait(true);
            self.client.create_field_index(index).await.map_err(store_error)?;
        }
        Ok(())
    }

    async fn check(&self, spec: &CollectionSpec) -> Result<(), RetrievalError> {
        let info = self.client.collection_info(&self.collection).await.map_err(store_error)?;
        let metadata = info.result.and_then(|info| info.config).map(|config| config.metadata).unwrap_or_default();
        let stored = metadata.get(SPEC_KEY).and_then(EngineValue::as_str).ok_or_else(|| {
            let name = &self.collection;
            RetrievalError::Store(format!(
                "collection {name:?} does not say what its vectors were made with: recast did not make it, or the server \
                 is older than 1.16; name another retrieval.collection, or update the server"
            ))
        })?;
        let stored = serde_json::from_str(stored).map_err(|error| RetrievalError::Store(error.to_string()))?;
        spec.require_same(&stored)
    }

    async fn put(&self, points: Vec<PointStruct>) -> Result<(), RetrievalError> {
        let upsert = UpsertPointsBuilder::new(&self.collection, points).wait(true);
        self.client.upsert_points(upsert).await.map_err(store_error)?;
        Ok(())
    }

    async fn scroll_all<T>(
        &self,
        filter: EngineFilter,
        read: impl Fn(Uuid, Map<String, Value>) -> Option<T> + Send,
    ) -> Result<Vec<T>, RetrievalError> {
        let mut all = Vec::new();
        let mut offset: Option<PointId> = None;
        loop {
            let mut scroll = ScrollPointsBuilder::new(&self.collection)
                .filter(filter.clone())
                .limit(SCROLL_PAGE)
                .with_payload(true)
                .with_vectors(false);
            if let Some(offset) = offset {
                scroll = scroll.offset(offset);
            }
            let page = self.client.scroll(scroll).await.map_err(store_error)?;
            let read = |point: RetrievedPoint| read(uuid_of(point.id)?, map_of(point.payload));
            all.extend(page.result.into_iter().filter_map(read));
            match page.next_page_offset {
                Some(next) => offset = Some(next),
                None => return Ok(all),
            }
        }
    }
}

fn id_of(id: Uuid) -> PointId {
    PointId::from(id.to_string())
}

fn uuid_of(id: Option<PointId>) -> Option<Uuid> {
    match id?.point_id_options? {
        PointIdOptions::Uuid(text) => Uuid::parse_str(&text).ok(),
        PointIdOptions::Num(_) => None,
    }
}

fn map_of(payload: HashMap<String, EngineValue>) -> Map<String, Value> {
    payload.into_iter().map(|(key, value)| (key, Value::from(value))).collect()
}

/// Exact equality. A list of one, as the client turns a single text with white space into a full-text search.
fn keyword(path: &str, value: impl Into<String>) -> Condition {
    Condition::matches(path, vec![value.into()])
}

fn scope_conditions(scope: &Scope) -> Vec<Condition> {
    vec![keyword(payload::TENANT, scope.tenant.as_str()), keyword(payload::KB, scope.kb.as_str())]
}

fn full_filter(scope: &Scope, filters: &[Filter]) -> EngineFilter {
    let mut must = scope_conditions(scope);
    let mut must_not = Vec::new();
    for filter in filters {
        let condition = match filter.test() {
            Test::Any(values) => {
                let matches = values.iter().map(|value| match value {
                    Scalar::Bool(value) => Condition::matches(filter.path(), *value),
                    Scalar::Integer(value) => Condition::matches(filter.path(), *value),
                    Scalar::Text(value) => keyword(filter.path(), value),
                });
                EngineFilter::should(matches).into()
            }
            Test::Range { gt, gte, lt, lte } => {
                Condition::range(filter.path(), Range { gt: *gt, gte: *gte, lt: *lt, lte: *lte })
            }
        };
        if filter.is_negated() { must_not.push(condition) } else { must.push(condition) }
    }
    EngineFilter { must, must_not, ..EngineFilter::default() }
}

fn encode(point: Point) -> PointStruct {
    let payload = Payload::from(payload::of_point(&point));
    let mut vectors = NamedVectors::default();
    if !point.dense.is_empty() {
        vectors = vectors.add_vector(DENSE, Vector::new_dense(point.dense));
    }
    let Sparse { indices, values } = point.sparse;
    vectors = vectors.add_vector(BM25, Vector::new_sparse(indices, values));
    PointStruct::new(id_of(point.id), vectors, payload)
}

fn decode(point: RetrievedPoint) -> Option<Point> {
    let vectors: Option<VectorsOutput> = point.vectors;
    let named = |name: &str| vectors.as_ref().and_then(|vectors| vectors.get_vector_by_name(name));
    let dense = match named(DENSE) {
        Some(OutputVector::Dense(dense)) => dense.data,
        _ => Vec::new(),
    };
    let sparse = match named(BM25) {
        Some(OutputVector::Sparse(sparse)) => Sparse { indices: sparse.indices, values: sparse.values },
        _ => Sparse::default(),
    };
    payload::to_point(uuid_of(point.id)?, map_of(point.payload), dense, sparse)
}

#[async_trait]
impl VectorStore for QdrantStore {
    async fn upsert(&self, points: Vec<Point>) -> Result<(), RetrievalError> {
        self.put(points.into_iter().map(encode).collect()).await
    }

    async fn delete(&self, ids: &[Uuid]) -> Result<(), RetrievalError> {
        let ids = PointsIdsList { ids: ids.iter().map(|id| id_of(*id)).collect() };
        let delete = DeletePointsBuilder::new(&self.collection).points(ids).wait(true);
        self.client.delete_points(delete).await.map_err(store_error)?;
        Ok(())
    }

    async fn search(
        &self,
        scope: &Scope,
        filters: &[Filter],
        leg: LegQuery<'_>,
        limit: usize,
    ) -> Result<Vec<Scored>, RetrievalError> {
        let (query, using) = match leg {
            LegQuery::Bm25(sparse) => {
                let input = VectorInput::new_sparse(sparse.indices.clone(), sparse.values.clone());
                (Query::new_nearest(input), BM25)
            }
            LegQuery::Dense(values) => (Query::new_nearest(values.to_vec()), DENSE),
        };
        let request = QueryPointsBuilder::new(&self.collection)
            .query(query)
            .using(using)
            .filter(full_filter(scope, filters))
            .limit(limit as u64)
            .with_payload(false);
        let found = self.client.query(request).await.map_err(store_error)?.result;
        Ok(found.into_iter().filter_map(|point| Some(Scored { id: uuid_of(point.id)?, score: point.score })).collect())
    }

    async fn fetch(&self, scope: &Scope, ids: &[Uuid]) -> Result<Vec<Arc<Point>>, RetrievalError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list: Vec<PointId> = ids.iter().map(|id| id_of(*id)).collect();
        let get = GetPointsBuilder::new(&self.collection, list).with_payload(true).with_vectors(true);
        let found = self.client.get_points(get).await.map_err(store_error)?.result;
        let mut points: HashMap<Uuid, Point> = found
            .into_iter()
            .filter_map(decode)
            .filter(|point| point.is_in(scope))
            .map(|point| (point.id, point))
            .collect();
        Ok(ids.iter().filter_map(|id| points.remove(id)).map(Arc::new).collect())
    }

    async fn document(&self, scope: &Scope, doc_id: &str) -> Result<Vec<PointHead>, RetrievalError> {
        let mut must = scope_conditions(scope);
        must.push(keyword(payload::DOC, doc_id));
        self.scroll_all(EngineFilter::must(must), payload::to_head).await
    }

    async fn scroll(
        &self,
        scope: &Scope,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<(Vec<Point>, Option<Uuid>), RetrievalError> {
        let mut scroll = ScrollPointsBuilder::new(&self.collection)
            .filter(EngineFilter::must(scope_conditions(scope)))
            .limit(u32::try_from(limit).unwrap_or(SCROLL_PAGE))
            .with_payload(true)
            .with_vectors(true);
        if let Some(from) = from {
            scroll = scroll.offset(id_of(from));
        }
        let page = self.client.scroll(scroll).await.map_err(store_error)?;
        Ok((page.result.into_iter().filter_map(decode).collect(), uuid_of(page.next_page_offset)))
    }

    async fn count(&self, scope: &Scope) -> Result<u64, RetrievalError> {
        let filter = EngineFilter::must(scope_conditions(scope));
        let count = CountPointsBuilder::new(&self.collection).filter(filter).exact(true);
        let counted = self.client.count(count).await.map_err(store_error)?;
        Ok(counted.result.map_or(0, |result| result.count))
    }

    async fn generations(&self) -> Result<Vec<Generation>, RetrievalError> {
        let filter = EngineFilter::must_not([Condition::is_empty(payload::COUNTED_KB)]);
        self.scroll_all(filter, |_, map| payload::to_generation(map)).await
    }

    async fn set_generation(&self, generation: &Generation) -> Result<(), RetrievalError> {
        let payload = Payload::from(payload::of_generation(generation));
        let id = id_of(generation.scope.generation_id());
        self.put(vec![PointStruct::new(id, NamedVectors::default(), payload)]).await
    }

    async fn flush(&self) -> Result<(), RetrievalError> {
        // A server writes its log before it answers.
        Ok(())
    }

    async fn health(&self) -> StoreHealth {
        StoreHealth { ready: self.client.health_check().await.is_ok(), unflushed: 0 }
    }

    async fn backup(&self, _to: &Path) -> Result<(), RetrievalError> {
        Err(RetrievalError::invalid("retrieval.store", "a server makes its own snapshots: use its snapshot API"))
    }
}
