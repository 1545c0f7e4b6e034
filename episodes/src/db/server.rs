//! A connection to PostgreSQL for callers that block, on whatever thread they are.
//!
//! The connections of a process live on one thread of their own, and a call waits by parking its own thread. The
//! blocking crate `postgres` starts a runtime for each connection and so panics where a reader is used within another
//! runtime, as servers and tests do.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use recast_config::Durability;
use tokio::runtime::Runtime;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row, Statement};

use super::{Error, Result, ServerUrl, Value, dialect};

/// Statements that stay prepared on one connection; there are fewer than that.
const PREPARED_MAX: usize = 96;
/// Rows that a portal brings at a time.
const FETCH: usize = 128;

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Session {
    Write(Durability),
    Read,
}

impl Session {
    /// The settings that it needs, as options of the connection.
    fn options(self) -> String {
        match self {
            Self::Read => "-c default_transaction_read_only=on -c lock_timeout=5000".to_owned(),
            Self::Write(durability) => format!(
                "-c synchronous_commit={} -c lock_timeout=5000 -c idle_in_transaction_session_timeout=60000",
                match durability {
                    Durability::Strict => "on",
                    Durability::Group => "off",
                }
            ),
        }
    }
}

/// A connection. Its statements stay prepared.
pub(crate) struct Server {
    client: Client,
    prepared: RefCell<HashMap<String, Statement>>,
    portals: Cell<u64>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

impl Server {
    /// # Errors
    /// When the server cannot be reached within `patience`, or refuses.
    pub(crate) fn connect(url: &ServerUrl, session: Session, patience: Duration) -> Result<Self> {
        let config = url.config(&session.options(), patience);
        let task = runtime()?.spawn(async move {
            let (client, connection) = tokio::time::timeout(patience, config.connect(NoTls))
                .await
                .map_err(|_| Error::Server(format!("no connection within {} ms", patience.as_millis())))??;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to PostgreSQL ended");
                }
            });
            Ok::<_, Error>(client)
        });
        let client = wait(task).map_err(|error| Error::Server(error.to_string()))??;
        Ok(Self { client, prepared: RefCell::default(), portals: Cell::new(0) })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(super) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<usize> {
        let statement = self.prepared(sql, values)?;
        let changed = wait(self.client.execute_raw(&statement, values.iter().copied()))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    /// Runs a statement once for each row of values, without waiting for one answer before the next question.
    pub(super) fn execute_each<'v, const N: usize>(
        &self,
        sql: &str,
        rows: impl Iterator<Item = [Value<'v>; N]>,
    ) -> Result<Vec<usize>> {
        let mut rows = rows.peekable();
        let Some(first) = rows.peek() else { return Ok(Vec::new()) };
        let statement = self.prepared(sql, first)?;
        let answers = rows.map(|row| self.client.execute_raw(&statement, row));
        let changed = wait(futures::future::try_join_all(answers))?;
        Ok(changed.into_iter().map(|changed| usize::try_from(changed).unwrap_or(usize::MAX)).collect())
    }

    pub(super) fn query(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let statement = self.prepared(sql, values)?;
        Ok(wait(self.client.query(&statement, &bound(values)))?)
    }

    pub(super) fn batch(&self, sql: &str) -> Result<()> {
        Ok(wait(self.client.batch_execute(sql))?)
    }

    /// Declares a cursor, which lives until the transaction ends or it is dropped.
    pub(super) fn portal(&self, sql: &str, values: &[Value<'_>]) -> Result<Portal<'_>> {
        let number = self.portals.get();
        self.portals.set(number + 1);
        let name = format!("portal_{number}");
        let declare = format!("DECLARE {name} NO SCROLL CURSOR FOR {}", dialect::postgres(sql));
        let statement = wait(self.client.prepare_typed(&declare, &types(values)))?;
        wait(self.client.execute_raw(&statement, values.iter().copied()))?;
        Ok(Portal { server: self, name, rows: Vec::new(), at: 0, more: true })
    }

    fn prepared(&self, sql: &str, values: &[Value<'_>]) -> Result<Statement> {
        if let Some(statement) = self.prepared.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let statement = wait(self.client.prepare_typed(&dialect::postgres(sql), &types(values)))?;
        let mut prepared = self.prepared.borrow_mut();
        if prepared.len() >= PREPARED_MAX {
            prepared.clear();
        }
        prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn types(values: &[Value<'_>]) -> Vec<Type> {
    values.iter().map(Value::server_type).collect()
}

fn bound<'v>(values: &'v [Value<'_>]) -> Vec<&'v (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// The rows of one statement, some at a time.
pub(crate) struct Portal<'s> {
    server: &'s Server,
    name: String,
    rows: Vec<Row>,
    /// The row it stands at is the one before.
    at: usize,
    more: bool,
}

impl Portal<'_> {
    pub(super) fn advance(&mut self) -> Result<()> {
        if self.at >= self.rows.len() {
            self.at = 0;
            self.rows.clear();
            if !self.more {
                return Ok(());
            }
            let fetch = format!("FETCH {FETCH} FROM {}", self.name);
            self.rows = wait(self.server.client.query_typed(&fetch, &[]))?;
            self.more = self.rows.len() == FETCH;
            if self.rows.is_empty() {
                return Ok(());
            }
        }
        self.at += 1;
        Ok(())
    }

    pub(super) fn get(&self) -> Option<&Row> {
        self.at.checked_sub(1).and_then(|at| self.rows.get(at))
    }
}

impl Drop for Portal<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.server.batch(&format!("CLOSE {}", self.name)) {
            tracing::debug!(%error, "a cursor ends with its transaction");
        }
    }
}

/// The runtime of the connections: one thread for the whole process, which only passes messages on.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let start = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("episode-server").enable_all().build()
    };
    RUNTIME.get_or_init(start).as_ref().map_err(|error| Error::Server(error.to_string()))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for `future` on this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
