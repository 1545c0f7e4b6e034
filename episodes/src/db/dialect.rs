//! Where PostgreSQL differs from SQLite. Statements are written for SQLite and rewritten once for each connection;
//! what both understand (`ON CONFLICT`, `CASE`, row values, `CAST`) is preferred to what only one does.

use std::fmt::Write as _;

/// The lock that writers share and the start of an export holds alone: two numbers, the second one of the schema.
const WRITING: &str = "(1380270931, hashtext(current_schema()))";
/// The lock of those who bring the tables up to date.
pub(crate) const MIGRATING: &str = "(1380270932, hashtext(current_schema()))";

/// Begins a transaction that adds rows.
pub(crate) fn begin_write() -> String {
    format!("BEGIN; SELECT pg_advisory_xact_lock_shared{WRITING}")
}

/// Begins a transaction that sees one moment. Numbers of rows are given out before their commit, so that a row may
/// appear behind a later one; with the lock held alone no row is on its way. The lock comes first: the first read of the
/// transaction fixes the moment.
pub(crate) fn begin_snapshot() -> [String; 3] {
    [
        format!("SELECT pg_advisory_lock{WRITING}"),
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT version FROM schema_version".to_owned(),
        format!("SELECT pg_advisory_unlock{WRITING}"),
    ]
}

/// The statement as PostgreSQL reads it: `?1` is `$1`, a row's number is a column, and no index is asked for by name or
/// by the order of a join: the server has statistics.
pub(crate) fn postgres(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut words = sql.split_inclusive(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).peekable();
    while let Some(word) = words.next() {
        let end = word.trim_end_matches(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).len();
        let (name, rest) = word.split_at(end);
        match name {
            "rowid" => {
                let _ = write!(out, "seq{rest}");
            }
            "INDEXED" => {
                // BY, and the name of the index
                words.next();
                if let Some(index) = words.next() {
                    out.push_str(
                        index.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || letter == '_'),
                    );
                }
            }
            "CROSS" => {}
            _ => out.push_str(&word.replace('?', "$")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_rewritten_and_nothing_else() {
        for (sqlite, expected) in [
            ("INSERT INTO t VALUES (?1, ?12)", "INSERT INTO t VALUES ($1, $12)"),
            ("SELECT max(rowid) FROM t WHERE rowid <= ?1", "SELECT max(seq) FROM t WHERE seq <= $1"),
            ("FROM episodes AS e INDEXED BY by_time CROSS JOIN f", "FROM episodes AS e  JOIN f"),
            ("FROM e INDEXED BY by_time\n    WHERE a = 'pending'", "FROM e \n    WHERE a = 'pending'"),
        ] {
            assert_eq!(postgres(sqlite), expected);
        }
    }
}
