//! The teacher as a second process: started on a free port, asked where it listens, gone when the demo is.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a model may take to load.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a program says on standard output once it serves.
const LISTENING: &str = "listening on ";

/// A running rewrite service. Dropping it kills the process; and since the process watches its standard input, it also
/// ends when this one is killed outright.
pub struct Service {
    /// Its address, as `http://host:port`.
    pub url: String,
    child: Child,
    /// The last that it wrote to standard error, once it has ended.
    complaints: JoinHandle<String>,
}

impl Service {
    /// Starts `recast rewriter serve` for a model folder and waits until it serves.
    ///
    /// # Errors
    /// When the folder is missing, or the process ends or stays silent; the message quotes what it printed.
    pub async fn start(model: &Path, tenants: &Path, config: &str) -> anyhow::Result<Self> {
        if !model.exists() {
            bail!(
                "--teacher {}: there is no such model folder; train a teacher, or name another model, for example \
                 --teacher models/rewriter",
                model.display()
            );
        }
        let mut command = Command::new(std::env::current_exe().context("the path of this program")?);
        command
            .args(["rewriter", "serve", "--listen", "127.0.0.1:0", "--stop-with-stdin", "--config", config])
            .arg("--model")
            .arg(model)
            .arg("--tenants")
            .arg(tenants);
        Self::spawn(command, PATIENCE).await.with_context(|| format!("the teacher ({})", model.display()))
    }

    async fn spawn(mut command: Command, patience: Duration) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot be started")?;
        let stdout = child.stdout.take().context("has no standard output")?;
        let stderr = child.stderr.take().context("has no standard error")?;
        // Read to the end, or a full pipe would stop the service at its next line.
        let complaints = tokio::spawn(tail(stderr));
        match timeout(patience, address(stdout)).await {
            Ok(Some(url)) => Ok(Self { url, child, complaints }),
            Ok(None) => {
                let status = child.wait().await?;
                bail!("ended before it served ({status}): {}", complaints.await.unwrap_or_default().trim());
            }
            Err(_) => bail!("did not serve within {} s", patience.as_secs()),
        }
    }

    /// Stops the process and waits for its end. Returns what it complained of last, where it failed.
    pub async fn stop(mut self) -> Option<String> {
        // The end of its standard input asks it to finish; a service that does not is killed by the drop.
        drop(self.child.stdin.take());
        let status = timeout(Duration::from_secs(5), self.child.wait()).await.ok()?.ok()?;
        if status.success() { None } else { self.complaints.await.ok() }
    }
}

/// The address that a program prints; the rest of its output is read and forgotten.
async fn address(stdout: impl AsyncRead + Unpin + Send + 'static) -> Option<String> {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(url) = line.strip_prefix(LISTENING) {
            let url = url.trim().to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some(url);
        }
    }
    None
}

/// The last few thousand bytes of a stream.
async fn tail(mut stream: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0_u8; 4096]);
    while let Ok(length) = stream.read(&mut chunk).await {
        if length == 0 {
            break;
        }
        kept.extend_from_slice(&chunk[..length]);
        let spare = kept.len().saturating_sub(4096);
        kept.drain(..spare);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn the_address_is_read_and_the_end_of_input_ends_the_service() {
        let service = Service::spawn(shell("echo warming up; echo listening on http://here:1; cat"), PATIENCE).await;
        let mut service = service.unwrap();
        assert_eq!(service.url, "http://here:1");
        drop(service.child.stdin.take());
        assert!(service.child.wait().await.unwrap().success());
    }

    #[tokio::test]
    async fn a_service_that_ends_early_is_quoted() {
        let error = Service::spawn(shell("echo out of paper >&2; exit 3"), PATIENCE).await.err().unwrap();
        let text = format!("{error:#}");
        assert!(text.contains("out of paper") && text.contains('3'), "{text}");
    }

    #[tokio::test]
    async fn a_missing_teacher_is_named_with_what_to_do() {
        let error = Service::start(Path::new("no/such"), Path::new("data"), "demo").await.err().unwrap();
        assert!(error.to_string().contains("--teacher no/such") && error.to_string().contains("models/rewriter"));
    }

    #[tokio::test]
    async fn dropping_a_service_kills_it() {
        let service = Service::spawn(shell("echo listening on http://here:1; exec sleep 1000 <&-"), PATIENCE).await;
        let Service { child, complaints, .. } = service.unwrap();
        drop(child);
        // Its standard error ends with the process, and not before.
        complaints.await.unwrap();
    }
}
