//! The generator against small servers that misbehave in known ways.
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use recast_loadtest::client::Pool;
use recast_loadtest::closed_loop::{self, Amount};
use recast_loadtest::frontier::{self, BOUNDS_MS};
use recast_loadtest::open_loop::{self, Load, Plan};
use recast_loadtest::parity::{self, Counter};
use recast_loadtest::requests::{Prepared, TenantBody, prepare};
use tokio::net::TcpListener;

const STALL: Duration = Duration::from_millis(400);

#[derive(Default)]
struct Server {
    requests: AtomicU64,
    stored: AtomicU64,
    /// The request of this number holds the gate for `STALL`; 0 = none.
    stalls_at: u64,
    /// Every request of which the number divides by this is acknowledged and not stored; 0 = none.
    loses_every: u64,
    /// Asked for a key.
    wants_key: AtomicBool,
    gate: tokio::sync::Mutex<()>,
}

async fn answer(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    let number = server.requests.fetch_add(1, Ordering::SeqCst) + 1;
    if server.wants_key.load(Ordering::SeqCst) && headers.get("authorization").is_none_or(|key| key != "Bearer k1") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let gate = server.gate.lock().await;
    if number == server.stalls_at {
        tokio::time::sleep(STALL).await;
    }
    drop(gate);
    let lost = server.loses_every > 0 && number.is_multiple_of(server.loses_every);
    server.stored.fetch_add(u64::from(!lost), Ordering::SeqCst);
    Json(serde_json::json!({
        "data": {"recall": []}, "episode_id": format!("e-{number}"), "episode_stored": true, "degraded": [],
        "timings": {"rewrite_us": 1, "embed_us": 2, "search_us": 3, "rerank_us": 4, "total_us": 11},
    }))
    .into_response()
}

async fn metrics(State(server): State<Arc<Server>>) -> String {
    format!("recast_episodes_stored_total{{tenant=\"a\"}} {}\n", server.stored.load(Ordering::SeqCst))
}

/// Starts the server on a free port and returns a load against it.
async fn load(server: Server) -> (Arc<Load>, Arc<Server>) {
    let server = Arc::new(server);
    let router = Router::new()
        .route("/general_rag", post(answer))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(&server));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let pool = Pool::new(&url, "/general_rag", Duration::from_secs(10)).expect("a plain URL");
    (Arc::new(Load { pool, requests: bodies(), pid: Some(std::process::id()) }), server)
}

fn bodies() -> Vec<Prepared> {
    let body = TenantBody { tenant: Some("a".into()), body: serde_json::json!({"query": "孕妇能喝吗"}) };
    let keys = std::collections::BTreeMap::from([("a".to_owned(), "k1".to_owned())]);
    prepare(vec![body], Some(&keys), 1).expect("a key for the tenant")
}

fn plan(rate: f64, measured: Duration) -> Plan {
    Plan {
        rate,
        warm_up: Duration::from_millis(100),
        measured,
        seed: 9,
        max_in_flight: 256,
        late_after: Duration::from_millis(20),
    }
}

fn counter() -> Counter {
    Counter::Metric { path: "/metrics".to_owned(), name: "recast_episodes_stored_total".to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_shows_in_the_open_loop_and_hides_in_the_closed_one() {
    // 400 ms of 2 s: a fifth of all arrivals are due during the stall, and wait for its end.
    let (load, _) = load(Server { stalls_at: 100, ..Server::default() }).await;
    let open = open_loop::run(plan(200.0, Duration::from_secs(2)), load).await.expect("a run");
    assert_eq!(open.record.error_count(), 0);
    let p99 = open.record.latency.percentiles().p99;
    assert!(p99 > 300_000, "open loop p99 {p99} us must show the stall of 400 ms");

    let (load, _) = self::load(Server { stalls_at: 100, ..Server::default() }).await;
    let plan = closed_loop::Plan { connections: 1, warm_up: Amount::Requests(5), measured: Amount::Requests(400) };
    let closed = closed_loop::run(plan, &load).await.expect("a run");
    let latency = closed.record.latency.percentiles();
    assert!(latency.max > 300_000, "the stall happened: {latency:?}");
    assert!(latency.p99 < 300_000, "the closed loop does not see it at p99, which is why it is not used: {latency:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_arrivals_is_that_of_the_rate() {
    let (load, server) = load(Server::default()).await;
    let finished = open_loop::run(plan(500.0, Duration::from_millis(900)), load).await.expect("a run");
    let sent = server.requests.load(Ordering::SeqCst);
    // 500 are expected in a second; the seed is fixed, five standard deviations are 112.
    assert!((388..=612).contains(&sent), "{sent} requests");
    assert_eq!(finished.record.replies, sent);
    assert_eq!(finished.record.lateness.percentiles().count, finished.record.answered);
    assert_eq!(finished.record.stages.search_us, 3 * finished.record.answered);
    assert!(finished.cpu_us_per_request.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parity_holds_for_an_honest_server_and_names_the_losses_of_another() {
    for (loses_every, expected_missing) in [(0, 0), (10, 20)] {
        let (load, _) = load(Server { loses_every, ..Server::default() }).await;
        let before = parity::read(&counter(), &load.pool).await.expect("a counter");
        let plan = closed_loop::Plan { connections: 4, warm_up: Amount::Requests(50), measured: Amount::Requests(150) };
        let record = closed_loop::run(plan, &load).await.expect("a run").record;
        let patience = Duration::from_millis(100);
        let parity = parity::settle(&counter(), &load.pool, &record, before, patience).await.expect("a counter");
        assert_eq!((parity.distinct, parity.missing), (200, expected_missing), "{parity:?}");
        assert_eq!(parity.holds(), loses_every == 0);
    }
}

#[tokio::test]
async fn the_stored_rows_can_be_counted_by_a_command() {
    let (load, _) = load(Server::default()).await;
    let count = |command: &str| Counter::Command(command.to_owned());
    assert_eq!(parity::read(&count("echo 41"), &load.pool).await.expect("a number"), 41);
    assert!(parity::read(&count("echo none"), &load.pool).await.is_err());
    assert!(parity::read(&count("echo 1; exit 3"), &load.pool).await.is_err());
}

#[tokio::test]
async fn a_refusal_and_an_absent_server_are_errors_by_name() {
    let (with_key, server) = load(Server::default()).await;
    server.wants_key.store(true, Ordering::SeqCst);
    let plan = closed_loop::Plan { connections: 2, warm_up: Amount::Requests(0), measured: Amount::Requests(20) };
    assert_eq!(closed_loop::run(plan, &with_key).await.expect("a run").record.error_count(), 0);

    let mut keyless = bodies();
    keyless[0].authorization = None;
    let pool = Arc::into_inner(with_key).expect("nobody else holds it").pool;
    let without_key = Arc::new(Load { pool, requests: keyless.clone(), pid: None });
    let refused = closed_loop::run(plan, &without_key).await.expect("a run").record;
    assert_eq!((refused.answered, refused.errors.get("401")), (0, Some(&20)));

    let address = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let absent = Pool::new(&format!("http://{address}"), "/general_rag", Duration::from_secs(1)).expect("a plain URL");
    let absent = Arc::new(Load { pool: absent, requests: keyless, pid: None });
    let record = closed_loop::run(plan, &absent).await.expect("a run").record;
    assert_eq!((record.answered, record.errors.get("connect")), (0, Some(&20)));
    assert_eq!(record.unknown, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ladder_measures_a_voided_rung_again_and_gives_up_on_it() {
    let (load, _) = load(Server::default()).await;
    // No start is earlier than due, so a tolerance of nothing voids every run.
    let plan =
        Plan { warm_up: Duration::ZERO, late_after: Duration::ZERO, ..self::plan(200.0, Duration::from_millis(100)) };
    let mut runs = 0;
    let steps = frontier::climb(plan, 1.25, 10, &load, |_, _| runs += 1).await.expect("a climb");
    assert_eq!((steps.len(), runs), (2, 6), "two rungs of three tries end the climb");
    assert!(frontier::frontier(&steps, &BOUNDS_MS).iter().all(|reach| reach.rate.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ladder_climbs_as_far_as_it_is_told() {
    let (load, _) = load(Server::default()).await;
    let plan = Plan { warm_up: Duration::ZERO, late_after: STALL, ..self::plan(100.0, Duration::from_millis(200)) };
    let mut rates = Vec::new();
    let steps = frontier::climb(plan, 2.0, 3, &load, |step, _| rates.push(step.rate)).await.expect("a climb");
    assert_eq!(rates, [100.0, 200.0, 400.0]);
    assert!(steps.iter().all(|step| step.errors == 0 && step.answered > 0));
}
