//! Where a store lies, and what its errors are called there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;

use super::Error;
use crate::error::EpisodeError;

/// Where a store lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this SQLite file.
    File(PathBuf),
    /// In a PostgreSQL database.
    Server(ServerUrl),
}

/// The address of a PostgreSQL database. Neither its text nor its debug output contains the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    // boxed: a path is a tenth of its size
    config: Box<Config>,
}

impl Place {
    /// Where `settings` put the store: `episodes.url`, or a file in `state.dir` where that is empty.
    ///
    /// # Errors
    /// When the address cannot be understood, or asks for an encrypted connection.
    pub fn of(settings: &recast_config::Settings) -> Result<Self, EpisodeError> {
        use secrecy::ExposeSecret as _;
        match settings.episodes.url.expose_secret() {
            "" => Ok(Self::File(settings.episodes_file())),
            url => Ok(Self::Server(ServerUrl::parse(url)?)),
        }
    }

    /// The file.
    ///
    /// # Errors
    /// When the store lies on a server: `tool` works on files only, and `instead` says what to do.
    pub fn file(&self, tool: &'static str, instead: &'static str) -> Result<&Path, EpisodeError> {
        match self {
            Self::File(path) => Ok(path),
            Self::Server(url) => {
                let message = format!("{tool} works on an SQLite store only");
                Err(EpisodeError::Server { place: url.to_string(), message, fix: instead })
            }
        }
    }

    /// Names the store in an error of its database.
    pub(crate) fn error(&self, error: Error) -> EpisodeError {
        match (self, error) {
            (Self::File(path), Error::Sqlite(source)) => EpisodeError::sqlite(path)(source),
            (Self::File(path), other) => EpisodeError::Damaged { path: path.clone(), message: other.to_string() },
            (Self::Server(url), error) => {
                EpisodeError::Server { place: url.to_string(), message: error.to_string(), fix: fix(&error) }
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Server(url) => write!(f, "{url}"),
        }
    }
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&PathBuf> for Place {
    fn from(path: &PathBuf) -> Self {
        Self::File(path.clone())
    }
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Self {
        place.clone()
    }
}

/// What to do about an error of a server.
fn fix(error: &Error) -> &'static str {
    match error.code() {
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            "check the user and the password in episodes.url"
        }
        Some(&SqlState::INVALID_CATALOG_NAME) => "make the database with createdb, or name another in episodes.url",
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            "grant the user of episodes.url CONNECT on the database and USAGE and CREATE on the schema"
        }
        Some(&SqlState::UNDEFINED_TABLE) => "there is no episode store: start the gateway once, or check episodes.url",
        Some(&SqlState::DISK_FULL) => "free some space on the server",
        _ if error.is_lost() => "start PostgreSQL, or check host and port in episodes.url",
        _ => "look into the log of the server",
    }
}

impl ServerUrl {
    /// # Errors
    /// When the address cannot be understood, or asks for an encrypted connection.
    pub(crate) fn parse(url: &str) -> Result<Self, EpisodeError> {
        let invalid = |message: String, fix| EpisodeError::Server { place: "episodes.url".to_owned(), message, fix };
        // the error of the parser may quote the address, password and all
        let form = "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE";
        let config: Config =
            url.parse().map_err(|_| invalid("is no address of a PostgreSQL database".to_owned(), form))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(invalid("names no host".to_owned(), form));
        }
        if !matches!(config.get_ssl_mode(), SslMode::Disable | SslMode::Prefer) {
            let fix = "use a local socket, a tunnel or a proxy that encrypts, with sslmode=disable";
            return Err(invalid("asks for TLS, which recast does not speak to PostgreSQL".to_owned(), fix));
        }
        Ok(Self { config: Box::new(config) })
    }

    /// The same with the options of a session.
    pub(super) fn config(&self, options: &str, patience: Duration) -> Config {
        let mut config = Config::clone(&self.config);
        // what the address sets comes last and wins
        config.options(match self.config.get_options() {
            Some(own) => format!("{options} {own}"),
            None => options.to_owned(),
        });
        if config.get_application_name().is_none() {
            config.application_name("recast");
        }
        config.connect_timeout(patience).ssl_mode(SslMode::Disable);
        // a server that fell silent is noticed
        config.keepalives_idle(Duration::from_secs(15)).tcp_user_timeout(Duration::from_secs(15));
        config
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => self.config.get_hostaddrs().first().map(ToString::to_string).unwrap_or_default(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        write!(f, "postgresql://{host}:{port}/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
