//! When a command that runs on is asked to end.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Listens for SIGTERM from its creation on, so that one that comes while models load is not lost, and for Ctrl-C.
pub struct Stop {
    terminate: Signal,
    stdin: Option<oneshot::Receiver<()>>,
}

impl Stop {
    /// Begins to listen. With `stdin`, the end of standard input counts too: that is how a program learns that whoever
    /// started it is gone, even when that one was killed.
    ///
    /// # Errors
    /// When the system refuses the signal handler.
    pub fn listen(stdin: bool) -> anyhow::Result<Self> {
        let stdin = if stdin { Some(end_of_stdin()?) } else { None };
        Ok(Self { terminate: signal(SignalKind::terminate())?, stdin })
    }

    /// Waits until the command is asked to end.
    ///
    /// # Errors
    /// When Ctrl-C cannot be waited for.
    pub async fn asked(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            _ = self.terminate.recv() => {}
            interrupt = tokio::signal::ctrl_c() => interrupt.context("waiting for Ctrl-C")?,
            () = ended(&mut self.stdin) => {}
        }
        Ok(())
    }
}

async fn ended(stdin: &mut Option<oneshot::Receiver<()>>) {
    match stdin {
        Some(end) => drop(end.await),
        None => std::future::pending().await,
    }
}

/// Reads on a thread of its own: the runtime's own reader of standard input would keep it from ending while the other
/// side stays silent.
fn end_of_stdin() -> anyhow::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    let wait = move || {
        // An error ends it as well: nothing more will come.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(wait).context("watching standard input")?;
    Ok(end)
}
