//! Three arms over the questions that were replayed: as typed, the live rewriter, and the teacher in its shadow.

use std::sync::Arc;

use recast_domain::{Episode, ShadowAnswer};
use recast_gateway::{Pipeline, QuerySource, RunOptions};

use super::questions::Questions;
use crate::experiment::{Labelled, label_table};
use crate::labelled;

/// A live answer with the one of the shadow.
pub struct LivePair {
    /// What the asker got.
    pub episode: Episode,
    /// What the teacher would have given.
    pub shadow: ShadowAnswer,
}

/// The label metrics of all three, over the pairs whose dialogue is known.
///
/// # Errors
/// When a question as typed cannot be searched.
pub async fn table(pipeline: &Pipeline, questions: &Questions<'_>, pairs: &[LivePair]) -> anyhow::Result<String> {
    let (mut raw, mut live, mut teacher) = (Vec::new(), Vec::new(), Vec::new());
    for LivePair { episode, shadow } in pairs {
        let Some(asked) = questions.dialogue(&episode.request.request_id) else { continue };
        let grades = labelled::grades(asked.dialogue);
        let options = RunOptions {
            query: QuerySource::PassThrough,
            top_k: usize::try_from(episode.request.top_k)?,
            score_threshold: episode.request.score_threshold,
            ..RunOptions::default()
        };
        let trace = pipeline.run(&Arc::clone(asked.tenant), &episode.conversation, options).await?.trace;
        let ids: Vec<&str> = trace.hits.iter().map(|hit| hit.passage.id.as_str()).collect();
        raw.push(Labelled::of(&ids, &grades));
        let ids = |hits: &[recast_domain::EpisodeHit]| hits.iter().map(|hit| hit.id.clone()).collect::<Vec<_>>();
        live.push(Labelled::of(&ids(&episode.hits), &grades));
        teacher.push(Labelled::of(&ids(&shadow.hits), &grades));
    }
    Ok(label_table(&[("as typed", raw), ("local", live), ("teacher", teacher)]))
}
