//! A double of a judge's service, over HTTP: it reads the material as an honest model does, or does as it is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the service does with a question.
#[derive(Debug, Clone)]
pub enum Mood {
    /// Scores each text: 5 where it names a product, else 3.
    Scores,
    /// Answers with these words in place of JSON.
    Says(&'static str),
    /// Answers with this status and body.
    Fails(u16, Value),
}

/// A running service; it ends with the test's runtime.
pub struct JudgeService {
    /// What `judge.url` is set to.
    pub url: String,
    calls: Arc<AtomicUsize>,
    mood: Arc<Mutex<Mood>>,
}

impl JudgeService {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let (calls, mood) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Mood::Scores)));
        let (count, shared) = (Arc::clone(&calls), Arc::clone(&mood));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mood = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(answer(socket, mood));
            }
        });
        Self { url, calls, mood }
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }
}

/// One question a connection.
async fn answer(mut socket: TcpStream, mood: Mood) {
    let body = read_body(&mut socket).await;
    let (status, reply) = match mood {
        Mood::Scores => (200, chat(&scores(&body).to_string())),
        Mood::Says(words) => (200, chat(words)),
        Mood::Fails(status, reply) => (status, reply),
    };
    let reply = reply.to_string();
    let head = format!("HTTP/1.1 {status} so\r\ncontent-type: application/json\r\nconnection: close\r\n");
    let text = format!("{head}content-length: {}\r\n\r\n{reply}", reply.len());
    // A server that was killed takes no answer.
    let _ = socket.write_all(text.as_bytes()).await;
}

async fn read_body(socket: &mut TcpStream) -> Value {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 65_536]);
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            let start = head.len() + 4;
            if bytes.len() >= start + length.unwrap_or(0) {
                return serde_json::from_slice(&bytes[start..]).unwrap_or_default();
            }
        }
        match socket.read(&mut chunk).await {
            Ok(0) | Err(_) => return Value::Null,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

fn chat(content: &str) -> Value {
    json!({
        "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 200},
    })
}

/// The material is one JSON string on the second line of what the user says.
fn scores(body: &Value) -> Value {
    let user = body["messages"][1]["content"].as_str().unwrap_or_default();
    let line = user.lines().nth(1).unwrap_or_default();
    let material: Value = serde_json::from_str::<String>(line)
        .ok()
        .and_then(|material| serde_json::from_str(&material).ok())
        .unwrap_or_default();
    let row = |text: &str| {
        let named = ["胶原", "益生菌", "叶黄素"].iter().any(|name| text.contains(name));
        let score = if named { 5 } else { 3 };
        json!({"改写质量": score, "领域适配": score, "意图保持": score, "可检索性": score, "评分理由": "替身"})
    };
    match (material["rewrite"].as_str(), material["rewrites"].as_array()) {
        (Some(text), _) => row(text),
        (None, Some(entries)) => {
            let rows = entries.iter().map(|entry| {
                let mut one = row(entry["text"].as_str().unwrap_or_default());
                one["id"] = entry["id"].clone();
                one
            });
            json!({"entries": rows.collect::<Vec<_>>()})
        }
        (None, None) => Value::Null,
    }
}
