use std::sync::Arc;

use axum::body::Body;
use recast_episodes::EpisodeFilter;
use tokio::sync::Notify;
use tower::ServiceExt;

use super::{Double, Site, World, plain, question};

fn waiting() -> (Double, Arc<Notify>, Arc<Notify>) {
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    (Double::Waits { entered: Arc::clone(&entered), go: Arc::clone(&go) }, entered, go)
}

fn spawn_ask(site: &Site, idempotency_key: Option<&str>) -> tokio::task::JoinHandle<http::StatusCode> {
    let mut request = question(&site.alpha);
    if let Some(key) = idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Body::from(plain().to_string())).unwrap();
    let router = site.router.clone();
    tokio::spawn(async move { router.oneshot(request).await.unwrap().status() })
}

#[tokio::test]
async fn a_flood_of_one_tenant_is_refused_and_the_other_served() {
    let mut world = World::new();
    world.set("ADMISSION__TENANT_REQUESTS_PER_SECOND", "1").set("ADMISSION__TENANT_BURST", "2");
    let site = world.open().await;
    let first = site.ask(&site.alpha, plain()).await;
    assert_eq!(first.headers["x-ratelimit-remaining-requests"], "1");
    assert_eq!(site.ask(&site.alpha, plain()).await.status, 200);
    let refused = site.ask(&site.alpha, plain()).await;
    assert_eq!((refused.status.as_u16(), refused.body["code"].as_str()), (429, Some("rate_limited")));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers["x-ratelimit-remaining-requests"], "0");
    assert_eq!(site.ask(&site.beta, plain()).await.status, 200);
}

#[tokio::test]
async fn over_the_bound_the_answer_is_429_at_once() {
    let mut world = World::new();
    world.set("ADMISSION__MAX_IN_FLIGHT", "1");
    let site = world.open().await;
    let (double, entered, go) = waiting();
    site.rewriter(double);
    let first = spawn_ask(&site, None);
    entered.notified().await;
    let refused = site.ask(&site.beta, plain()).await;
    assert_eq!((refused.status.as_u16(), refused.body["code"].as_str()), (429, Some("overloaded")));
    assert!(refused.headers.contains_key("retry-after"));
    go.notify_one();
    assert_eq!(first.await.unwrap(), 200);
}

#[tokio::test]
async fn an_idempotency_key_is_answered_once() {
    let site = World::new().open().await;
    let (double, entered, go) = waiting();
    site.rewriter(double);
    let first = spawn_ask(&site, Some("once"));
    entered.notified().await;
    let again = || question(&site.alpha).header("idempotency-key", "once");
    let body = || Body::from(plain().to_string());
    assert_eq!(site.send(again().body(body()).unwrap()).await.status, 409);
    go.notify_one();
    assert_eq!(first.await.unwrap(), 200);

    let replayed = site.send(again().body(body()).unwrap()).await;
    assert_eq!(replayed.status, 200);
    assert_eq!(replayed.headers["idempotent-replayed"], "true");
    assert_eq!(replayed.headers["x-episode-id"], replayed.body["episode_id"].as_str().unwrap());
    let other = site.send(again().body(Body::from("{\"query\": \"other\"}")).unwrap()).await;
    assert_eq!((other.status.as_u16(), other.body["code"].as_str()), (422, Some("idempotency_key_reused")));
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_lose_its_episode() {
    let site = World::new().open().await;
    let (double, entered, go) = waiting();
    site.rewriter(double);
    let client = spawn_ask(&site, None);
    entered.notified().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    go.notify_one();
    site.app.tasks.close();
    site.app.tasks.wait().await;
    let filter = EpisodeFilter::newest("alpha".parse().unwrap(), 10);
    assert_eq!(site.app.episodes.list(&filter).await.unwrap().len(), 1);
}
