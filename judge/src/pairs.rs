//! Pairs of rewrites that people compared, as a table: `id, tenant, history, query, rewrite_a, rewrite_b, winner, note`.
use std::collections::BTreeSet;
use std::path::Path;

use recast_domain::{Conversation, TenantId, parse_history};
use serde::{Deserialize, Serialize};

use crate::JudgeError;

/// The columns, in this order.
pub const PAIR_COLUMNS: [&str; 8] = ["id", "tenant", "history", "query", "rewrite_a", "rewrite_b", "winner", "note"];

/// Which of two rewrites is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The first.
    A,
    /// The second.
    B,
    /// Neither.
    Tie,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledPair {
    /// Unique in the table.
    pub id: String,
    /// Whose question it is.
    pub tenant: TenantId,
    /// The question with the turns before it.
    pub conversation: Conversation,
    /// The first rewrite.
    pub rewrite_a: String,
    /// The second rewrite.
    pub rewrite_b: String,
    /// The better one, as a person says.
    pub winner: Winner,
    /// Why; may be empty.
    pub note: String,
}

/// Reads a table. The history is text of the form `用户: ...`, `助手: ...`, a line a turn.
///
/// # Errors
/// When the file cannot be read, or rows are wrong: all of them are named, with their lines.
pub fn read_pairs(path: &Path) -> Result<Vec<LabelledPair>, JudgeError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| JudgeError::Unreadable { path: path.to_owned(), source })?;
    parse_pairs(&text)
        .map_err(|rows| JudgeError::Rows(rows.iter().map(|row| format!("{}: {row}", path.display())).collect()))
}

/// Reads a table from text; `Err` names every wrong row.
pub(crate) fn parse_pairs(text: &str) -> Result<Vec<LabelledPair>, Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| vec![format!("line 1: {error}")])?;
    if !header.iter().map(str::trim).eq(PAIR_COLUMNS) {
        return Err(vec![format!("line 1: the columns must be {}", PAIR_COLUMNS.join(","))]);
    }
    let (mut pairs, mut wrong, mut ids) = (Vec::new(), Vec::new(), BTreeSet::new());
    for record in reader.records() {
        let row = match record {
            Ok(row) => row,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        let line = row.position().map_or(0, csv::Position::line);
        match pair(&row) {
            Ok(pair) if ids.insert(pair.id.clone()) => pairs.push(pair),
            Ok(pair) => wrong.push(format!("line {line}: id {:?} occurs twice", pair.id)),
            Err(reason) => wrong.push(format!("line {line}: {reason}")),
        }
    }
    if wrong.is_empty() { Ok(pairs) } else { Err(wrong) }
}

fn pair(row: &csv::StringRecord) -> Result<LabelledPair, String> {
    if row.len() != PAIR_COLUMNS.len() {
        return Err(format!("{} columns instead of {}", row.len(), PAIR_COLUMNS.len()));
    }
    let text = |column: usize| row.get(column).unwrap_or_default().trim().to_owned();
    for column in [0, 3] {
        if text(column).is_empty() {
            return Err(format!("{} is empty", PAIR_COLUMNS[column]));
        }
    }
    let winner = match text(6).to_lowercase().as_str() {
        "a" => Winner::A,
        "b" => Winner::B,
        "tie" => Winner::Tie,
        other => return Err(format!("winner is {other:?}: write a, b or tie")),
    };
    Ok(LabelledPair {
        id: text(0),
        tenant: text(1).parse().map_err(|error| format!("{error}"))?,
        conversation: Conversation { query: text(3), history: parse_history(&text(2)), ..Conversation::default() },
        rewrite_a: text(4),
        rewrite_b: text(5),
        winner,
        note: text(7),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "id,tenant,history,query,rewrite_a,rewrite_b,winner,note\n";

    #[test]
    fn a_row_is_read() {
        let text = format!("\u{feff}{HEADER}p1,shop,\"用户: 甲怎么样\n助手: 很好\",能喝吗,甲 能喝吗,能喝吗,A,\n");
        let pairs = parse_pairs(&text).unwrap();
        assert_eq!((pairs[0].conversation.history.len(), pairs[0].winner), (2, Winner::A));
    }

    #[test]
    fn every_wrong_row_is_named_with_its_line() {
        let rows =
            "p1,shop,,q,a,b,a,\np1,shop,,q,a,b,b,\np3,Shop,,q,a,b,a,\np4,shop,,,a,b,a,\np5,shop,,q,a,b,c,\np6,shop,q\n";
        let wrong = parse_pairs(&format!("{HEADER}{rows}")).unwrap_err();
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        for (row, (line, word)) in
            wrong.iter().zip([(3, "twice"), (4, "Shop"), (5, "query"), (6, "winner"), (7, "columns")])
        {
            assert!(row.starts_with(&format!("line {line}:")) && row.contains(word), "{row}");
        }
        assert!(parse_pairs("id,tenant\n").unwrap_err()[0].contains("rewrite_a"));
    }
}
