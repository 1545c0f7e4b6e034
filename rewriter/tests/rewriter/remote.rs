//! The client of the 32B service against servers that do what servers do.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant as Clock};

use recast_config::RemoteRewriterSettings;
use recast_domain::RewriteSource;
use recast_rewriter::{RemoteRewriter, RewriteError, Rewriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::request;

/// What the server does with a request, by its number from zero.
#[derive(Clone)]
enum Act {
    Answer(u16, String),
    Hang,
    Close,
    Endless,
}

struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

async fn server(script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
    let (count, seen, script) = (asked.clone(), last.clone(), Arc::new(script));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (count, seen, script) = (count.clone(), seen.clone(), script.clone());
            tokio::spawn(async move {
                let _ = serve(stream, &count, &seen, &*script).await;
            });
        }
    });
    Server { address, asked, last }
}

async fn serve(
    mut stream: TcpStream,
    count: &AtomicUsize,
    seen: &Mutex<String>,
    script: &(dyn Fn(usize) -> Act + Send + Sync),
) -> std::io::Result<()> {
    let text = read_request(&mut stream).await?;
    *seen.lock().await = text;
    match script(count.fetch_add(1, Ordering::SeqCst)) {
        Act::Answer(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\nlocation: /x\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await
        }
        Act::Hang => {
            let mut rest = [0];
            stream.read(&mut rest).await.map(|_| ())
        }
        Act::Close => Ok(()),
        Act::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            loop {
                stream.write_all(b"400\r\n").await?;
                stream.write_all(&[b' '; 0x400]).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await?;
        bytes.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if let (Some(end), Some(length)) = (text.find("\r\n\r\n"), length)
            && bytes.len() >= end + 4 + length
        {
            return Ok(text);
        }
        if count == 0 {
            return Ok(text);
        }
    }
}

fn client(address: &str, timeout_ms: u64) -> RemoteRewriter {
    let settings =
        RemoteRewriterSettings { url: address.to_owned(), api_key: "secret".into(), timeout_ms, response_bytes: 4096 };
    RemoteRewriter::new(&settings).unwrap()
}

fn reply(text: &str) -> Act {
    Act::Answer(200, serde_json::json!({"rewritten_query": text, "model": "32b"}).to_string())
}

async fn ask(client: &RemoteRewriter) -> Result<recast_domain::Rewrite, RewriteError> {
    client.rewrite(&request("five", "怎么吃"), Instant::now() + Duration::from_secs(20)).await
}

#[tokio::test]
async fn it_speaks_the_contract() {
    let server = server(|_| reply(" 胶原蛋白 服用方法 ")).await;
    let rewrite = ask(&client(&format!("http://{}/", server.address), 5000)).await.unwrap();
    assert_eq!((rewrite.text.as_str(), rewrite.source), ("胶原蛋白 服用方法", RewriteSource::Remote));
    assert_eq!(rewrite.policy.as_str(), "remote");
    let sent = server.last.lock().await.clone();
    assert!(sent.starts_with("POST /api/rewrite_query HTTP/1.1"), "{sent}");
    assert!(sent.to_lowercase().contains("authorization: bearer secret"), "{sent}");
    let body: serde_json::Value = serde_json::from_str(sent.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let expected = serde_json::json!({
        "query": "怎么吃", "history": "用户: 胶原蛋白怎么吃", "thought": "", "tenant_id": "five", "user_profile": "",
        "history_summary": "",
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn garbage_is_refused_and_not_asked_for_again() {
    let cases: [(&str, &str); 9] = [
        ("好的，改写如下：胶原蛋白", "malformed"),
        ("{\"rewritten_query\": ", "malformed"),
        ("{\"query\": \"x\"}", "malformed"),
        ("{\"rewritten_query\": null}", "malformed"),
        ("[]", "malformed"),
        ("", "malformed"),
        ("{\"rewritten_query\": \"  \"}", "invalid"),
        ("{\"rewritten_query\": \"<think>嗯</think>胶原\"}", "invalid"),
        ("{\"rewritten_query\": \"。。\"}", "invalid"),
    ];
    for (body, outcome) in cases {
        let server = server(move |_| Act::Answer(200, body.to_owned())).await;
        let error = ask(&client(&format!("http://{}", server.address), 5000)).await.unwrap_err();
        assert_eq!(error.outcome(), outcome, "{body}: {error}");
        assert_eq!(server.asked.load(Ordering::SeqCst), 1, "{body}");
    }
    let long = server(|_| reply(&"长".repeat(81))).await;
    assert_eq!(ask(&client(&format!("http://{}", long.address), 5000)).await.unwrap_err().outcome(), "invalid");
}

#[tokio::test]
async fn errors_are_asked_again_once() {
    for first in [Act::Answer(500, String::new()), Act::Answer(429, String::new()), Act::Close] {
        let server = server(move |number| if number == 0 { first.clone() } else { reply("胶原蛋白") }).await;
        assert_eq!(ask(&client(&format!("http://{}", server.address), 5000)).await.unwrap().text, "胶原蛋白");
        assert_eq!(server.asked.load(Ordering::SeqCst), 2);
    }
    let refusing = server(|_| Act::Answer(404, String::new())).await;
    let error = ask(&client(&format!("http://{}", refusing.address), 5000)).await.unwrap_err();
    assert!(matches!(error, RewriteError::Status { status: 404, .. }), "{error}");
    assert_eq!(refusing.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = server(|_| Act::Answer(307, String::new())).await;
    let error = ask(&client(&format!("http://{}", server.address), 5000)).await.unwrap_err();
    assert!(matches!(error, RewriteError::Status { status: 307, .. }), "{error}");
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_silent_server_costs_its_time_limit_and_no_more() {
    let server = server(|_| Act::Hang).await;
    let started = Clock::now();
    let error = ask(&client(&format!("http://{}", server.address), 150)).await.unwrap_err();
    assert!(matches!(error, RewriteError::Timeout), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_endless_reply_is_cut() {
    let server = server(|_| Act::Endless).await;
    let error = ask(&client(&format!("http://{}", server.address), 10_000)).await.unwrap_err();
    assert!(error.to_string().contains("longer than 4096 bytes"), "{error}");
}

#[tokio::test]
async fn a_failing_server_is_left_alone() {
    let server = server(|_| Act::Answer(500, String::new())).await;
    let client = client(&format!("http://{}", server.address), 5000);
    for _ in 0..40 {
        ask(&client).await.unwrap_err();
    }
    let asked = server.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 20, "the breaker opens at the twentieth call, retries counted");
    assert!(client.breaker_open());
    assert!(matches!(ask(&client).await.unwrap_err(), RewriteError::BreakerOpen));
}

#[tokio::test]
async fn an_absent_server_and_a_wrong_address_are_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = ask(&client(&format!("http://{address}"), 5000)).await.unwrap_err();
    assert!(matches!(error, RewriteError::Unreachable(_)), "{error}");
    for url in ["", "localhost:7861", "ftp://x"] {
        let settings =
            RemoteRewriterSettings { url: url.to_owned(), api_key: "".into(), timeout_ms: 1, response_bytes: 1 };
        let error = RemoteRewriter::new(&settings).err().expect("must be refused");
        assert!(error.to_string().contains("rewriter.remote.url"), "{error}");
    }
}
