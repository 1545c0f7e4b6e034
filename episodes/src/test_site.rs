//! Where a test keeps its store: the same tests run over a file and, where a server is given, over PostgreSQL.

use std::io::Write as _;
use std::path::Path;
use std::sync::Once;

use recast_config::Durability;

use crate::db::{CONNECT_TIMEOUT, Connection, Place, Server, ServerUrl, Session};
use crate::link::Link;
use crate::testing::settings;
use crate::{EpisodeReader, EpisodeStore};

/// The address of a database in which the user may make schemas. `tools/with-postgres` sets it.
const SERVER: &str = "RECAST_TEST_POSTGRES";

/// A place for one store, which is gone with it.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    place: Place,
    /// The place in words that [`place_of`] understands.
    address: String,
    /// Where the place is a schema of its own: the database, and the name.
    schema: Option<(ServerUrl, String)>,
}

impl Site {
    pub(crate) fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.db");
        Self { address: path.display().to_string(), place: Place::File(path), folder, schema: None }
    }

    /// `None` where no server is given: the test is skipped, and says so.
    pub(crate) fn server() -> Option<Self> {
        static SAID: Once = Once::new();
        let Some(address) = address() else {
            // past the capture of the test's output, so that it is seen
            SAID.call_once(|| {
                let text =
                    format!("SKIPPED: the tests over PostgreSQL, {SERVER} is not set; see tools/with-postgres\n");
                std::io::stderr().write_all(text.as_bytes()).unwrap();
            });
            return None;
        };
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let database = ServerUrl::parse(&address).unwrap();
        command(&database, &format!("CREATE SCHEMA {name}"));
        let joint = if address.contains('?') { '&' } else { '?' };
        let address = format!("{address}{joint}application_name={name}&options=-c%20search_path%3D{name}");
        let folder = tempfile::tempdir().unwrap();
        Some(Self { folder, place: place_of(&address), address, schema: Some((database, name)) })
    }

    /// Where the store lies.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where the store lies, for another process.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A folder for whatever else the test writes.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn open(&self, durability: Durability) -> EpisodeStore {
        EpisodeStore::open(&self.place, &settings(durability)).unwrap()
    }

    /// A store of strict mode.
    pub(crate) fn store(&self) -> EpisodeStore {
        self.open(Durability::Strict)
    }

    pub(crate) fn reader(&self) -> EpisodeReader {
        EpisodeReader::open(&self.place).unwrap()
    }

    /// A writer's own connection; nobody else writes as long as it lives.
    pub(crate) fn connection(&self) -> Connection {
        match &self.place {
            Place::File(path) => crate::schema::open_file(path, Durability::Group).unwrap().into(),
            Place::Server(_) => Link::open(&self.place, Durability::Group).unwrap().1,
        }
    }

    /// The name that the connections of the site go by.
    pub(crate) fn name(&self) -> &str {
        self.schema.as_ref().map_or("", |(_, name)| name)
    }

    /// Whether a new connection finds its schema.
    pub(crate) fn let_in(&self, yes: bool) {
        let (here, away) = (self.name(), format!("{}_away", self.name()));
        self.outside(&if yes {
            format!("ALTER SCHEMA {away} RENAME TO {here}")
        } else {
            format!("ALTER SCHEMA {here} RENAME TO {away}")
        });
    }

    /// Runs a command on the server from outside the site.
    pub(crate) fn outside(&self, sql: &str) {
        if let Some((database, _)) = &self.schema {
            command(database, sql);
        }
    }

    /// Runs a command on the server beside the store.
    pub(crate) fn command(&self, sql: &str) {
        let Place::Server(url) = &self.place else { return };
        command(url, sql);
    }
}

/// The place of an address: a path, or a URL.
pub(crate) fn place_of(address: &str) -> Place {
    if address.starts_with("postgres") {
        Place::Server(ServerUrl::parse(address).unwrap())
    } else {
        Place::File(address.into())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some((database, name)) = &self.schema {
            command(database, &format!("SET client_min_messages = warning; DROP SCHEMA {name} CASCADE"));
        }
    }
}

/// The address of the server that is given.
pub(crate) fn address() -> Option<String> {
    std::env::var_os(SERVER).map(|address| address.into_string().unwrap())
}

fn command(url: &ServerUrl, sql: &str) {
    let server = Server::connect(url, Session::Write(Durability::Group), CONNECT_TIMEOUT).unwrap();
    Connection::Postgres(server).batch(sql).unwrap();
}

/// Makes a test of each function, over a file and over a server.
macro_rules! on_both {
    (async: $($name:ident),* $(,)?) => { on_both!(@ [.await] $($name)*); };
    ($($name:ident),* $(,)?) => { on_both!(@ [] $($name)*); };
    (@ [$($wait:tt)*] $($name:ident)*) => { on_both!(@@ [$($wait)*] [$($wait)*] $($name)*); };
    (@@ [] [] $($name:ident)*) => {
        mod on_a_file {
            $(#[test] fn $name() { super::$name(&$crate::test_site::Site::file()); })*
        }
        mod on_a_server {
            $(#[test] fn $name() {
                if let Some(site) = $crate::test_site::Site::server() { super::$name(&site); }
            })*
        }
    };
    (@@ [.await] [.await] $($name:ident)*) => {
        mod on_a_file_async {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(&$crate::test_site::Site::file()).await; })*
        }
        mod on_a_server_async {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(site) = $crate::test_site::Site::server() { super::$name(&site).await; }
            })*
        }
    };
}
pub(crate) use on_both;
