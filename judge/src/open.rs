use std::sync::Arc;

use recast_config::{JudgeKind, JudgeSettings};
use recast_domain::EpisodeId;

use crate::{HeuristicJudge, Judge, JudgeBooks, JudgeError, OpenAiJudge};

/// The judge of the settings; `None` where there is none. Nothing is sent yet: call [`Judge::probe`] at start. Without
/// books, replies and costs are forgotten with the process.
///
/// # Errors
/// When a setting cannot work.
pub fn open_judge(
    settings: &JudgeSettings,
    books: Option<Arc<dyn JudgeBooks>>,
) -> Result<Option<Arc<dyn Judge>>, JudgeError> {
    Ok(match settings.kind {
        JudgeKind::Off => None,
        JudgeKind::Heuristic => Some(Arc::new(HeuristicJudge::default())),
        JudgeKind::Openai => Some(Arc::new(OpenAiJudge::new(settings, books)?)),
    })
}

/// Whether an episode is among the share `rate` (`judge.sample_rate`) that is judged. Depends on the id alone, so that
/// asking again, or after a restart, picks the same ones.
#[must_use]
pub fn is_sampled(episode: &EpisodeId, rate: f64) -> bool {
    let hash = blake3::hash(format!("judge:{episode}").as_bytes());
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&hash.as_bytes()[..4]);
    f64::from(u32::from_le_bytes(bytes)) < rate * (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_the_choice_repeats() {
        let episodes: Vec<EpisodeId> =
            (0..2000).map(|n| format!("00000000-0000-7000-8000-{n:012x}").parse().unwrap()).collect();
        let count = |rate: f64| episodes.iter().filter(|episode| is_sampled(episode, rate)).count();
        assert_eq!((count(0.0), count(1.0)), (0, 2000));
        assert!((320..480).contains(&count(0.2)), "{}", count(0.2));
        assert!(episodes.iter().all(|episode| !is_sampled(episode, 0.2) || is_sampled(episode, 0.5)));
    }
}
