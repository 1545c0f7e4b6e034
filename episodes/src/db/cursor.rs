//! Rows one after the other, in the memory of a few.

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;

use super::server::Portal;
use super::{Result, Row, Server, Value};

/// A prepared statement.
pub(crate) enum Statement<'c> {
    Sqlite(rusqlite::Statement<'c>),
    Postgres(&'c Server, String),
}

impl Statement<'_> {
    /// Begins to read; stands before the first row.
    ///
    /// # Errors
    /// When the database refuses it, or cannot be reached.
    pub(crate) fn open(&mut self, values: &[Value<'_>]) -> Result<Cursor<'_>> {
        Ok(match self {
            Self::Sqlite(statement) => Cursor::Sqlite(statement.query(rusqlite::params_from_iter(values))?),
            Self::Postgres(server, sql) => Cursor::Postgres(server.portal(sql, values)?),
        })
    }
}

/// A place among the rows of a statement.
pub(crate) enum Cursor<'s> {
    Sqlite(rusqlite::Rows<'s>),
    Postgres(Portal<'s>),
}

impl Cursor<'_> {
    /// Goes to the next row.
    ///
    /// # Errors
    /// When the database fails, or cannot be reached.
    pub(crate) fn advance(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(rows) => Ok(rows.advance()?),
            Self::Postgres(portal) => portal.advance(),
        }
    }

    /// The row that it stands at; `None` behind the last one.
    pub(crate) fn get(&self) -> Option<Row<'_>> {
        match self {
            Self::Sqlite(rows) => rows.get().map(Row::Sqlite),
            Self::Postgres(portal) => portal.get().map(Row::Postgres),
        }
    }
}
