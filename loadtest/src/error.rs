//! What can be wrong with a run before it has a result.

/// Why a run cannot start or cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that the command line names cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The path as given.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of an input file is not what it should be.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The path as given.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong and how to mend it.
        problem: String,
    },
    /// An argument is out of range or contradicts another.
    #[error("{0}")]
    Argument(String),
    /// The server's process cannot be read.
    #[error("process {pid}: {problem}")]
    Process {
        /// The process asked for.
        pid: u32,
        /// What is wrong and how to mend it.
        problem: String,
    },
    /// The server, or the count command, did not answer as the run needs.
    #[error("{0}")]
    Answer(String),
}

impl Error {
    /// Names the file in an I/O error.
    pub fn file(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), source }
    }
}
