use serde::{Deserialize, Serialize};

use crate::{Conversation, Role};

/// The label before a summary in the chat layout.
pub const SUMMARY_LABEL: &str = "历史摘要：";
/// The label before a profile in the chat layout.
pub const PROFILE_LABEL: &str = "用户画像：";
/// The label before a note on the intent in the chat layout.
pub const THOUGHT_LABEL: &str = "思考：";
/// The label before the question in the chat layout.
pub const QUERY_LABEL: &str = "原始查询：";
/// What the chat layout ends with: the request to rewrite.
pub const REQUEST: &str = "请结合上文，把原始查询改写为适合检索的查询，只输出改写结果。";

/// A message of a chat, in the form of chat APIs and training engines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl ChatMessage {
    /// A message of `role`.
    #[must_use]
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }
}

/// The prompt of the chat layout as messages, nothing cut: the tenant's instructions, the turns, then one message of
/// summary, profile, note, question and the request. The renderer of prompts writes the same text; what it cuts to fit a
/// model's window is not cut here.
#[must_use]
pub fn chat_messages(system_prompt: &str, conversation: &Conversation) -> Vec<ChatMessage> {
    let mut messages = Vec::with_capacity(conversation.history.len() + 2);
    if !system_prompt.trim().is_empty() {
        messages.push(ChatMessage::new("system", system_prompt.trim()));
    }
    for turn in conversation.history.iter().filter(|turn| !turn.content.trim().is_empty()) {
        let role = match turn.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        messages.push(ChatMessage::new(role, turn.content.trim()));
    }
    let fields = [
        (SUMMARY_LABEL, &conversation.history_summary),
        (PROFILE_LABEL, &conversation.user_profile),
        (THOUGHT_LABEL, &conversation.thought),
        (QUERY_LABEL, &conversation.query),
    ];
    let mut text = String::new();
    for (label, content) in fields.iter().filter(|(_, content)| !content.trim().is_empty()) {
        text.push_str(label);
        text.push_str(content.trim());
        text.push('\n');
    }
    text.push_str(REQUEST);
    messages.push(ChatMessage::new("user", text));
    messages
}
