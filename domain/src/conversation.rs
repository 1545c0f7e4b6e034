use serde::{Deserialize, Serialize};

/// Who spoke a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person who asks.
    User,
    /// The bot that answered.
    Assistant,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Turn {
    /// Who spoke.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// A question with everything that may resolve its references. Empty text means "absent".
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// The current question as the user typed it.
    pub query: String,
    /// Earlier turns, oldest first, without the current question.
    pub history: Vec<Turn>,
    /// What is known of the asker.
    pub user_profile: String,
    /// A summary of turns that were cut.
    pub history_summary: String,
    /// The caller's note on the intent.
    pub thought: String,
}

impl Conversation {
    /// Drops the last turn where it repeats the current question, as some frontends append it before they call.
    #[must_use]
    pub fn without_repeated_question(mut self) -> Self {
        let repeats = |turn: &Turn| turn.role == Role::User && turn.content.trim() == self.query.trim();
        if self.history.last().is_some_and(repeats) {
            self.history.pop();
        }
        self
    }
}

const USER_MARKS: [&str; 4] = ["用户", "客户", "user", "human"];
const ASSISTANT_MARKS: [&str; 4] = ["助手", "客服", "assistant", "ai"];

/// Reads a history given as one text (`用户: ...\n助手: ...`) into turns.
///
/// A line that starts with no mark continues the turn before it; text before the first mark is the user's.
#[must_use]
pub fn parse_history(text: &str) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match (split_mark(line), turns.last_mut()) {
            (Some((role, content)), _) => turns.push(Turn { role, content: content.to_owned() }),
            (None, Some(turn)) => {
                turn.content.push('\n');
                turn.content.push_str(line);
            }
            (None, None) => turns.push(Turn { role: Role::User, content: line.to_owned() }),
        }
    }
    turns.retain(|turn| !turn.content.trim().is_empty());
    turns
}

fn split_mark(line: &str) -> Option<(Role, &str)> {
    let (mark, rest) = line.split_once([':', '：'])?;
    let mark = mark.trim().to_lowercase();
    let role = if USER_MARKS.contains(&mark.as_str()) {
        Role::User
    } else if ASSISTANT_MARKS.contains(&mark.as_str()) {
        Role::Assistant
    } else {
        return None;
    };
    Some((role, rest.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(role: Role, content: &str) -> Turn {
        Turn { role, content: content.to_owned() }
    }

    #[test]
    fn a_text_history_becomes_turns() {
        let turns = parse_history("用户: 胶原蛋白怎么吃\n助手：每天一瓶\n饭后更好\nUser: 谢谢");
        assert_eq!(
            turns,
            [turn(Role::User, "胶原蛋白怎么吃"), turn(Role::Assistant, "每天一瓶\n饭后更好"), turn(Role::User, "谢谢"),]
        );
    }

    #[test]
    fn a_colon_inside_a_turn_is_not_a_mark() {
        let turns = parse_history("助手: 价格: 99 元\n规格: 30ml");
        assert_eq!(turns, [turn(Role::Assistant, "价格: 99 元\n规格: 30ml")]);
    }

    #[test]
    fn the_current_question_is_dropped_once() {
        let history = vec![turn(Role::User, "能喝吗"), turn(Role::User, "能喝吗 ")];
        let conversation =
            Conversation { query: "能喝吗".into(), history, ..Conversation::default() }.without_repeated_question();
        assert_eq!(conversation.history.len(), 1);
    }
}
