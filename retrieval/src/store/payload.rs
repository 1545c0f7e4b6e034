//! Points as JSON payloads, the same on every engine.
use recast_domain::{KbName, Passage, TenantId};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::bm25::Sparse;
use crate::store::{Generation, Point, PointHead, Scope};

pub(crate) const TENANT: &str = "tenant_id";
pub(crate) const KB: &str = "kb_name";
pub(crate) const DOC: &str = "doc_id";
/// Only records of generations have it, and they have no `kb_name`: no search can return one.
pub(crate) const COUNTED_KB: &str = "counted_kb";
pub(crate) const HEAD_FIELDS: [&str; 3] = ["doc_hash", "chunk", "chunks"];
pub(crate) const INDEXED: [&str; 4] = [TENANT, KB, DOC, COUNTED_KB];

pub(crate) fn of_point(point: &Point) -> Map<String, Value> {
    let passage = &point.passage;
    let mut map = Map::new();
    map.insert(TENANT.to_owned(), json!(point.tenant.as_str()));
    map.insert(KB.to_owned(), json!(passage.kb_name.as_str()));
    map.insert(DOC.to_owned(), json!(passage.doc_id));
    map.insert("id".to_owned(), json!(passage.id));
    map.insert("title".to_owned(), json!(passage.title));
    map.insert("text".to_owned(), json!(passage.text));
    map.insert("source".to_owned(), json!(passage.source));
    map.insert("metadata".to_owned(), Value::Object(passage.metadata.clone()));
    map.insert("doc_hash".to_owned(), json!(point.doc_hash));
    map.insert("chunk".to_owned(), json!(point.chunk));
    map.insert("chunks".to_owned(), json!(point.chunks));
    map
}

fn text(map: &mut Map<String, Value>, key: &str) -> Option<String> {
    match map.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn number(map: &Map<String, Value>, key: &str) -> Option<u32> {
    u32::try_from(map.get(key)?.as_u64()?).ok()
}

/// `None` where the payload is not one of ours.
pub(crate) fn to_point(id: Uuid, mut map: Map<String, Value>, dense: Vec<f32>, sparse: Sparse) -> Option<Point> {
    let (chunk, chunks) = (number(&map, "chunk")?, number(&map, "chunks")?);
    let metadata = match map.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    let map = &mut map;
    Some(Point {
        id,
        tenant: TenantId::try_from(text(map, TENANT)?).ok()?,
        doc_hash: text(map, "doc_hash")?,
        chunk,
        chunks,
        dense,
        sparse,
        passage: Passage {
            id: text(map, "id")?,
            doc_id: text(map, DOC)?,
            title: text(map, "title")?,
            text: text(map, "text")?,
            source: text(map, "source")?,
            kb_name: KbName::try_from(text(map, KB)?).ok()?,
            metadata,
        },
    })
}

pub(crate) fn to_head(id: Uuid, mut map: Map<String, Value>) -> Option<PointHead> {
    let (chunk, chunks) = (number(&map, "chunk")?, number(&map, "chunks")?);
    Some(PointHead { id, doc_hash: text(&mut map, "doc_hash")?, chunk, chunks })
}

pub(crate) fn of_generation(generation: &Generation) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert(TENANT.to_owned(), json!(generation.scope.tenant.as_str()));
    map.insert(COUNTED_KB.to_owned(), json!(generation.scope.kb.as_str()));
    map.insert("generation".to_owned(), json!(generation.generation));
    map
}

pub(crate) fn to_generation(mut map: Map<String, Value>) -> Option<Generation> {
    let generation = map.get("generation")?.as_u64()?;
    let tenant = TenantId::try_from(text(&mut map, TENANT)?).ok()?;
    let kb = KbName::try_from(text(&mut map, COUNTED_KB)?).ok()?;
    Some(Generation { scope: Scope { tenant, kb }, generation })
}
