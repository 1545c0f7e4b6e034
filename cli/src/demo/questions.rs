//! The labelled questions that the demo asks, and the way back from an episode to its labels.

use std::collections::HashMap;
use std::sync::Arc;

use recast_config::TenantProfile;
use recast_domain::{Dialogue, Split, TenantId};

use super::replay::Question;
use crate::labelled::LabelledTenant;

/// A question's dialogue and whose it is.
pub struct Asked<'a> {
    /// Whose dialogue it is.
    pub tenant: &'a Arc<TenantProfile>,
    /// The dialogue with its labels.
    pub dialogue: &'a Dialogue,
}

/// Every question of a split, and its dialogue by the request id it is asked under.
pub struct Questions<'a> {
    /// What can be asked.
    pub questions: Vec<Question>,
    dialogues: HashMap<String, Asked<'a>>,
}

impl<'a> Questions<'a> {
    /// All dialogues of a split, each asked with a key of its tenant.
    pub fn of(tenants: &'a [LabelledTenant], split: Split, keys: &HashMap<TenantId, String>) -> Self {
        let mut questions = Vec::new();
        let mut dialogues = HashMap::new();
        for tenant in tenants {
            let Some(key) = keys.get(&tenant.profile.id) else { continue };
            for dialogue in tenant.split(split, None) {
                // A dialogue's own id may hold characters that a request id may not.
                let request_id = format!("demo-{}", questions.len());
                questions.push(Question {
                    request_id: request_id.clone(),
                    key: key.clone(),
                    conversation_id: dialogue.conversation_id.clone(),
                    conversation: dialogue.conversation(),
                });
                dialogues.insert(request_id, Asked { tenant: &tenant.profile, dialogue });
            }
        }
        Self { questions, dialogues }
    }

    /// The dialogue that a request was about. A question that is asked again has the same id with `.` and the round.
    pub fn dialogue(&self, request_id: &str) -> Option<&Asked<'a>> {
        let first = request_id.split_once('.').map_or(request_id, |(id, _)| id);
        self.dialogues.get(first)
    }
}
