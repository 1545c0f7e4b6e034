//! One face for the two databases: statements are written once, in what SQLite and PostgreSQL have in common, and
//! [`dialect`] says where they differ. Values and rows are borrowed on the way, so that a row costs no memory of its own.

mod cursor;
pub(crate) mod dialect;
mod error;
mod place;
mod server;
mod value;

use std::time::Duration;

pub(crate) use cursor::{Cursor, Statement};
pub(crate) use error::Error;
pub use place::Place;
pub(crate) use place::ServerUrl;
pub(crate) use server::{Server, Session};
pub(crate) use value::{Query, Row, Text, Value};

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A connection to a store. SQLite's belongs to one thread at a time, and so does this.
#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(Server),
}

impl From<rusqlite::Connection> for Connection {
    fn from(connection: rusqlite::Connection) -> Self {
        Self::Sqlite(connection)
    }
}

impl Connection {
    /// The SQLite connection, for what only a file has: pages, a log, checks of its integrity.
    pub(crate) fn file(&self) -> Option<&rusqlite::Connection> {
        match self {
            Self::Sqlite(connection) => Some(connection),
            Self::Postgres(_) => None,
        }
    }

    pub(crate) fn server(&self) -> Option<&Server> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(server) => Some(server),
        }
    }

    /// Runs a statement, which stays prepared, and returns how many rows it changed.
    ///
    /// # Errors
    /// When the database refuses it, or cannot be reached.
    pub(crate) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<usize> {
        match self {
            Self::Sqlite(connection) => {
                Ok(connection.prepare_cached(sql)?.execute(rusqlite::params_from_iter(values))?)
            }
            Self::Postgres(server) => server.execute(sql, values),
        }
    }

    /// Runs a statement once for each row of values, and returns how many rows each time changed. On a server all of
    /// them cost one round trip.
    ///
    /// # Errors
    /// When the database refuses one of them, or cannot be reached.
    pub(crate) fn execute_each<'v, const N: usize>(
        &self,
        sql: &str,
        rows: impl Iterator<Item = [Value<'v>; N]>,
    ) -> Result<Vec<usize>> {
        match self {
            Self::Sqlite(_) => rows.map(|row| self.execute(sql, &row)).collect(),
            Self::Postgres(server) => server.execute_each(sql, rows),
        }
    }

    /// All rows that a statement yields.
    ///
    /// # Errors
    /// When the database refuses it, or cannot be reached, and those of `read`.
    pub(crate) fn query<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut read: impl FnMut(Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(rusqlite::params_from_iter(values))?;
                let mut all = Vec::new();
                while let Some(row) = rows.next()? {
                    all.push(read(Row::Sqlite(row))?);
                }
                Ok(all)
            }
            Self::Postgres(server) => server.query(sql, values)?.iter().map(|row| read(Row::Postgres(row))).collect(),
        }
    }

    /// The first row that a statement yields, where there is one.
    ///
    /// # Errors
    /// See [`Connection::query`].
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnOnce(Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(rusqlite::params_from_iter(values))?;
                rows.next()?.map(|row| read(Row::Sqlite(row))).transpose()
            }
            Self::Postgres(server) => {
                server.query(sql, values)?.first().map(|row| read(Row::Postgres(row))).transpose()
            }
        }
    }

    /// The one number that `sql` yields; 0 where it yields none.
    ///
    /// # Errors
    /// See [`Connection::query`].
    pub(crate) fn number(&self, sql: &str, values: &[Value<'_>]) -> Result<i64> {
        Ok(self.first(sql, values, |row| row.get(0))?.unwrap_or(0))
    }

    /// Runs several statements that take no values and yield no rows.
    ///
    /// # Errors
    /// When the database refuses one of them, or cannot be reached.
    pub(crate) fn batch(&self, sql: &str) -> Result<()> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Self::Postgres(server) => server.batch(sql),
        }
    }

    /// Prepares a statement whose rows are read one after the other, several such statements side by side. On a server
    /// that works within a transaction only.
    ///
    /// # Errors
    /// When the database refuses it.
    pub(crate) fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        Ok(match self {
            Self::Sqlite(connection) => Statement::Sqlite(connection.prepare(sql)?),
            Self::Postgres(server) => Statement::Postgres(server, sql.to_owned()),
        })
    }

    /// Begins a transaction that writes.
    ///
    /// # Errors
    /// When the database refuses it, or cannot be reached.
    pub(crate) fn begin(&self) -> Result<Transaction<'_>> {
        match self {
            Self::Sqlite(connection) => connection.execute_batch("BEGIN IMMEDIATE")?,
            Self::Postgres(server) => server.batch(&dialect::begin_write())?,
        }
        Ok(Transaction { connection: self, open: true })
    }

    /// Begins a transaction that stays at one moment of the store, for as long as the connection lives. No writer is
    /// between its rows and its commit at that moment: whatever has a number up to the last one is there.
    ///
    /// # Errors
    /// When the database refuses it, or cannot be reached.
    pub(crate) fn begin_snapshot(&self) -> Result<()> {
        match self {
            // the first read fixes the moment
            Self::Sqlite(_) => self.batch("BEGIN"),
            Self::Postgres(_) => dialect::begin_snapshot().iter().try_for_each(|step| self.batch(step)),
        }
    }

    /// Whether the server hung up; a file never does.
    pub(crate) fn is_closed(&self) -> bool {
        self.server().is_some_and(Server::is_closed)
    }
}

/// A transaction that is undone unless it is committed.
pub(crate) struct Transaction<'c> {
    connection: &'c Connection,
    open: bool,
}

impl Transaction<'_> {
    /// # Errors
    /// When nothing of it is stored; with a lost connection to a server that is not known.
    pub(crate) fn commit(mut self) -> Result<()> {
        self.connection.batch("COMMIT").map_err(|error| match error {
            lost if lost.is_lost() => Error::Unsure(Box::new(lost)),
            other => other,
        })?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SQLite may have ended it by itself, and a server that hung up has
        let over = self.connection.file().is_some_and(rusqlite::Connection::is_autocommit);
        if self.open
            && !over
            && !self.connection.is_closed()
            && let Err(error) = self.connection.batch("ROLLBACK")
        {
            tracing::debug!(%error, "a transaction ends with its connection");
        }
    }
}

/// How long a server may take to accept a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
