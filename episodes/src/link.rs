//! The writer's way to its store. A file stays open; a server may hang up, and is called again from a thread of its own,
//! so that whoever wants to write meanwhile hears at once that it cannot be done.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use recast_config::Durability;

use crate::db::{self, Connection, Place, ServerUrl};
use crate::error::{EpisodeError, NotStored};
use crate::schema::{WriterLock, open_file};
use crate::{owner, postgres};

/// How long a batch waits for a new connection when its own just broke: a server that only restarted a process is back
/// by then, and nothing is refused.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Between two calls: at first, and at most.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How the store is held.
#[derive(Debug)]
pub(crate) enum Link {
    /// The one writer of a file.
    File { _lock: WriterLock },
    /// One of the writers of a server.
    Server(Box<ServerLink>),
}

#[derive(Debug)]
pub(crate) struct ServerLink {
    url: ServerUrl,
    durability: Durability,
    owner: i64,
    seen: Instant,
    lost: Option<Lost>,
}

/// A connection that is being sought.
#[derive(Debug)]
struct Lost {
    cause: String,
    call: Option<Receiver<Result<Connection, EpisodeError>>>,
    next: Instant,
    pause: Duration,
}

impl Link {
    /// Opens the store for writing.
    ///
    /// # Errors
    /// When another process holds the file, or the store cannot be used.
    pub(crate) fn open(place: &Place, durability: Durability) -> Result<(Self, Connection), EpisodeError> {
        match place {
            Place::File(path) => {
                let lock = WriterLock::take(path)?;
                Ok((Self::File { _lock: lock }, open_file(path, durability)?.into()))
            }
            Place::Server(url) => {
                let owner = owner::new();
                let connection = postgres::open_writer(url, durability, owner)?;
                let url = url.clone();
                let link = ServerLink { url, durability, owner, seen: Instant::now(), lost: None };
                Ok((Self::Server(Box::new(link)), connection))
            }
        }
    }

    /// Makes sure that there is a connection, without waiting for long.
    ///
    /// # Errors
    /// When there is none now; a later call may find one.
    pub(crate) fn hold(&mut self, connection: &mut Connection) -> Result<(), NotStored> {
        let Self::Server(link) = self else { return Ok(()) };
        match &mut link.lost {
            None if !connection.is_closed() => Ok(()),
            None => link.lose("it hung up".to_owned(), connection),
            Some(_) => link.seek(connection, Duration::ZERO),
        }
    }

    /// Takes note of an error. `Ok` says that there is a new connection, and what failed is worth another try.
    ///
    /// # Errors
    /// When there is none, or the error had other reasons.
    pub(crate) fn after(&mut self, error: &db::Error, connection: &mut Connection) -> Result<(), NotStored> {
        match self {
            Self::Server(link) if error.is_lost() => {
                link.lose(error.to_string(), connection)?;
                // what may have been committed is not written again: costs would count twice
                if error.is_unsure() { Err(NotStored::from(error)) } else { Ok(()) }
            }
            _ => Err(NotStored::from(error)),
        }
    }

    /// Says now and then that this writer is there, and ends the runs of those that are not. `force` does it now.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) fn tend(&mut self, connection: &mut Connection, force: bool) -> Result<(), NotStored> {
        let Self::Server(link) = self else { return Ok(()) };
        if !force && link.seen.elapsed() < owner::SEEN_EVERY {
            return Ok(());
        }
        self.hold(connection)?;
        let Self::Server(link) = self else { return Ok(()) };
        link.seen = Instant::now();
        let tended = owner::seen(connection, link.owner).and_then(|()| owner::sweep(connection));
        match tended {
            Ok(0) => Ok(()),
            Ok(ended) => {
                tracing::info!(ended, "shadow runs of a gateway that is gone are counted as dropped");
                Ok(())
            }
            Err(error) if error.is_worth_another_try() => Ok(()),
            Err(error) => self.after(&error, connection),
        }
    }

    /// Gives the store free.
    pub(crate) fn close(self, connection: Connection) {
        let closed = match (&self, &connection) {
            (Self::Server(link), _) => owner::leave(&connection, link.owner),
            (Self::File { .. }, _) => connection.first("PRAGMA wal_checkpoint(TRUNCATE)", &[], |_| Ok(())).map(drop),
        };
        if let Err(error) = closed {
            tracing::warn!(%error, "the store is not tidied: the next start does it");
        }
        // the connection first: only then may another process write
        drop(connection);
        drop(self);
    }
}

impl ServerLink {
    fn lose(&mut self, cause: String, connection: &mut Connection) -> Result<(), NotStored> {
        tracing::warn!(cause, "the connection to PostgreSQL broke");
        self.lost = Some(Lost { cause, call: None, next: Instant::now(), pause: PAUSE });
        self.seek(connection, AT_ONCE)
    }

    /// Calls when it is time to, and takes the answer when it is there within `patience`.
    fn seek(&mut self, connection: &mut Connection, patience: Duration) -> Result<(), NotStored> {
        let Some(lost) = &mut self.lost else { return Ok(()) };
        if lost.call.is_none() && Instant::now() >= lost.next {
            let (answer, call) = channel();
            let (url, durability, owner) = (self.url.clone(), self.durability, self.owner);
            let dial = move || {
                // nobody waits any more: the connection ends here
                let _ = answer.send(postgres::open_writer(&url, durability, owner));
            };
            match std::thread::Builder::new().name("episode-dial".to_owned()).spawn(dial) {
                Ok(_) => lost.call = Some(call),
                Err(error) => lost.cause = error.to_string(),
            }
        }
        let failed = match lost.call.as_ref().map(|call| call.recv_timeout(patience)) {
            None | Some(Err(RecvTimeoutError::Timeout)) => return Err(NotStored::Unreachable(lost.cause.clone())),
            Some(Ok(Ok(fresh))) => {
                *connection = fresh;
                self.lost = None;
                return Ok(());
            }
            Some(Ok(Err(EpisodeError::Server { message, .. }))) => message,
            Some(Ok(Err(error))) => error.to_string(),
            Some(Err(RecvTimeoutError::Disconnected)) => "the call broke off".to_owned(),
        };
        *lost = Lost {
            cause: failed.clone(),
            call: None,
            next: Instant::now() + lost.pause,
            pause: (lost.pause * 2).min(PAUSE_MAX),
        };
        Err(NotStored::Unreachable(failed))
    }
}
