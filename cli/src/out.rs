//! The two streams of a command line tool: results on stdout, everything else on stderr.

use std::io::Write;

/// Prints a line of results. A reader that went away (`| head`) is not an error.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line for the person at the terminal.
pub fn error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
