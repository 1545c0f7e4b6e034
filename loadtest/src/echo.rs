//! A bare axum server that answers with what it was sent: the floor that no gateway on the same stack can beat.

use axum::Router;
use axum::serve::ListenerExt;
use bytes::Bytes;
use tokio::net::TcpListener;

/// Answers every POST with its own body, until the task is dropped.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let router = Router::new().fallback(|body: Bytes| async move { body });
    // Without this the last segment of a reply may wait for an acknowledgement.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await
}
