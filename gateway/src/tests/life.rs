use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{World, plain};
use crate::app::Gateway;
use crate::keys::Scope;

async fn exchange(stream: &mut TcpStream, key: &str) -> String {
    let body = plain().to_string();
    let head = format!(
        "POST /general_rag HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 16_384];
    while !String::from_utf8_lossy(&text).contains("timings") {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_serves_drains_and_leaves_its_state_to_the_next() {
    let world = World::new();
    let site = world.open().await;
    let key = site.alpha.clone();
    drop((site.router, site.app));
    let running = site.gateway.serve();
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let answer = exchange(&mut stream, &key).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"episode_stored\":true"), "{answer}");

    let address = running.address();
    let report = running.shutdown().await.unwrap();
    assert!(report.drained, "an idle connection does not hold up the end");
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err());

    let next = Gateway::open(world.settings()).await.unwrap();
    let tenant = "alpha".parse().unwrap();
    assert_eq!(next.retriever().list_documents(&tenant, &Default::default(), None, 10).await.unwrap().len(), 2);
    assert_eq!(next.app().episodes.health().stored, 0);
    let filter = recast_episodes::EpisodeFilter::newest(tenant, 10);
    assert_eq!(next.app().episodes.list(&filter).await.unwrap().len(), 1);
}

#[tokio::test]
async fn readiness_ends_with_the_first_phase() {
    let site = World::new().open().await;
    assert_eq!(site.call("GET", "/readyz", "", None).await.status, 200);
    site.app.begin_shutdown();
    let reply = site.call("GET", "/readyz", "", None).await;
    assert_eq!((reply.status.as_u16(), reply.body["checks"]["serving"]["ok"].as_bool()), (503, Some(false)));
    let answered = site.ask(&site.alpha, plain()).await;
    assert_eq!((answered.status.as_u16(), &answered.headers["connection"]), (200, &"close".parse().unwrap()));
}

#[tokio::test]
async fn start_up_errors_say_what_to_do() {
    let world = World::new();
    let first = Gateway::open(world.settings()).await.unwrap();
    let mut taken = World::new();
    taken.set("SERVER__LISTEN", &first.address().to_string());
    let error = |world: &World| {
        let settings = world.settings();
        async { Gateway::open(settings).await.map(|_| ()).unwrap_err().to_string() }
    };
    assert!(error(&taken).await.contains("in use: stop the other server"));
    assert!(error(&world).await.contains("in use"));

    let mut without_tenants = World::new();
    without_tenants.set("TENANTS__DIR", "/nonexistent/tenants");
    assert!(error(&without_tenants).await.contains("tenants.dir"));

    let mut without_model = World::new();
    without_model.set("REWRITER__KIND", "local").set("REWRITER__MODEL", "/nonexistent/model");
    let text = error(&without_model).await;
    assert!(text.starts_with("rewriter: ") && text.contains("/nonexistent/model"), "{text}");

    let damaged = World::new();
    damaged.key("alpha", Scope::Serve);
    std::fs::write(damaged.settings().keys_file(), "{").unwrap();
    assert!(error(&damaged).await.contains("restore it"));
}

#[tokio::test]
async fn a_tenant_that_wants_it_has_identifiers_taken_out_of_all_that_is_kept() {
    let world = World::new();
    let file = std::path::PathBuf::from(world.path("tenants")).join("alpha/tenant.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}redact = true\n")).unwrap();
    let site = world.open().await;
    let body = json!({
        "query": "胶原蛋白肽饮 打13800138000找我", "user_profile": "邮箱 a.b@qq.com",
        "history": [{"role": "user", "content": "加我微信xiao_wang88"}],
        "tags": {"caller": "13900139000", "13700137000": "x"},
    });
    let mut stored = Vec::new();
    for (key, tenant) in [(&site.alpha, "alpha"), (&site.beta, "beta")] {
        let reply = site.ask(key, body.clone()).await;
        assert_eq!(reply.body["data"]["rewritten_query"], "胶原蛋白肽饮 打13800138000找我", "the search is the user's");
        let id = reply.body["episode_id"].as_str().unwrap().parse().unwrap();
        let comment = json!({"episode_id": reply.body["episode_id"], "comment": "call me on 0412 345 678"});
        let posted = site.call("POST", "/v1/feedback", key, Some(comment)).await;
        assert!(posted.status.is_success(), "{}", posted.text);
        let tenant = tenant.parse().unwrap();
        let episode = site.app.episodes.get(&tenant, id).await.unwrap();
        let reader = site.app.episodes.reader();
        let feedback = format!("{:?}", reader.feedback(&tenant, id).unwrap());
        stored.push((episode.redacted, format!("{episode:?} {feedback}")));
    }
    let [(redacted, alpha), (plain, beta)] = <[_; 2]>::try_from(stored).unwrap();
    assert!(redacted && !plain);
    for id in ["13800138000", "a.b@qq.com", "xiao_wang88", "0412", "13900139000", "13700137000"] {
        assert!(!alpha.contains(id), "{id} in {alpha}");
        assert!(beta.contains(id), "{id} not in {beta}");
    }
}
