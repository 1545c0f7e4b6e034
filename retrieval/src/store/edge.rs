//! The embedded engine: one shard in a folder that one process owns.
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use qdrant_edge::{
    Condition, CountRequest, CreateIndex, Distance, EdgeConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams,
    FieldCondition, FieldIndexOperations, Filter as EngineFilter, JsonPath, KeywordIndexParamsBuilder, Match, Memory,
    NamedQuery, OperationError, Payload, PayloadFieldSchema, PayloadSchemaParams, PointId, PointInsertOperations,
    PointOperations, PointStructPersisted, QueryEnum, QueryRequest, Record, RetrieveRequest, ScoringQuery,
    ScrollRequest, SparseVector, UpdateOperation, ValueVariants, VectorInternal, VectorPersisted, VectorStructInternal,
    VectorStructPersisted, WithPayloadInterface, WithVector,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::bm25::Sparse;
use crate::error::RetrievalError;
use crate::store::{
    BM25, CollectionSpec, DENSE, Filter, Generation, LegQuery, Point, PointHead, Scope, Scored, StoreHealth,
    VectorStore, payload, sparse_copy,
};

/// Changes after which a flush does not wait for its timer: it bounds the replay after a crash.
const FLUSH_OPERATIONS: u64 = 1000;
/// Points after which a search leaves the async threads: below, it takes less time than the hand-over is worth.
const INLINE_POINTS: u64 = 20_000;
/// Points kept decoded in memory.
const DECODED_POINTS: usize = 50_000;
/// Written points after which the engine is asked whether an index is worth building.
const OPTIMIZE_POINTS: u64 = 5000;
const SCROLL_PAGE: usize = 1000;

fn store_error(error: OperationError) -> RetrievalError {
    RetrievalError::Store(error.to_string())
}

/// The embedded engine.
pub struct EdgeStore {
    engine: Arc<Engine>,
    dir: PathBuf,
    stop: Mutex<Option<Sender<()>>>,
    maintenance: Mutex<Option<JoinHandle<()>>>,
    _lock: File,
}

/// Decoded points by id. A search reads some tens of them, so reading must cost next to nothing: there is no order of use
/// to keep, and when it is full, half of it goes.
#[derive(Default)]
struct Decoded(HashMap<Uuid, Arc<Point>>);

impl Decoded {
    fn keep(&mut self, points: &[Arc<Point>]) {
        if self.0.len() + points.len() > DECODED_POINTS {
            let mut stays = false;
            self.0.retain(|_, _| {
                stays = !stays;
                stays
            });
        }
        self.0.extend(points.iter().map(|point| (point.id, point.clone())));
    }

    fn forget(&mut self, ids: &[Uuid]) {
        for id in ids {
            self.0.remove(id);
        }
    }
}

struct Engine {
    shard: EdgeShard,
    wake: Sender<()>,
    unflushed: AtomicU64,
    written: AtomicU64,
    points: AtomicU64,
    decoded: RwLock<Decoded>,
    /// Held by writers while they change points and clear them from `decoded`, and by readers while they fill it, so that
    /// no reader puts back what a writer just replaced.
    gate: RwLock<()>,
}

impl EdgeStore {
    /// Opens or creates the store in `dir`.
    ///
    /// # Errors
    /// When another process has it open, it was made with other models, or the engine cannot read it.
    pub fn open(dir: &Path, spec: &CollectionSpec, flush_every: Duration) -> Result<Self, RetrievalError> {
        let fault =
            |what: &str, error: std::io::Error| RetrievalError::Store(format!("{}: {what}: {error}", dir.display()));
        std::fs::create_dir_all(dir).map_err(|error| fault("cannot be created", error))?;
        let lock = File::create(dir.join("lock")).map_err(|error| fault("cannot be locked", error))?;
        let in_use = || RetrievalError::StoreInUse { path: dir.display().to_string() };
        lock.try_lock().map_err(|_| in_use())?;
        spec.check_or_write(&dir.join("collection.json"))?;

        let path = dir.join("shard");
        // What a crash during an optimisation leaves behind; the engine never looks at it again.
        let leftovers = path.join("temp_segments");
        if leftovers.exists() {
            std::fs::remove_dir_all(&leftovers).map_err(|error| fault("cannot be cleaned", error))?;
        }
        let started = std::time::Instant::now();
        let shard = open_shard(&path, spec).map_err(|error| {
            let text = error.to_string();
            if text.contains("WouldBlock") { in_use() } else { RetrievalError::Store(text) }
        })?;
        for field in payload::INDEXED {
            create_index(&shard, field)?;
        }
        let points = shard.count(CountRequest { filter: None, exact: true }).map_err(store_error)? as u64;
        tracing::info!(points, took_ms = started.elapsed().as_millis() as u64, "vector store is open");

        let (wake, woken) = channel();
        let engine = Arc::new(Engine {
            shard,
            wake: wake.clone(),
            unflushed: AtomicU64::new(0),
            written: AtomicU64::new(0),
            points: AtomicU64::new(points),
            decoded: RwLock::default(),
            gate: RwLock::new(()),
        });
        let (stop, stopped) = channel::<()>();
        let maintained = engine.clone();
        let maintenance = std::thread::Builder::new()
            .name("store-maintenance".to_owned())
            .spawn(move || {
                loop {
                    let woken = woken.recv_timeout(flush_every);
                    if matches!(woken, Err(RecvTimeoutError::Disconnected))
                        || matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected))
                    {
                        return;
                    }
                    maintained.maintain();
                }
            })
            .map_err(|error| fault("cannot start its maintenance", error))?;
        Ok(Self {
            engine,
            dir: dir.to_owned(),
            stop: Mutex::new(Some(stop)),
            maintenance: Mutex::new(Some(maintenance)),
            _lock: lock,
        })
    }

    /// Removes the store of `dir` with all it holds.
    ///
    /// # Errors
    /// When another process has it open, or the files cannot be removed.
    pub fn remove(dir: &Path) -> Result<(), RetrievalError> {
        if !dir.exists() {
            return Ok(());
        }
        let fault = |error: std::io::Error| RetrievalError::Store(format!("{}: {error}", dir.display()));
        let lock = File::create(dir.join("lock")).map_err(fault)?;
        lock.try_lock().map_err(|_| RetrievalError::StoreInUse { path: dir.display().to_string() })?;
        std::fs::remove_dir_all(dir).map_err(fault)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, RetrievalError> + Send + 'static,
    ) -> Result<T, RetrievalError> {
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || work(&engine))
            .await
            .map_err(|error| RetrievalError::Store(format!("a store task failed: {error}")))?
    }

    fn is_small(&self) -> bool {
        self.engine.points.load(Ordering::Relaxed) <= INLINE_POINTS
    }
}

impl Drop for EdgeStore {
    fn drop(&mut self) {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.engine.wake.send(());
        if let Some(thread) = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
        if let Err(error) = self.engine.shard.flush() {
            tracing::error!(%error, "the vector store could not be flushed; it replays its log at the next start");
        }
    }
}

fn open_shard(path: &Path, spec: &CollectionSpec) -> Result<EdgeShard, OperationError> {
    // A scan of the whole tenant would look at each passage's payload; through the index only those are looked at that
    // hold a word of the query.
    let sparse = EdgeSparseVectorParams {
        memory: Some(Memory::Pinned),
        full_scan_threshold: Some(0),
        ..EdgeSparseVectorParams::default()
    };
    // One thread means: in the caller's. A hop to a pool costs more than it saves below a million points, and
    // concurrent requests use the cores anyway.
    let mut config =
        EdgeConfig::builder().sparse_vector(BM25, sparse).payload_memory(Memory::Cached).max_search_threads(1);
    if spec.has_dense() {
        config =
            config.vector(DENSE, qdrant_edge::EdgeVectorParamsBuilder::new(spec.dimension, Distance::Cosine).build());
    }
    let config: EdgeConfig = config.build();
    let _: Option<&EdgeVectorParams> = config.vectors.get(DENSE);
    if path.join("edge_config.json").exists() {
        EdgeShard::load(path, Some(config))
    } else {
        EdgeShard::new(path, config)
    }
}

fn json_path(text: &str) -> Result<JsonPath, RetrievalError> {
    text.parse().map_err(|()| RetrievalError::invalid("filters.key", format!("{text:?} is not a path")))
}

fn create_index(shard: &EdgeShard, field: &str) -> Result<(), RetrievalError> {
    let params = KeywordIndexParamsBuilder::new().is_tenant(field == payload::TENANT).build();
    let schema = PayloadFieldSchema::FieldParams(PayloadSchemaParams::Keyword(params));
    let create = CreateIndex { field_name: json_path(field)?, field_schema: Some(schema) };
    shard.update(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(create))).map_err(store_error)
}

fn keyword(path: JsonPath, value: &str) -> Condition {
    let value = ValueVariants::String(value.to_owned());
    Condition::Field(FieldCondition::new_match(path, Match::new_value(value)))
}

fn scope_filter(scope: &Scope) -> Result<EngineFilter, RetrievalError> {
    let must = vec![
        keyword(json_path(payload::TENANT)?, scope.tenant.as_str()),
        keyword(json_path(payload::KB)?, scope.kb.as_str()),
    ];
    Ok(EngineFilter { must: Some(must), ..EngineFilter::new() })
}

fn full_filter(scope: &Scope, filters: &[Filter]) -> Result<EngineFilter, RetrievalError> {
    let mut filter = scope_filter(scope)?;
    for condition in filters {
        let parsed: Condition = serde_json::from_value(condition.to_json())
            .map_err(|error| RetrievalError::invalid("filters", error.to_string()))?;
        let place = if condition.is_negated() { &mut filter.must_not } else { &mut filter.must };
        place.get_or_insert_default().push(parsed);
    }
    Ok(filter)
}

fn uuid_of(id: PointId) -> Option<Uuid> {
    match id {
        PointId::Uuid(id) => Some(id),
        PointId::NumId(_) => None,
    }
}

fn payload_of(record: &mut Record) -> Map<String, Value> {
    record.payload.take().map(|payload| payload.0).unwrap_or_default()
}

fn decode(mut record: Record) -> Option<Point> {
    let id = uuid_of(record.id)?;
    let map = payload_of(&mut record);
    let mut dense = Vec::new();
    let mut sparse = Sparse::default();
    if let Some(VectorStructInternal::Named(vectors)) = record.vector {
        for vector in vectors.into_values() {
            match vector {
                VectorInternal::Dense(values) => dense = values,
                VectorInternal::Sparse(SparseVector { indices, values }) => sparse = Sparse { indices, values },
                VectorInternal::MultiDense(_) => {}
            }
        }
    }
    payload::to_point(id, map, dense, sparse)
}

fn encode(point: Point) -> PointStructPersisted {
    let payload = Payload(payload::of_point(&point));
    let mut vectors = HashMap::new();
    if !point.dense.is_empty() {
        vectors.insert(DENSE.to_owned(), VectorPersisted::Dense(point.dense));
    }
    let Sparse { indices, values } = point.sparse;
    vectors.insert(BM25.to_owned(), VectorPersisted::Sparse(SparseVector { indices, values }));
    PointStructPersisted {
        id: PointId::Uuid(point.id),
        vector: VectorStructPersisted::Named(vectors),
        payload: Some(payload),
    }
}

impl Engine {
    fn maintain(&self) {
        let flushed = self.unflushed.swap(0, Ordering::Relaxed);
        if flushed > 0
            && let Err(error) = self.shard.flush()
        {
            self.unflushed.fetch_add(flushed, Ordering::Relaxed);
            metrics::counter!("recast_store_flush_failures_total").increment(1);
            tracing::error!(%error, "the vector store could not be flushed");
        }
        if self.written.load(Ordering::Relaxed) >= OPTIMIZE_POINTS {
            self.written.store(0, Ordering::Relaxed);
            match self.shard.optimize() {
                Ok(true) => tracing::info!("vector store segments were optimised"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the vector store could not be optimised"),
            }
        }
    }

    fn update(&self, operation: UpdateOperation, changed: &[Uuid]) -> Result<(), RetrievalError> {
        let _writing = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let result = self.shard.update(operation).map_err(store_error);
        self.decoded.write().unwrap_or_else(PoisonError::into_inner).forget(changed);
        if self.unflushed.fetch_add(1, Ordering::Relaxed) + 1 >= FLUSH_OPERATIONS {
            let _ = self.wake.send(());
        }
        result
    }

    fn search(&self, request: QueryRequest) -> Result<Vec<Scored>, RetrievalError> {
        let found = self.shard.query(request).map_err(store_error)?;
        let scored = found.into_iter().filter_map(|point| Some(Scored { id: uuid_of(point.id)?, score: point.score }));
        Ok(scored.collect())
    }

    fn fetch(&self, scope: &Scope, ids: &[Uuid]) -> Result<Vec<Arc<Point>>, RetrievalError> {
        let mut found: HashMap<Uuid, Arc<Point>> = HashMap::with_capacity(ids.len());
        let mut missing = Vec::new();
        {
            let decoded = self.decoded.read().unwrap_or_else(PoisonError::into_inner);
            for id in ids {
                match decoded.0.get(id) {
                    Some(point) => {
                        found.insert(*id, point.clone());
                    }
                    None => missing.push(PointId::Uuid(*id)),
                }
            }
        }
        if !missing.is_empty() {
            let _reading = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            let request = RetrieveRequest {
                with_payload: Some(WithPayloadInterface::Bool(true)),
                with_vector: Some(WithVector::Bool(true)),
                ..RetrieveRequest::new(missing)
            };
            let records = self.shard.retrieve(request).map_err(store_error)?;
            let points: Vec<Arc<Point>> = records.into_iter().filter_map(decode).map(Arc::new).collect();
            self.decoded.write().unwrap_or_else(PoisonError::into_inner).keep(&points);
            found.extend(points.into_iter().map(|point| (point.id, point)));
        }
        Ok(ids.iter().filter_map(|id| found.remove(id)).filter(|point| point.is_in(scope)).collect())
    }

    fn scroll_all<T>(
        &self,
        filter: &EngineFilter,
        fields: &[&str],
        read: impl Fn(Uuid, Map<String, Value>) -> Option<T>,
    ) -> Result<Vec<T>, RetrievalError> {
        let paths = fields.iter().map(|field| json_path(field)).collect::<Result<Vec<_>, _>>()?;
        let mut all = Vec::new();
        let mut offset = None;
        loop {
            let request = ScrollRequest {
                offset,
                limit: Some(SCROLL_PAGE),
                filter: Some(filter.clone()),
                with_payload: Some(WithPayloadInterface::Fields(paths.clone())),
                with_vector: WithVector::Bool(false),
                order_by: None,
            };
            let (records, next) = self.shard.scroll(request).map_err(store_error)?;
            all.extend(records.into_iter().filter_map(|mut record| {
                let id = uuid_of(record.id)?;
                read(id, payload_of(&mut record))
            }));
            match next {
                Some(next) => offset = Some(next),
                None => return Ok(all),
            }
        }
    }
}

#[async_trait]
impl VectorStore for EdgeStore {
    async fn upsert(&self, points: Vec<Point>) -> Result<(), RetrievalError> {
        self.blocking(move |engine| {
            let ids: Vec<Uuid> = points.iter().map(|point| point.id).collect();
            let list = PointInsertOperations::PointsList(points.into_iter().map(encode).collect());
            engine.update(UpdateOperation::PointOperation(PointOperations::UpsertPoints(list)), &ids)?;
            engine.written.fetch_add(ids.len() as u64, Ordering::Relaxed);
            engine.points.fetch_add(ids.len() as u64, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    async fn delete(&self, ids: &[Uuid]) -> Result<(), RetrievalError> {
        let ids = ids.to_vec();
        self.blocking(move |engine| {
            let points = ids.iter().map(|id| PointId::Uuid(*id)).collect();
            engine.update(UpdateOperation::PointOperation(PointOperations::DeletePoints { ids: points }), &ids)
        })
        .await
    }

    async fn search(
        &self,
        scope: &Scope,
        filters: &[Filter],
        leg: LegQuery<'_>,
        limit: usize,
    ) -> Result<Vec<Scored>, RetrievalError> {
        let (vector, using) = match leg {
            LegQuery::Bm25(sparse) => {
                let (indices, values) = (sparse.indices.clone(), sparse.values.clone());
                (VectorInternal::Sparse(SparseVector { indices, values }), BM25)
            }
            LegQuery::Dense(values) => (VectorInternal::Dense(values.to_vec()), DENSE),
        };
        let request = QueryRequest {
            query: Some(ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery::new(vector, using)))),
            filter: Some(full_filter(scope, filters)?),
            ..QueryRequest::new(limit)
        };
        if self.is_small() {
            return self.engine.search(request);
        }
        self.blocking(move |engine| engine.search(request)).await
    }

    async fn fetch(&self, scope: &Scope, ids: &[Uuid]) -> Result<Vec<Arc<Point>>, RetrievalError> {
        // Reads some tens of points by id: tens of microseconds when all must be decoded.
        self.engine.fetch(scope, ids)
    }

    async fn document(&self, scope: &Scope, doc_id: &str) -> Result<Vec<PointHead>, RetrievalError> {
        let mut filter = scope_filter(scope)?;
        filter.must.get_or_insert_default().push(keyword(json_path(payload::DOC)?, doc_id));
        self.blocking(move |engine| engine.scroll_all(&filter, &payload::HEAD_FIELDS, payload::to_head)).await
    }

    async fn scroll(
        &self,
        scope: &Scope,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<(Vec<Point>, Option<Uuid>), RetrievalError> {
        let request = ScrollRequest {
            offset: from.map(PointId::Uuid),
            limit: Some(limit),
            filter: Some(scope_filter(scope)?),
            with_payload: Some(WithPayloadInterface::Bool(true)),
            with_vector: WithVector::Bool(true),
            order_by: None,
        };
        self.blocking(move |engine| {
            let (records, next) = engine.shard.scroll(request).map_err(store_error)?;
            Ok((records.into_iter().filter_map(decode).collect(), next.and_then(uuid_of)))
        })
        .await
    }

    async fn count(&self, scope: &Scope) -> Result<u64, RetrievalError> {
        let request = CountRequest { filter: Some(scope_filter(scope)?), exact: true };
        self.blocking(move |engine| Ok(engine.shard.count(request).map_err(store_error)? as u64)).await
    }

    async fn generations(&self) -> Result<Vec<Generation>, RetrievalError> {
        let absent = serde_json::json!({"is_empty": {"key": payload::COUNTED_KB}});
        let absent: Condition =
            serde_json::from_value(absent).map_err(|error| RetrievalError::Store(error.to_string()))?;
        let filter = EngineFilter { must_not: Some(vec![absent]), ..EngineFilter::new() };
        let fields = [payload::TENANT, payload::COUNTED_KB, "generation"];
        self.blocking(move |engine| engine.scroll_all(&filter, &fields, |_, map| payload::to_generation(map))).await
    }

    async fn set_generation(&self, generation: &Generation) -> Result<(), RetrievalError> {
        let point = PointStructPersisted {
            id: PointId::Uuid(generation.scope.generation_id()),
            vector: VectorStructPersisted::Named(HashMap::new()),
            payload: Some(Payload(payload::of_generation(generation))),
        };
        self.blocking(move |engine| {
            let list = PointInsertOperations::PointsList(vec![point]);
            engine.update(UpdateOperation::PointOperation(PointOperations::UpsertPoints(list)), &[])
        })
        .await
    }

    async fn flush(&self) -> Result<(), RetrievalError> {
        self.blocking(|engine| {
            engine.unflushed.store(0, Ordering::Relaxed);
            engine.shard.flush().map_err(store_error)
        })
        .await
    }

    async fn health(&self) -> StoreHealth {
        StoreHealth { ready: true, unflushed: self.engine.unflushed.load(Ordering::Relaxed) }
    }

    async fn backup(&self, to: &Path) -> Result<(), RetrievalError> {
        let (from, to) = (self.dir.clone(), to.to_owned());
        self.blocking(move |engine| {
            let _no_writes = engine.gate.write().unwrap_or_else(PoisonError::into_inner);
            engine.shard.flush().map_err(store_error)?;
            sparse_copy::copy_folder(&from, &to)
                .map_err(|error| RetrievalError::Store(format!("backup to {}: {error}", to.display())))
        })
        .await
    }
}
