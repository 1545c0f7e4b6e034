//! The arms held against labels: the live rewriter, the teacher in its shadow, and the questions as typed.

use recast_domain::{Episode, EpisodeHit, ShadowAnswer};
use recast_gateway::{Pipeline, QuerySource, RunOptions};
use recast_retrieval::eval::metrics::Grades;

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

/// The label metrics of the live rewriter and of the teacher, over the pairs whose dialogue is known; with a pipeline
/// also those of the questions as typed.
///
/// # Errors
/// When a question as typed cannot be searched.
pub async fn table(raw: Option<&Pipeline>, questions: &Questions<'_>, pairs: &[LivePair]) -> anyhow::Result<String> {
    let (mut typed, mut live, mut teacher) = (Vec::new(), Vec::new(), Vec::new());
    for LivePair { episode, shadow } in pairs {
        let Some(asked) = questions.dialogue(&episode.request.request_id) else { continue };
        let grades = labelled::grades(asked.dialogue);
        if let Some(pipeline) = raw {
            let options = RunOptions {
                query: QuerySource::PassThrough,
                top_k: usize::try_from(episode.request.top_k)?,
                score_threshold: episode.request.score_threshold,
                ..RunOptions::default()
            };
            let trace = pipeline.run(asked.tenant, &episode.conversation, options).await?.trace;
            let ids: Vec<&str> = trace.hits.iter().map(|hit| hit.passage.id.as_str()).collect();
            typed.push(Labelled::of(&ids, &grades));
        }
        live.push(of_hits(&episode.hits, &grades));
        teacher.push(of_hits(&shadow.hits, &grades));
    }
    let mut arms = vec![("local", live), ("teacher", teacher)];
    if raw.is_some() {
        arms.insert(0, ("as typed", typed));
    }
    Ok(label_table(&arms))
}

fn of_hits(hits: &[EpisodeHit], grades: &Grades) -> Labelled {
    let ids: Vec<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
    Labelled::of(&ids, grades)
}
