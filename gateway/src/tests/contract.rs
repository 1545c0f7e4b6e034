use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::{Double, World, ids, plain, question};

#[tokio::test]
async fn an_answer_has_the_shape_of_the_contract() {
    let site = World::new().open().await;
    let body = json!({"query": "胶原蛋白肽饮 孕妇", "user_profile": "孕妇", "history_summary": "聊过价格"});
    let reply = site.ask(&site.alpha, body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let fields: Vec<&String> = reply.body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["data", "episode_id", "episode_stored", "policy", "rewrite_source", "degraded", "timings"]);
    let data = &reply.body["data"];
    assert_eq!(data["rewritten_query"], "胶原蛋白肽饮 孕妇");
    assert_eq!((&data["user_profile"], &data["history_summary"]), (&json!("孕妇"), &json!("聊过价格")));
    let hit = &data["recall"][0];
    let fields: Vec<&String> = hit.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "content",
            "score",
            "reranker_score",
            "id",
            "doc_id",
            "title",
            "source",
            "kb_name",
            "metadata",
            "rank",
            "legs"
        ]
    );
    assert_eq!(hit["doc_id"], "drink");
    assert_eq!(hit["content"], "胶原蛋白肽饮：孕妇不宜食用（alpha）");
    assert_eq!(hit["legs"]["bm25"]["rank"], 1);
    assert_eq!(reply.body["rewrite_source"], "pass_through");
    assert_eq!(reply.body["episode_stored"], true);
    assert_eq!(reply.headers["x-episode-id"], reply.body["episode_id"].as_str().unwrap());
    assert!(reply.headers["server-timing"].to_str().unwrap().contains("search;dur="));
}

#[tokio::test]
async fn an_episode_holds_the_facts() {
    let site = World::new().open().await;
    site.rewriter(Double::Says("叶黄素软糖 零售价"));
    let body = json!({"query": "多少钱", "history": "用户: 叶黄素软糖", "user_id": "u1", "conversation_id": "c1"});
    let reply = site.ask(&site.alpha, body).await;
    let id = reply.body["episode_id"].as_str().unwrap();
    let episode = site.call("GET", &format!("/v1/episodes/{id}"), &site.alpha_admin, None).await.body;
    assert_eq!(episode["conversation"]["history"][0]["content"], "叶黄素软糖");
    assert_eq!(episode["rewrite"]["text"], "叶黄素软糖 零售价");
    assert_eq!(episode["rewrite"]["policy"], "double");
    assert_eq!(episode["prompt_hash"], "hash-of-alpha");
    assert_eq!(episode["request"]["user_id"], "u1");
    assert_eq!(episode["request"]["request_id"], reply.headers["x-request-id"].to_str().unwrap());
    assert_eq!(episode["hits"][0]["doc_id"], "price");

    let foreign = site.call("GET", &format!("/v1/episodes/{id}"), &site.beta_admin, None).await;
    assert_eq!(foreign.status, 404);
}

#[tokio::test]
async fn a_rewrite_that_is_brought_along_is_searched_as_it_is() {
    let site = World::new().open().await;
    site.rewriter(Double::Panics);
    let reply = site.ask(&site.alpha, json!({"query": "多少钱", "rewritten_query": "叶黄素软糖"})).await;
    assert_eq!(reply.body["data"]["rewritten_query"], "叶黄素软糖", "{}", reply.text);
    assert_eq!(reply.body["policy"], "given");
    assert_eq!(ids(&reply)[0], "price");
}

#[tokio::test]
async fn a_late_rewriter_degrades_and_leaves_time_to_search() {
    let site = World::new().open().await;
    site.rewriter(Double::Hangs);
    let request = question(&site.alpha).header("x-request-deadline-ms", "100");
    let reply = site.send(request.body(Body::from(plain().to_string())).unwrap()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.body["degraded"], json!(["rewrite_timeout"]));
    assert_eq!(ids(&reply)[0], "price");
}

#[tokio::test]
async fn every_failure_is_a_problem_with_its_code() {
    let site = World::new().open().await;
    let key = site.alpha.as_str();
    let post = |kind: &str, body: Vec<u8>| {
        let request = Request::builder().method("POST").uri("/general_rag");
        let request = request.header("authorization", format!("Bearer {key}")).header("content-type", kind);
        request.header("x-request-id", "trace-1").body(Body::from(body)).unwrap()
    };
    let json_post = |body: &Value| post("application/json", body.to_string().into_bytes());
    let get = |path: &str| Request::builder().uri(path).header("x-request-id", "trace-1").body(Body::empty()).unwrap();
    let anonymous = Request::builder().method("POST").uri("/general_rag").header("x-request-id", "trace-1");
    let cases = [
        (anonymous.body(Body::from(plain().to_string())).unwrap(), 401, "unauthorized"),
        (json_post(&json!({"query": "x", "tenant_id": "beta"})), 403, "tenant"),
        (json_post(&json!({"query": ""})), 422, "invalid_fields"),
        (json_post(&json!({"query": "x", "kb_name": "nowhere"})), 404, "not_found"),
        (post("application/json", b"{\"query\": \"\xff\"}".to_vec()), 400, "malformed"),
        (post("application/json", "[".repeat(5000).into_bytes()), 400, "malformed"),
        (post("application/json", vec![b' '; 300_000]), 413, "too_large"),
        (post("text/plain", b"{}".to_vec()), 415, "content_type"),
        (get("/general_rag"), 405, "method_not_allowed"),
        (get("/nowhere"), 404, "not_found"),
        (get("/v1/episodes"), 401, "unauthorized"),
    ];
    for (request, status, code) in cases {
        let reply = site.send(request).await;
        assert_eq!((reply.status.as_u16(), reply.body["code"].as_str()), (status, Some(code)), "{}", reply.text);
        assert_eq!(reply.headers["content-type"], "application/problem+json", "{code}");
        assert_eq!(reply.body["instance"], "trace-1", "{code}");
        assert_eq!(reply.headers["x-request-id"], "trace-1", "{code}");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing() {
    let site = World::new().open().await;
    site.rewriter(Double::Panics);
    let reply = site.ask(&site.alpha, plain()).await;
    assert_eq!((reply.status.as_u16(), reply.body["code"].as_str()), (500, Some("internal")));
    assert!(!reply.text.contains("double"), "{}", reply.text);
}
