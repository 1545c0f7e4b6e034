//! Which questions a round learns from.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::Context;
use recast_config::{Settings, TenantProfile};
use recast_domain::{Conversation, TenantId};
use recast_episodes::{EpisodeFilter, EpisodeReader, Place};
use recast_gateway::Tenants;
use serde::{Deserialize, Serialize};

/// Episodes read at a time.
const PAGE: usize = 1000;
/// A fifth of the conversations are held out: never learned from, and what candidates are compared on.
const HELD_OUT: u8 = 51;

/// A question as a round remembers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// `tenant/episode`, as the gateway finds it.
    pub id: String,
    /// Whose question.
    pub tenant: TenantId,
    /// What counts as one in statistics: the conversation where it is known, else the episode.
    pub session: String,
    /// Whether it is only looked at.
    pub held_out: bool,
    /// When it was asked, milliseconds since the Unix epoch, UTC.
    pub asked_ms: i64,
    /// The question with its context.
    pub conversation: Conversation,
}

/// The newest distinct questions of these tenants, from `from_ms` on, newest first.
///
/// # Errors
/// When the episode store cannot be read.
pub fn collect(settings: &Settings, tenants: &[TenantId], from_ms: i64) -> anyhow::Result<Vec<Asked>> {
    let place = Place::of(settings)?;
    if matches!(&place, Place::File(file) if !file.exists()) {
        return Ok(Vec::new());
    }
    let reader = EpisodeReader::open(place)?;
    let most = settings.learner.max_questions / tenants.len().max(1);
    let mut asked = Vec::new();
    for tenant in tenants {
        let mut seen = HashSet::new();
        let mut filter = EpisodeFilter { from_ms: Some(from_ms), ..EpisodeFilter::newest(tenant.clone(), PAGE) };
        loop {
            let page = reader.list(&filter)?;
            let Some(last) = page.last() else { break };
            filter.after = Some(last.id);
            for episode in page {
                let content = serde_json::to_vec(&episode.conversation)?;
                if seen.len() < most && seen.insert(blake3::hash(&content)) {
                    let session = episode.request.conversation_id.unwrap_or_else(|| episode.id.to_string());
                    asked.push(Asked {
                        id: format!("{tenant}/{}", episode.id),
                        tenant: tenant.clone(),
                        held_out: is_held_out(tenant, &session),
                        session,
                        asked_ms: episode.created_ms,
                        conversation: episode.conversation,
                    });
                }
            }
            if seen.len() >= most {
                break;
            }
        }
    }
    Ok(asked)
}

/// The same answer for a conversation in every round: what was once held out is never learned from.
fn is_held_out(tenant: &TenantId, session: &str) -> bool {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"held out\0").update(tenant.as_str().as_bytes()).update(b"\0").update(session.as_bytes());
    hasher.finalize().as_bytes()[0] < HELD_OUT
}

/// Writes a round's questions, so that it goes on with the very same ones after a kill.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(path: &Path, asked: &[Asked]) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let mut text = String::new();
    for one in asked {
        text.push_str(&serde_json::to_string(one)?);
        text.push('\n');
    }
    std::fs::write(&fresh, text).with_context(|| fresh.display().to_string())?;
    std::fs::rename(&fresh, path).with_context(|| path.display().to_string())
}

/// A round's questions.
///
/// # Errors
/// When the file cannot be read, or a line is not one of ours.
pub fn read(path: &Path) -> anyhow::Result<Vec<Asked>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}: line {}", path.display(), number + 1))
    };
    text.lines().enumerate().map(line).collect()
}

/// The tenants' profiles, whose instructions prompts begin with.
///
/// # Errors
/// When a tenant's folder is at fault.
pub fn profiles(settings: &Settings) -> anyhow::Result<BTreeMap<TenantId, std::sync::Arc<TenantProfile>>> {
    let tenants = Tenants::open(&settings.tenants.dir)?;
    Ok(tenants.snapshot().iter().map(|(id, profile)| (id.clone(), std::sync::Arc::clone(profile))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_conversations_is_held_out_and_stays_so() {
        let tenant: TenantId = "a".parse().unwrap();
        let held = (0..5000).filter(|n| is_held_out(&tenant, &format!("c{n}"))).count();
        assert!((850..1150).contains(&held), "{held}");
        assert_eq!(is_held_out(&tenant, "c1"), is_held_out(&tenant, "c1"));
    }
}
