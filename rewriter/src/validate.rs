//! What counts as a query. A model or a service may write anything; only what passes here is searched for.

/// A rewrite may always have this many characters.
const ALWAYS_ALLOWED_CHARS: usize = 80;
/// Beyond that, this many times the characters of the query.
const LENGTH_RATIO: usize = 5;

/// Parts that only a prompt or an echoed instruction holds. Lower case.
const MARKERS: [&str; 10] = [
    "<think",
    "</think",
    "<|im_",
    "<|endoftext",
    "<|",
    "[inst]",
    "<<sys>>",
    "thought process:",
    "思考过程：",
    "思考过程:",
];
/// How a reply starts that plays a role instead of writing a query. Lower case.
const ROLE_PREFIXES: [&str; 8] =
    ["system:", "assistant:", "user:", "human:", "system：", "assistant：", "助手：", "助手:"];

/// Why a text is no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRewrite {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// No letter, no character, no digit.
    #[error("it holds no word")]
    Junk,
    /// Far longer than the query.
    #[error("it has {found} characters, {allowed} are allowed")]
    TooLong {
        /// Its characters.
        found: usize,
        /// The bound for this query.
        allowed: usize,
    },
    /// It holds a mark of a prompt, a role or a reasoning block.
    #[error("it holds the marker {0:?}")]
    Marker(&'static str),
    /// It holds characters that no query has.
    #[error("it holds control characters")]
    Control,
}

/// The trimmed rewrite, where it is one. The user's own query is always one.
///
/// # Errors
/// When the text is empty, junk, longer than five queries (and than 80 characters), or holds markers.
pub fn checked_rewrite<'a>(query: &str, text: &'a str) -> Result<&'a str, InvalidRewrite> {
    let text = text.trim();
    if text.is_empty() {
        return Err(InvalidRewrite::Empty);
    }
    if text == query.trim() {
        return Ok(text);
    }
    if !text.chars().any(char::is_alphanumeric) {
        return Err(InvalidRewrite::Junk);
    }
    if text.chars().any(|c| (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || c == char::REPLACEMENT_CHARACTER) {
        return Err(InvalidRewrite::Control);
    }
    let found = text.chars().count();
    let allowed = (LENGTH_RATIO * query.trim().chars().count()).max(ALWAYS_ALLOWED_CHARS);
    if found > allowed {
        return Err(InvalidRewrite::TooLong { found, allowed });
    }
    let lower = text.to_lowercase();
    if let Some(marker) = MARKERS.iter().find(|marker| lower.contains(**marker)) {
        return Err(InvalidRewrite::Marker(marker));
    }
    let role = |line: &str| ROLE_PREFIXES.iter().copied().find(|prefix| line.trim_start().starts_with(prefix));
    match lower.lines().find_map(role) {
        Some(prefix) => Err(InvalidRewrite::Marker(prefix)),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_pass_trimmed() {
        assert_eq!(checked_rewrite("能喝吗", " 胶原蛋白肽 孕妇禁忌\n"), Ok("胶原蛋白肽 孕妇禁忌"));
        assert_eq!(checked_rewrite("what cap", "super contribution cap 2024-25"), Ok("super contribution cap 2024-25"));
        assert!(checked_rewrite("?", "5%<3").is_ok());
    }

    #[test]
    fn the_users_own_query_is_legal_whatever_it_holds() {
        for query in ["???", "<|im_start|>", "system: hi"] {
            assert_eq!(checked_rewrite(query, query), Ok(query));
        }
    }

    #[test]
    fn what_is_no_query_is_refused() {
        let check = |text: &str| checked_rewrite("能喝吗", text).unwrap_err();
        assert_eq!(check(" \n\t"), InvalidRewrite::Empty);
        for junk in ["。。。", ":", "!?-—…", "“”"] {
            assert_eq!(check(junk), InvalidRewrite::Junk);
        }
        assert_eq!(check(&"长".repeat(81)), InvalidRewrite::TooLong { found: 81, allowed: 80 });
        assert_eq!(check("a\0b"), InvalidRewrite::Control);
        assert_eq!(check("胶原\u{FFFD}"), InvalidRewrite::Control);
        let marked = [
            "<think>好的</think>胶原",
            "胶原<|im_end|>",
            "<|IM_START|>system",
            "Thought process: the user asks",
            "assistant: 胶原蛋白",
            "胶原\nsystem: ignore",
            "[INST] x [/INST]",
        ];
        for text in marked {
            assert!(matches!(check(text), InvalidRewrite::Marker(_)), "{text}");
        }
    }

    #[test]
    fn a_long_question_allows_a_long_rewrite() {
        let query = "长".repeat(40);
        assert!(checked_rewrite(&query, &"短".repeat(200)).is_ok());
        assert!(checked_rewrite(&query, &"短".repeat(201)).is_err());
    }
}
