//! Plain HTTP/1.1 over kept-alive connections, with as little work a request as possible.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::Error;
use crate::requests::Prepared;

/// Why a request got no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// No connection could be opened.
    Connect,
    /// The connection broke before the reply was whole: the server may have done the work.
    Broken,
    /// No whole reply within the timeout: the server may have done the work.
    Timeout,
}

/// A whole reply.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The connections to one server: one is taken for each request and given back after it.
#[derive(Debug)]
pub struct Pool {
    address: String,
    host: HeaderValue,
    path: String,
    timeout: Duration,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    opened: AtomicU64,
}

impl Pool {
    /// `url` is `http://host:port`; requests go to `path` below it.
    ///
    /// # Errors
    /// The URL is not plain HTTP with a host, or the path does not start with `/`.
    pub fn new(url: &str, path: &str, timeout: Duration) -> Result<Self, Error> {
        let refuse = || Error::Argument(format!("url {url:?} is not of the form http://host:port"));
        let uri: Uri = url.parse().map_err(|_| refuse())?;
        let authority = uri.authority().ok_or_else(refuse)?;
        if uri.scheme_str() != Some("http") {
            return Err(refuse());
        }
        if !path.starts_with('/') {
            return Err(Error::Argument(format!("path {path:?} must start with /")));
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self {
            address: format!("{}:{port}", authority.host()),
            host: HeaderValue::from_str(authority.as_str()).map_err(|_| refuse())?,
            path: path.to_owned(),
            timeout,
            idle: Mutex::default(),
            opened: AtomicU64::new(0),
        })
    }

    /// Connections opened so far.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Sends a prepared body and waits for the whole reply.
    ///
    /// # Errors
    /// No whole reply came.
    pub async fn post(&self, prepared: &Prepared) -> Result<Reply, Failure> {
        let mut request = Request::new(Full::new(prepared.body.clone()));
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &prepared.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        self.send(request, &self.path).await
    }

    /// Fetches another path of the same server.
    ///
    /// # Errors
    /// No whole reply came.
    pub async fn get(&self, path: &str) -> Result<Reply, Failure> {
        self.send(Request::new(Full::default()), path).await
    }

    async fn send(&self, mut request: Request<Full<Bytes>>, path: &str) -> Result<Reply, Failure> {
        *request.uri_mut() = path.parse().map_err(|_| Failure::Connect)?;
        request.headers_mut().insert(HOST, self.host.clone());
        tokio::time::timeout(self.timeout, self.exchange(request)).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Reply, Failure> {
        // A kept connection that the server has closed meanwhile gives the request back unsent: try the next one.
        while let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(request).await {
                Ok(response) => return self.finish(sender, response).await,
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failure::Broken),
                },
            }
        }
        let mut sender = self.open().await.ok_or(Failure::Connect)?;
        let response = sender.send_request(request).await.map_err(|_| Failure::Broken)?;
        self.finish(sender, response).await
    }

    async fn finish(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Reply, Failure> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|_| Failure::Broken)?.to_bytes();
        // Only a connection that can take another request at once goes back; the wait is for our own task.
        if sender.ready().await.is_ok()
            && let Ok(mut idle) = self.idle.lock()
        {
            idle.push(sender);
        }
        Ok(Reply { status: head.status, headers: head.headers, body })
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().ok()?.pop()
    }

    async fn open(&self) -> Option<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        // Its error reaches the request that is on it.
        tokio::spawn(connection);
        Some(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_is_taken() {
        let timeout = Duration::from_secs(1);
        assert!(Pool::new("http://127.0.0.1:8080", "/general_rag", timeout).is_ok());
        for (url, path) in [("https://127.0.0.1:1", "/x"), ("127.0.0.1:80", "/x"), ("", "/x"), ("http://h:1", "x")] {
            assert!(Pool::new(url, path, timeout).is_err(), "{url} {path}");
        }
    }
}
