use std::net::SocketAddr;
use std::path::PathBuf;

use recast_domain::ErrorKind;

/// Why the gateway cannot start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Somebody listens there already.
    #[error("server.listen: {0} is in use: stop the other server, or choose another address (port 0 takes a free one)")]
    AddressInUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("server.listen: cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder of tenants is not there.
    #[error(
        "tenants.dir: {path} cannot be read ({source}): name a folder with one folder a tenant, each with a tenant.toml"
    )]
    NoTenants {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state folder cannot be made or written.
    #[error("state.dir: {path} cannot be used ({source}): name a folder that this user may write")]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tenant is broken.
    #[error(transparent)]
    Tenant(#[from] recast_config::TenantError),
    /// The key file is broken.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeyError),
    /// The rewriter cannot be loaded.
    #[error("rewriter: {0}")]
    Rewriter(#[from] recast_rewriter::RewriteError),
    /// The knowledge bases cannot be opened.
    #[error("retrieval: {0}")]
    Retrieval(#[from] recast_retrieval::RetrievalError),
    /// The judge cannot work as it is set up.
    #[error("judge: {0}")]
    Judge(#[from] recast_judge::JudgeError),
    /// Experiments of the configuration are wrong.
    #[error("experiments: {} problem(s):{}", .problems.len(), listed(.problems))]
    Experiments {
        /// All of them.
        problems: Vec<recast_experiments::Problem>,
    },
    /// The policy store cannot be opened, or its rules cannot work.
    #[error("policies: {0}")]
    Policies(String),
    /// The episode store cannot be opened.
    #[error("episodes: {0}")]
    Episodes(#[from] recast_episodes::EpisodeError),
}

fn listed(problems: &[recast_experiments::Problem]) -> String {
    problems.iter().map(|problem| format!("\n  experiments.{}: {}", problem.field, problem.message)).collect()
}

impl GatewayError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::AddressInUse(_) => ErrorKind::Conflict,
            Self::Listen { .. } | Self::StateDir { .. } => ErrorKind::Unavailable,
            Self::NoTenants { .. } => ErrorKind::NotFound,
            Self::Judge(error) => error.kind(),
            Self::Experiments { .. } | Self::Policies(_) => ErrorKind::Invalid,
            Self::Tenant(error) => error.kind(),
            Self::Keys(error) => error.kind(),
            Self::Rewriter(error) => error.kind(),
            Self::Retrieval(error) => error.kind(),
            Self::Episodes(error) => error.kind(),
        }
    }

    pub(crate) fn listen(address: SocketAddr) -> impl Fn(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::AddrInUse => Self::AddressInUse(address),
            _ => Self::Listen { address, source },
        }
    }
}
