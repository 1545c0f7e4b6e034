//! Names what a search depends on apart from the documents.

use recast_retrieval::Retriever;

/// A hash of the embedder, the reranker, and every setting that moves a hit or a score. Rewards of two snapshots are not
/// compared.
#[must_use]
pub fn snapshot(retriever: &Retriever) -> String {
    let settings = retriever.settings();
    let tuning = std::fs::read(&settings.tuning).unwrap_or_default();
    let numbers = format!(
        "{:?}",
        (
            settings.candidates_per_leg,
            settings.reranked,
            settings.score_threshold,
            settings.rrf_k,
            settings.expansion_weight,
            settings.chunk_tokens,
            settings.chunk_overlap,
        )
    );
    let mut hasher = blake3::Hasher::new();
    for part in [retriever.embedder_identity(), retriever.reranker_identity(), &numbers] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.update(&tuning);
    hasher.finalize().to_hex()[..16].to_owned()
}
