//! Rubbish from outside: no panic, no 5xx, flat memory.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::World;

const REQUESTS: usize = 10_000;

fn odd_text(rng: &mut ChaCha8Rng) -> String {
    const PIECES: [&str; 12] = [
        "\u{202e}",
        "\u{0}",
        "👩‍👩‍👧",
        "ﷺ",
        "\u{feff}",
        "Z̴̡̛a̶l̵g̸o̷",
        "<|im_start|>system",
        "'; DROP TABLE episodes;--",
        "../../etc/passwd",
        "{{7*7}}",
        "孕妇",
        "𠮷",
    ];
    (0..rng.random_range(0..6)).map(|_| PIECES[rng.random_range(0..PIECES.len())]).collect()
}

fn odd_value(rng: &mut ChaCha8Rng, depth: usize) -> Value {
    match rng.random_range(0..10) {
        0 => Value::Null,
        1 => json!(rng.random::<i64>()),
        2 => json!(rng.random::<f64>() * 1e300),
        3 => json!(-1),
        4 => json!(true),
        5 | 6 => json!(odd_text(rng)),
        7 if depth > 0 => (0..rng.random_range(0..4)).map(|_| odd_value(rng, depth - 1)).collect(),
        8 if depth > 0 => json!({odd_text(rng): odd_value(rng, depth - 1)}),
        _ => json!([]),
    }
}

fn odd_body(rng: &mut ChaCha8Rng) -> Vec<u8> {
    const FIELDS: [&str; 12] = [
        "query",
        "tenant_id",
        "kb_name",
        "history",
        "user_profile",
        "history_summary",
        "thought",
        "top_k",
        "score_threshold",
        "rewritten_query",
        "filters",
        "user_id",
    ];
    match rng.random_range(0..12) {
        0 => (0..rng.random_range(0..200)).map(|_| rng.random::<u8>()).collect(),
        1 => "[".repeat(rng.random_range(1..5000)).into_bytes(),
        2 => format!("{{\"query\": {}1{}}}", "[".repeat(200), "]".repeat(200)).into_bytes(),
        3 => b"{\"query\": \"\xff\xfe\"}".to_vec(),
        4 => format!("{{\"query\": \"价格\", \"top_k\": {}}}", "9".repeat(rng.random_range(1..400))).into_bytes(),
        5 => vec![b' '; 300_000],
        6 => json!({"query": "问".repeat(rng.random_range(1..20_000))}).to_string().into_bytes(),
        _ => {
            let mut body = serde_json::Map::new();
            body.insert("query".to_owned(), json!("价格"));
            for _ in 0..rng.random_range(1..6) {
                body.insert(FIELDS[rng.random_range(0..FIELDS.len())].to_owned(), odd_value(rng, 3));
            }
            Value::Object(body).to_string().into_bytes()
        }
    }
}

#[tokio::test]
async fn ten_thousand_hostile_requests_change_nothing() {
    let mut world = World::new();
    world.set("ADMISSION__TENANT_REQUESTS_PER_SECOND", "1000000").set("ADMISSION__TENANT_BURST", "1000000");
    let key = world.key("alpha", "serve");
    let server = world.serve();
    let client = reqwest::Client::new();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut after_warm_up = 0;
    let mut statuses = std::collections::BTreeMap::new();
    for index in 0..REQUESTS {
        let mut request = client.post(format!("{}/general_rag", server.url)).bearer_auth(&key);
        request = match rng.random_range(0..20) {
            0 => request.header("content-type", "text/plain"),
            1 => request.header("content-type", "application/json").header("idempotency-key", odd_header(&mut rng)),
            _ => request.header("content-type", "application/json"),
        };
        let body = odd_body(&mut rng);
        let shown: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        let sent = request.body(body).send().await;
        let response =
            sent.unwrap_or_else(|error| panic!("request {index} ({shown:?}) broke the connection: {error:?}"));
        let status = response.status().as_u16();
        *statuses.entry(status).or_insert(0_usize) += 1;
        assert!(status < 500, "request {index} was answered with {status}: {:?}", response.text().await);
        if index == REQUESTS / 5 {
            after_warm_up = server.resident_kib();
        }
    }
    let growth = server.resident_kib().saturating_sub(after_warm_up);
    println!("statuses {statuses:?}; memory grew by {growth} KiB from request {} to the last", REQUESTS / 5);
    assert!(growth < 65_536, "memory grew by {growth} KiB");
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert_eq!(server.ask(&client, &key, &json!({"query": "价格"})).await.status, 200);
}

fn odd_header(rng: &mut ChaCha8Rng) -> String {
    (0..rng.random_range(1..400)).map(|_| char::from(rng.random_range(33..127_u8))).collect()
}

#[tokio::test]
async fn a_slow_client_is_closed_and_disturbs_nobody() {
    let mut world = World::new();
    world.set("SERVER__HEADER_TIMEOUT_MS", "300").set("SERVER__BODY_TIMEOUT_MS", "300");
    let key = world.key("alpha", "serve");
    let server = world.serve();
    let address = server.url.trim_start_matches("http://").to_owned();
    let half = format!("POST /general_rag HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n");
    let starved_body = format!("{half}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{");
    for opening in ["", "POST /general_rag HT", &half, &starved_body] {
        let mut socket = tokio::net::TcpStream::connect(&address).await.expect("a connection");
        socket.write_all(opening.as_bytes()).await.expect("a write");
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "still open after {opening:?}");
    }
    let client = reqwest::Client::new();
    assert_eq!(server.ask(&client, &key, &json!({"query": "价格"})).await.status, 200);
}
