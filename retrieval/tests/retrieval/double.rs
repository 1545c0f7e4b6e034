//! A stand-in for a Qdrant server: the generated server traits of the client's crate over the embedded engine, so that
//! the unmodified client speaks real gRPC to it. It proves our requests and how we read answers, no cluster.
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use ::qdrant_client::qdrant::collections_server::{Collections, CollectionsServer};
use ::qdrant_client::qdrant::points_server::{Points, PointsServer};
use ::qdrant_client::qdrant::qdrant_server::{Qdrant, QdrantServer};
use ::qdrant_client::qdrant::*;
use qdrant_edge as edge;
use serde_json::{Value as Json, json};
use tonic::{Request, Response, Status};

struct Collection {
    shard: edge::EdgeShard,
    metadata: HashMap<String, Value>,
    _folder: tempfile::TempDir,
}

#[derive(Clone, Default)]
pub struct Double {
    collections: Arc<Mutex<HashMap<String, Arc<Collection>>>>,
}

type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// Writes out what `async_trait` would make of each method, as it does not see through macros.
macro_rules! rpc {
    ($($name:ident($me:ident, $request:ident: $in:ty) -> $out:ty $body:block)*) => { $(
        fn $name<'life0, 'async_trait>(&'life0 self, request: Request<$in>) -> Reply<'async_trait, $out>
        where 'life0: 'async_trait, Self: 'async_trait {
            let $me = self.clone();
            let $request = request.into_inner();
            Box::pin(async move { let reply: Result<$out, Status> = async move { $body }.await; reply.map(Response::new) })
        }
    )* };
}
macro_rules! refused {
    ($($name:ident: $in:ty => $out:ty;)*) => { rpc! { $($name(_me, _request: $in) -> $out {
        Err(Status::unimplemented(stringify!($name)))
    })* } };
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

fn bad(what: &str) -> Status {
    Status::invalid_argument(what.to_owned())
}

impl Double {
    fn collection(&self, name: &str) -> Result<Arc<Collection>, Status> {
        let found = self.collections.lock().unwrap().get(name).cloned();
        found.ok_or_else(|| Status::not_found(format!("no collection {name}")))
    }

    fn update(&self, name: &str, operation: edge::UpdateOperation) -> Result<PointsOperationResponse, Status> {
        self.collection(name)?.shard.update(operation).map_err(internal)?;
        let result = Some(UpdateResult { operation_id: None, status: UpdateStatus::Completed.into() });
        Ok(PointsOperationResponse { result, ..Default::default() })
    }

    /// Serves on a free port until the runtime ends; returns the address.
    pub async fn serve() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let double = Self::default();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder()
            .add_service(PointsServer::new(double.clone()))
            .add_service(CollectionsServer::new(double.clone()))
            .add_service(QdrantServer::new(double));
        tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        address
    }
}

fn point_id(id: Option<PointId>) -> Result<edge::PointId, Status> {
    match id.and_then(|id| id.point_id_options) {
        Some(point_id::PointIdOptions::Uuid(text)) => text.parse().map(edge::PointId::Uuid).map_err(internal),
        _ => Err(bad("point id")),
    }
}

fn proto_id(id: edge::PointId) -> PointId {
    match id {
        edge::PointId::Uuid(id) => id.to_string().into(),
        edge::PointId::NumId(id) => id.into(),
    }
}

fn condition(condition: Condition) -> Result<Json, Status> {
    use condition::ConditionOneOf;
    match condition.condition_one_of.ok_or_else(|| bad("condition"))? {
        ConditionOneOf::Filter(inner) => filter_json(inner),
        ConditionOneOf::IsEmpty(empty) => Ok(json!({"is_empty": {"key": empty.key}})),
        ConditionOneOf::Field(field) => {
            if let Some(range) = field.range {
                let range = json!({"gt": range.gt, "gte": range.gte, "lt": range.lt, "lte": range.lte});
                return Ok(json!({"key": field.key, "range": range}));
            }
            use r#match::MatchValue;
            let value = match field.r#match.and_then(|found| found.match_value) {
                Some(MatchValue::Keyword(value)) => json!(value),
                Some(MatchValue::Keywords(values)) => {
                    return Ok(json!({"key": field.key, "match": {"any": values.strings}}));
                }
                Some(MatchValue::Integer(value)) => json!(value),
                Some(MatchValue::Boolean(value)) => json!(value),
                _ => return Err(Status::unimplemented("match")),
            };
            Ok(json!({"key": field.key, "match": {"value": value}}))
        }
        _ => Err(Status::unimplemented("condition")),
    }
}

fn filter_json(filter: Filter) -> Result<Json, Status> {
    let mut map = serde_json::Map::new();
    for (name, list) in [("must", filter.must), ("should", filter.should), ("must_not", filter.must_not)] {
        if !list.is_empty() {
            map.insert(name.to_owned(), list.into_iter().map(condition).collect::<Result<Vec<_>, _>>()?.into());
        }
    }
    Ok(Json::Object(map))
}

fn filter(filter: Option<Filter>) -> Result<Option<edge::Filter>, Status> {
    filter.map(|filter| serde_json::from_value(filter_json(filter)?).map_err(internal)).transpose()
}

#[expect(deprecated, reason = "the client still fills the old fields")]
fn vector(vector: Vector) -> edge::VectorPersisted {
    let sparse = |indices, values| edge::VectorPersisted::Sparse(edge::SparseVector { indices, values });
    match vector.vector {
        Some(vector::Vector::Dense(dense)) => edge::VectorPersisted::Dense(dense.data),
        Some(vector::Vector::Sparse(found)) => sparse(found.indices, found.values),
        _ => match vector.indices {
            Some(indices) => sparse(indices.data, vector.data),
            None => edge::VectorPersisted::Dense(vector.data),
        },
    }
}

fn output(vectors: Option<edge::VectorStructInternal>) -> Option<VectorsOutput> {
    let Some(edge::VectorStructInternal::Named(named)) = vectors else { return None };
    let vectors = named.into_iter().filter_map(|(name, vector)| {
        let vector = match vector {
            edge::VectorInternal::Dense(data) => vector_output::Vector::Dense(DenseVector { data }),
            edge::VectorInternal::Sparse(edge::SparseVector { indices, values }) => {
                vector_output::Vector::Sparse(SparseVector { values, indices })
            }
            edge::VectorInternal::MultiDense(_) => return None,
        };
        Some((name, VectorOutput { vector: Some(vector), ..Default::default() }))
    });
    let vectors = NamedVectorsOutput { vectors: vectors.collect() };
    Some(VectorsOutput { vectors_options: Some(vectors_output::VectorsOptions::Vectors(vectors)) })
}

fn retrieved(record: edge::Record) -> RetrievedPoint {
    let payload: HashMap<String, Value> =
        record.payload.map(|payload| ::qdrant_client::Payload::from(payload.0).into()).unwrap_or_default();
    RetrievedPoint { id: Some(proto_id(record.id)), payload, vectors: output(record.vector), ..Default::default() }
}

impl Points for Double {
    rpc! {
        upsert(me, request: UpsertPoints) -> PointsOperationResponse {
            let mut points = Vec::new();
            for point in request.points {
                let named = match point.vectors.and_then(|vectors| vectors.vectors_options) {
                    Some(vectors::VectorsOptions::Vectors(named)) => named.vectors,
                    _ => return Err(bad("vectors")),
                };
                let payload: serde_json::Map<String, Json> = ::qdrant_client::Payload::from(point.payload).into();
                points.push(edge::PointStructPersisted {
                    id: point_id(point.id)?,
                    vector: edge::VectorStructPersisted::Named(
                        named.into_iter().map(|(name, found)| (name, vector(found))).collect(),
                    ),
                    payload: Some(edge::Payload(payload)),
                });
            }
            let list = edge::PointInsertOperations::PointsList(points);
            me.update(&request.collection_name,
                edge::UpdateOperation::PointOperation(edge::PointOperations::UpsertPoints(list)))
        }
        delete(me, request: DeletePoints) -> PointsOperationResponse {
            let Some(points_selector::PointsSelectorOneOf::Points(list)) =
                request.points.and_then(|points| points.points_selector_one_of) else { return Err(bad("points")) };
            let ids = list.ids.into_iter().map(|id| point_id(Some(id))).collect::<Result<_, _>>()?;
            me.update(&request.collection_name,
                edge::UpdateOperation::PointOperation(edge::PointOperations::DeletePoints { ids }))
        }
        get(me, request: GetPoints) -> GetResponse {
            let ids = request.ids.into_iter().map(|id| point_id(Some(id))).collect::<Result<_, _>>()?;
            let wanted = edge::RetrieveRequest {
                with_payload: Some(true.into()), with_vector: Some(true.into()), ..edge::RetrieveRequest::new(ids)
            };
            let records = me.collection(&request.collection_name)?.shard.retrieve(wanted).map_err(internal)?;
            Ok(GetResponse { result: records.into_iter().map(retrieved).collect(), ..Default::default() })
        }
        create_field_index(me, request: CreateFieldIndexCollection) -> PointsOperationResponse {
            let schema = edge::PayloadFieldSchema::FieldType(edge::PayloadSchemaType::Keyword);
            let create = edge::CreateIndex {
                field_name: request.field_name.parse().map_err(|()| bad("field name"))?, field_schema: Some(schema),
            };
            me.update(&request.collection_name,
                edge::UpdateOperation::FieldIndexOperation(edge::FieldIndexOperations::CreateIndex(create)))
        }
        scroll(me, request: ScrollPoints) -> ScrollResponse {
            let vectors = matches!(
                request.with_vectors.and_then(|selector| selector.selector_options),
                Some(with_vectors_selector::SelectorOptions::Enable(true))
            );
            let wanted = edge::ScrollRequest {
                offset: request.offset.map(|id| point_id(Some(id))).transpose()?,
                limit: request.limit.map(|limit| limit as usize),
                filter: filter(request.filter)?,
                with_payload: Some(true.into()),
                with_vector: vectors.into(),
                order_by: None,
            };
            let (records, next) = me.collection(&request.collection_name)?.shard.scroll(wanted).map_err(internal)?;
            Ok(ScrollResponse {
                next_page_offset: next.map(proto_id),
                result: records.into_iter().map(retrieved).collect(),
                ..Default::default()
            })
        }
        count(me, request: CountPoints) -> CountResponse {
            let wanted = edge::CountRequest { filter: filter(request.filter)?, exact: request.exact.unwrap_or(true) };
            let count = me.collection(&request.collection_name)?.shard.count(wanted).map_err(internal)? as u64;
            Ok(CountResponse { result: Some(CountResult { count }), ..Default::default() })
        }
        query(me, request: QueryPoints) -> QueryResponse {
            let Some(query::Variant::Nearest(input)) = request.query.and_then(|query| query.variant)
                else { return Err(Status::unimplemented("query")) };
            let vector = match input.variant {
                Some(vector_input::Variant::Dense(dense)) => edge::VectorInternal::Dense(dense.data),
                Some(vector_input::Variant::Sparse(SparseVector { values, indices })) => {
                    edge::VectorInternal::Sparse(edge::SparseVector { indices, values })
                }
                _ => return Err(Status::unimplemented("vector")),
            };
            let named = edge::NamedQuery::new(vector, request.using.unwrap_or_default());
            let wanted = edge::QueryRequest {
                query: Some(edge::ScoringQuery::Vector(edge::QueryEnum::Nearest(named))),
                filter: filter(request.filter)?,
                ..edge::QueryRequest::new(request.limit.unwrap_or(10) as usize)
            };
            let found = me.collection(&request.collection_name)?.shard.query(wanted)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let result = found.into_iter().map(|point| ScoredPoint {
                id: Some(proto_id(point.id)), score: point.score, ..Default::default()
            });
            Ok(QueryResponse { result: result.collect(), ..Default::default() })
        }
    }
    refused! {
        update_vectors: UpdatePointVectors => PointsOperationResponse;
        delete_vectors: DeletePointVectors => PointsOperationResponse;
        set_payload: SetPayloadPoints => PointsOperationResponse;
        overwrite_payload: SetPayloadPoints => PointsOperationResponse;
        delete_payload: DeletePayloadPoints => PointsOperationResponse;
        clear_payload: ClearPayloadPoints => PointsOperationResponse;
        delete_field_index: DeleteFieldIndexCollection => PointsOperationResponse;
        create_vector_name: CreateVectorNameRequest => PointsOperationResponse;
        delete_vector_name: DeleteVectorNameRequest => PointsOperationResponse;
        search: SearchPoints => SearchResponse;
        search_batch: SearchBatchPoints => SearchBatchResponse;
        search_groups: SearchPointGroups => SearchGroupsResponse;
        recommend: RecommendPoints => RecommendResponse;
        recommend_batch: RecommendBatchPoints => RecommendBatchResponse;
        recommend_groups: RecommendPointGroups => RecommendGroupsResponse;
        discover: DiscoverPoints => DiscoverResponse;
        discover_batch: DiscoverBatchPoints => DiscoverBatchResponse;
        update_batch: UpdateBatchPoints => UpdateBatchResponse;
        query_batch: QueryBatchPoints => QueryBatchResponse;
        query_groups: QueryPointGroups => QueryGroupsResponse;
        facet: FacetCounts => FacetResponse;
        search_matrix_pairs: SearchMatrixPoints => SearchMatrixPairsResponse;
        search_matrix_offsets: SearchMatrixPoints => SearchMatrixOffsetsResponse;
    }
}

impl Collections for Double {
    rpc! {
        get(me, request: GetCollectionInfoRequest) -> GetCollectionInfoResponse {
            let collection = me.collection(&request.collection_name)?;
            let config = CollectionConfig { metadata: collection.metadata.clone(), ..Default::default() };
            let info = CollectionInfo { config: Some(config), ..Default::default() };
            Ok(GetCollectionInfoResponse { result: Some(info), time: 0.0 })
        }
        create(me, request: CreateCollection) -> CollectionOperationResponse {
            let mut config = edge::EdgeConfig::builder();
            for name in request.sparse_vectors_config.unwrap_or_default().map.into_keys() {
                config = config.sparse_vector(name, edge::EdgeSparseVectorParams::default());
            }
            if let Some(vectors_config::Config::ParamsMap(dense)) =
                request.vectors_config.and_then(|vectors| vectors.config) {
                for (name, params) in dense.map {
                    let size = params.size as usize;
                    config = config.vector(name, edge::EdgeVectorParamsBuilder::new(size, edge::Distance::Cosine).build());
                }
            }
            let folder = tempfile::tempdir().map_err(internal)?;
            let shard = edge::EdgeShard::new(folder.path(), config.max_search_threads(1).build()).map_err(internal)?;
            let collection = Arc::new(Collection { shard, metadata: request.metadata, _folder: folder });
            me.collections.lock().unwrap().insert(request.collection_name, collection);
            Ok(CollectionOperationResponse { result: true, time: 0.0 })
        }
        delete(me, request: DeleteCollection) -> CollectionOperationResponse {
            let result = me.collections.lock().unwrap().remove(&request.collection_name).is_some();
            Ok(CollectionOperationResponse { result, time: 0.0 })
        }
        collection_exists(me, request: CollectionExistsRequest) -> CollectionExistsResponse {
            let exists = me.collection(&request.collection_name).is_ok();
            Ok(CollectionExistsResponse { result: Some(CollectionExists { exists }), time: 0.0 })
        }
    }
    refused! {
        list: ListCollectionsRequest => ListCollectionsResponse;
        update: UpdateCollection => CollectionOperationResponse;
        update_aliases: ChangeAliases => CollectionOperationResponse;
        list_collection_aliases: ListCollectionAliasesRequest => ListAliasesResponse;
        list_aliases: ListAliasesRequest => ListAliasesResponse;
        collection_cluster_info: CollectionClusterInfoRequest => CollectionClusterInfoResponse;
        update_collection_cluster_setup: UpdateCollectionClusterSetupRequest => UpdateCollectionClusterSetupResponse;
        create_shard_key: CreateShardKeyRequest => CreateShardKeyResponse;
        delete_shard_key: DeleteShardKeyRequest => DeleteShardKeyResponse;
        list_shard_keys: ListShardKeysRequest => ListShardKeysResponse;
    }
}

impl Qdrant for Double {
    rpc! {
        health_check(_me, _request: HealthCheckRequest) -> HealthCheckReply { Ok(HealthCheckReply::default()) }
    }
}
