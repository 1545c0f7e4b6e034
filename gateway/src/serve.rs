//! The accept loop. `axum::serve` has no timers, so a client that sends nothing would hold a connection for ever.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// How far shutdown has come, as connections see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Normal service.
    Open,
    /// No new connections.
    Closing,
    /// Connections end as soon as they owe no reply.
    Draining,
}

/// Bounds of the listener.
#[derive(Debug, Clone, Copy)]
pub struct ServeLimits {
    /// Connections held at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// A connection that has not sent the whole head of its next request by then is closed.
    pub header_timeout: Duration,
}

/// Accepts until `phase` says `Closing`, and serves each connection in a task of `tracker`.
pub async fn accept_loop(
    listener: TcpListener,
    router: Router,
    limits: ServeLimits,
    phase: watch::Receiver<Phase>,
    tracker: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let mut builder = Builder::new(TokioExecutor::new());
    // Only HTTP/1: the detection of HTTP/2 waits for the first bytes without a timer.
    builder = builder.http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    let start = |stream: TcpStream, permit: OwnedSemaphorePermit| {
        tracker.spawn(connection(builder.clone(), router.clone(), stream, phase.clone(), permit));
    };
    let mut closing = phase.clone();
    loop {
        let Ok(permit) = Arc::clone(&places).acquire_owned().await else { return };
        tokio::select! {
            biased;
            () = reached(&mut closing, Phase::Closing) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => start(stream, permit),
                Err(error) => back_off(&error).await,
            },
        }
    }
    // Whoever is in the kernel's queue already believes to be connected: serve those too. Who would come between the last
    // look and the end of the listener would be cut off, so nobody new is let in before.
    if let Err(error) = refuse_newcomers(&listener) {
        tracing::debug!(%error, "connections that open in this moment may be cut off");
    }
    tokio::time::sleep(HANDSHAKE).await;
    while let Some(Ok((stream, _))) = futures::FutureExt::now_or_never(listener.accept()) {
        let Ok(permit) = Arc::clone(&places).try_acquire_owned() else { return };
        start(stream, permit);
    }
}

/// How long a handshake that has begun may take.
const HANDSHAKE: Duration = Duration::from_millis(50);
/// How long a connection that was opened before the end, and has not asked for anything yet, may take to do so.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Lets the kernel drop packets that would open a connection; their senders try again, and find the listener gone.
#[cfg(target_os = "linux")]
fn refuse_newcomers(listener: &TcpListener) -> std::io::Result<()> {
    use socket2::SockFilter;
    // Of the TCP header: load the byte of flags, keep SYN and ACK; SYN alone is dropped, the rest passes.
    let filter = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, 0x12),
        SockFilter::new(0x15, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    socket2::SockRef::from(listener).attach_filter(&filter)
}

#[cfg(not(target_os = "linux"))]
fn refuse_newcomers(_: &TcpListener) -> std::io::Result<()> {
    Ok(())
}

/// Waits until shutdown has come this far; a sender that is gone counts as the end.
async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let _ = phase.wait_for(|phase| *phase >= wanted).await;
}

async fn back_off(error: &std::io::Error) {
    metrics::counter!("recast_accept_errors_total").increment(1);
    tracing::warn!(%error, "a connection could not be accepted");
    // Out of file descriptors: trying again at once would spin.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn connection(
    builder: Builder<TokioExecutor>,
    router: Router,
    stream: TcpStream,
    mut phase: watch::Receiver<Phase>,
    _permit: OwnedSemaphorePermit,
) {
    // Replies are written in one piece; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "nodelay was refused");
    }
    let (used, inner) = (Arc::new(AtomicBool::new(false)), TowerToHyperService::new(router));
    let asked = Arc::clone(&used);
    let service = service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        inner.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = reached(&mut phase, Phase::Draining) => {
            // its client is about to ask; the reply says that the connection ends
            let used = used.load(Ordering::Relaxed);
            match if used { None } else { timeout(FIRST_REQUEST, connection.as_mut()).await.ok() } {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Binds the listener; port 0 takes a free one.
///
/// # Errors
/// What the system said.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    struct Running {
        address: SocketAddr,
        phase: watch::Sender<Phase>,
        tracker: TaskTracker,
        accepting: tokio::task::JoinHandle<()>,
    }

    fn start(router: Router, max_connections: usize) -> Running {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (phase, receiver) = watch::channel(Phase::Open);
        let tracker = TaskTracker::new();
        let limits = ServeLimits { max_connections, header_timeout: Duration::from_millis(200) };
        let accepting = tokio::spawn(accept_loop(listener, router, limits, receiver, tracker.clone()));
        Running { address, phase, tracker, accepting }
    }

    fn hello() -> Router {
        Router::new().route("/", get(async || "hello"))
    }

    async fn until_closed(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let _ =
            tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut text)).await.expect("it is closed");
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn a_client_that_dawdles_is_closed() {
        let server = start(hello(), 8);
        for opening in ["", "GET", "GET / HTTP/1.1\r\nhost: x\r\n", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(opening.as_bytes()).await.unwrap();
            until_closed(&mut stream).await;
        }
    }

    #[tokio::test]
    async fn a_connection_over_the_cap_waits_its_turn() {
        let server = start(hello(), 1);
        let mut first = TcpStream::connect(server.address).await.unwrap();
        let mut second = TcpStream::connect(server.address).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        until_closed(&mut first).await;
        assert!(until_closed(&mut second).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_reply_that_is_owed_is_sent_before_the_end() {
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (inside, wait) = (Arc::clone(&entered), Arc::clone(&go));
        let slow = Router::new().route(
            "/",
            get(async move || {
                inside.notify_one();
                wait.notified().await;
                "late"
            }),
        );
        let server = start(slow, 8);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        entered.notified().await;
        server.phase.send_replace(Phase::Draining);
        server.accepting.await.unwrap();
        assert!(TcpStream::connect(server.address).await.is_err(), "the listener is gone");
        go.notify_one();
        assert!(until_closed(&mut stream).await.ends_with("late"));
        server.tracker.close();
        server.tracker.wait().await;
    }
}
