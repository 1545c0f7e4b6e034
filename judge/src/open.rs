use std::sync::Arc;

use recast_config::{JudgeKind, JudgeSettings};

use crate::{HeuristicJudge, Judge, JudgeError, OpenAiJudge, VerdictStore};

/// The judge of the settings; `None` where there is none. Nothing is sent yet: call [`Judge::probe`] at start.
///
/// # Errors
/// When a setting cannot work.
pub fn open_judge(
    settings: &JudgeSettings,
    store: Option<Arc<dyn VerdictStore>>,
) -> Result<Option<Arc<dyn Judge>>, JudgeError> {
    Ok(match settings.kind {
        JudgeKind::Off => None,
        JudgeKind::Heuristic => Some(Arc::new(HeuristicJudge::default())),
        JudgeKind::Openai => Some(Arc::new(OpenAiJudge::new(settings, store)?)),
    })
}
