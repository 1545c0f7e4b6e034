//! A rewrite service over doubles, from outside and by the client that asks such services.

use std::sync::Arc;
use std::time::Duration;

use recast_domain::{Conversation, Role, Turn};
use recast_rewriter::{RemoteRewriter, RewriteError, RewriteRequest, Rewriter};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Double, World};
use crate::RewriteService;

fn service(world: &World, key: Option<&str>, double: Double) -> RewriteService {
    RewriteService::with(&world.settings(), key.map(Into::into), Arc::new(double)).unwrap()
}

fn client(world: &World, service: &RewriteService, key: &str) -> RemoteRewriter {
    let mut settings = world.settings().rewriter.remote;
    settings.url = format!("http://{}", service.address());
    settings.api_key = key.into();
    RemoteRewriter::new(&settings).unwrap()
}

fn question(world: &World, tenant: &str) -> RewriteRequest {
    let mut profile = recast_config::TenantProfile::load(&world.folder.path().join("tenants/alpha")).unwrap();
    profile.id = tenant.parse().unwrap();
    let history = vec![Turn { role: Role::User, content: "叶黄素软糖".to_owned() }];
    let conversation = Conversation { query: "多少钱".to_owned(), history, ..Conversation::default() };
    RewriteRequest { tenant: Arc::new(profile), conversation, seed: 1 }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// One request on a connection of its own: status and body.
async fn post(service: &RewriteService, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let head = format!(
        "POST /api/rewrite_query HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    exchange(service, &(head + &body)).await
}

async fn get(service: &RewriteService, path: &str) -> (u16, Value) {
    exchange(service, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

async fn exchange(service: &RewriteService, request: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn the_client_of_the_32b_service_understands_it() {
    let world = World::new();
    let service = service(&world, Some("secret"), Double::Says("叶黄素软糖 零售价"));
    let rewrite = client(&world, &service, "secret").rewrite(&question(&world, "alpha"), soon()).await.unwrap();
    assert_eq!(rewrite.text, "叶黄素软糖 零售价");
    let refused = client(&world, &service, "wrong").rewrite(&question(&world, "alpha"), soon()).await;
    assert!(matches!(refused, Err(RewriteError::Status { status: 401, .. })), "{refused:?}");
    let unknown = client(&world, &service, "secret").rewrite(&question(&world, "nobody"), soon()).await;
    assert!(matches!(unknown, Err(RewriteError::Status { status: 422, .. })), "{unknown:?}");
    assert!(service.shutdown().await);
}

#[tokio::test]
async fn problems_are_named_and_the_operators_have_their_routes() {
    let world = World::new();
    let service = service(&world, None, Double::Says("叶黄素软糖 零售价"));
    let (status, body) =
        post(&service, &json!({"query": "多少钱", "tenant_id": "alpha", "history": "用户: 软糖"})).await;
    assert_eq!((status, &body["rewritten_query"]), (200, &json!("叶黄素软糖 零售价")));
    let (status, body) = post(&service, &json!({"query": 5, "thought": [], "tenant_id": "alpha"})).await;
    assert_eq!((status, body["errors"].as_array().map(Vec::len)), (422, Some(2)), "{body}");
    let (status, body) = post(&service, &json!({"query": "多少钱"})).await;
    assert_eq!((status, &body["errors"][0]["field"]), (422, &json!("tenant_id")));
    for (path, expected) in [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/nowhere", 404)] {
        assert_eq!(get(&service, path).await.0, expected, "{path}");
    }
    assert_eq!(get(&service, "/readyz").await.1["policy"], "double");
}

#[tokio::test]
async fn a_full_queue_is_said_and_a_question_in_flight_is_answered_before_the_end() {
    let mut world = World::new();
    world.set("REWRITER__QUEUE", "1");
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = service(&world, None, Double::Waits { entered: Arc::clone(&entered), go: Arc::clone(&go) });
    let ask = json!({"query": "多少钱", "tenant_id": "alpha"});
    let address = service.address();
    let remote = client(&world, &service, "");
    let request = question(&world, "alpha");
    let first = tokio::spawn(async move { remote.rewrite(&request, soon()).await });
    entered.notified().await;
    let (status, body) = post(&service, &ask).await;
    assert_eq!((status, &body["code"]), (429, &json!("overloaded")));
    let ending = tokio::spawn(service.shutdown());
    // The listener goes at once; the answer that is owed still comes.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    assert_eq!(first.await.unwrap().unwrap().text, "多少钱");
    assert!(ending.await.unwrap());
}

#[tokio::test]
async fn a_rewrite_that_is_none_is_no_fault_and_a_late_one_is() {
    let mut world = World::new();
    world.set("REWRITER__REMOTE__TIMEOUT_MS", "50");
    let ask = json!({"query": "多少钱", "tenant_id": "alpha"});
    let hung = service(&world, None, Double::Hangs);
    let (status, body) = post(&hung, &ask).await;
    assert_eq!((status, &body["code"]), (504, &json!("timeout")));
    let panics = service(&world, None, Double::Panics);
    assert_eq!(post(&panics, &ask).await.0, 500);
    let invalid = service(&world, None, Double::Says("<think>"));
    let (status, body) = post(&invalid, &ask).await;
    assert_eq!((status, &body["code"]), (422, &json!("rewrite_invalid")));
}
