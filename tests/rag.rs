//! The contract of `/general_rag`, from outside.

use serde_json::json;

use crate::support::World;

#[tokio::test]
async fn a_question_is_answered_with_the_right_passage() {
    let world = World::new();
    let key = world.key("alpha", "serve");
    let server = world.serve();
    let client = reqwest::Client::new();

    let body = json!({"query": "胶原蛋白肽饮 孕妇", "user_profile": "孕妇", "history_summary": "聊过价格"});
    for path in ["/general_rag", "/api/chat/general_rag"] {
        let response = client.post(format!("{}{path}", server.url)).bearer_auth(&key).json(&body).send().await;
        let reply = crate::support::Reply::read(response.expect("an answer")).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        assert_eq!(reply.ids()[0], "alpha-0-禁忌");
        let data = &reply.body["data"];
        assert_eq!(data["rewritten_query"], "胶原蛋白肽饮 孕妇");
        assert_eq!(data["user_profile"], "孕妇");
        assert_eq!(data["history_summary"], "聊过价格");
        let hit = &data["recall"][0];
        for field in ["content", "score", "reranker_score", "doc_id", "title", "source", "kb_name", "metadata", "rank"]
        {
            assert!(hit.get(field).is_some(), "{field} is missing in {hit}");
        }
        assert_eq!(hit["legs"]["bm25"]["rank"], 1);
        assert!(reply.body["episode_stored"].as_bool().expect("a flag"));
        let episode = reply.body["episode_id"].as_str().expect("an id");
        assert_eq!(reply.headers["x-episode-id"], episode);
        assert!(reply.headers.contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn a_rewrite_that_is_brought_along_is_searched_as_it_is() {
    let world = World::new();
    let key = world.key("alpha", "serve");
    let server = world.serve();
    let client = reqwest::Client::new();
    let body = json!({"query": "能喝吗", "rewritten_query": "叶黄素软糖 零售价", "top_k": 1});
    let reply = server.ask(&client, &key, &body).await;
    assert_eq!(reply.body["data"]["rewritten_query"], "叶黄素软糖 零售价");
    assert_eq!(reply.ids(), ["alpha-3-价格"]);
}

#[tokio::test]
async fn history_may_be_text_or_turns_and_every_fault_is_named() {
    let world = World::new();
    let key = world.key("alpha", "serve");
    let server = world.serve();
    let client = reqwest::Client::new();
    for history in [json!("用户: 你好\n助手: 您好"), json!([{"role": "user", "content": "你好"}]), json!(null)]
    {
        let reply = server.ask(&client, &key, &json!({"query": "价格", "history": history})).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
    }

    let reply = server
        .ask(&client, &key, &json!({"query": "", "history": [{"role": "robot", "content": "x"}], "score_threshold": 7}))
        .await;
    assert!([400, 422].contains(&reply.status), "{:?}", reply.body);
    let faults = reply.body["errors"].to_string();
    for field in ["query", "history", "score_threshold"] {
        assert!(faults.contains(field), "{field} is not named in {faults}");
    }
    assert_eq!(reply.headers["content-type"], "application/problem+json");
}

#[tokio::test]
async fn the_key_decides_the_tenant() {
    let world = World::new();
    let key = world.key("alpha", "serve");
    let server = world.serve();
    let client = reqwest::Client::new();
    assert_eq!(server.ask(&client, &key, &json!({"query": "价格", "tenant_id": "alpha"})).await.status, 200);
    assert_eq!(server.ask(&client, &key, &json!({"query": "价格", "tenant_id": "beta"})).await.status, 403);
    for wrong in ["", "rk_nope_nope"] {
        assert_eq!(server.ask(&client, wrong, &json!({"query": "价格"})).await.status, 401);
    }
}

#[tokio::test]
async fn an_idempotency_key_replays_the_reply() {
    let world = World::new();
    let key = world.key("alpha", "serve");
    let server = world.serve();
    let client = reqwest::Client::new();
    let send = async |body: serde_json::Value| {
        let request = client.post(format!("{}/general_rag", server.url)).bearer_auth(&key);
        let response = request.header("idempotency-key", "once").json(&body).send().await.expect("an answer");
        crate::support::Reply::read(response).await
    };
    let first = send(json!({"query": "价格"})).await;
    let again = send(json!({"query": "价格"})).await;
    assert_eq!(first.body["episode_id"], again.body["episode_id"]);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(send(json!({"query": "别的"})).await.status, 422);
}

#[tokio::test]
async fn documents_are_put_found_listed_and_deleted() {
    let world = World::new();
    let (serve, admin) = (world.key("alpha", "serve"), world.key("alpha", "admin"));
    let server = world.serve();
    let client = reqwest::Client::new();
    let url = format!("{}/v1/kbs/default/documents/note-1", server.url);
    let document = json!({"title": "退货", "text": "玻璃瓶破损可在七天内申请补发。", "source": "faq"});

    let refused = client.put(&url).bearer_auth(&serve).json(&document).send().await.expect("an answer");
    assert_eq!(refused.status().as_u16(), 403, "a serving key may not write");
    let put = client.put(&url).bearer_auth(&admin).json(&document).send().await.expect("an answer");
    assert!(put.status().is_success(), "{}", put.text().await.expect("text"));

    let found = server.ask(&client, &serve, &json!({"query": "玻璃瓶破损 补发"})).await;
    assert!(found.body["data"]["recall"][0]["content"].as_str().expect("text").contains("玻璃瓶"));
    let list = server.get(&client, &admin, "/v1/kbs/default/documents?limit=50").await;
    assert!(list.body.to_string().contains("note-1"), "{:?}", list.body);

    let deleted = client.delete(&url).bearer_auth(&admin).send().await.expect("an answer");
    assert!(deleted.status().is_success());
    let gone = server.ask(&client, &serve, &json!({"query": "玻璃瓶破损 补发"})).await;
    assert!(!gone.body.to_string().contains("玻璃瓶破损可在"), "{:?}", gone.body);
}

#[tokio::test]
async fn operators_get_their_routes() {
    let world = World::new();
    let server = world.serve();
    let client = reqwest::Client::new();
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/openapi.json", 200), ("/nowhere", 404)] {
        assert_eq!(server.get(&client, "", path).await.status, status, "{path}");
    }
    let metrics = client.get(format!("{}/metrics", server.url)).send().await.expect("an answer").text().await;
    assert!(metrics.expect("text").contains("recast_"), "metrics carry our prefix");
}

#[tokio::test]
async fn a_revoked_key_stops_working_without_a_restart() {
    let world = World::new();
    let key = world.key("alpha", "serve");
    let server = world.serve();
    let client = reqwest::Client::new();
    let body = json!({"query": "价格"});
    assert_eq!(server.ask(&client, &key, &body).await.status, 200);
    let id = key.split('_').nth(1).expect("rk_<id>_<secret>");
    assert!(world.run(&["keys", "revoke", id]).status.success());
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while server.ask(&client, &key, &body).await.status != 401 {
        assert!(std::time::Instant::now() < deadline, "the key still works");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// The front page's promise, with the models and the data that the repository ships.
#[tokio::test]
async fn the_demo_resolves_a_reference_and_finds_the_right_passage() {
    let mut world = World::new();
    world
        .set("REWRITER__KIND", "local")
        .set("EMBEDDER__KIND", "local")
        .set("RERANKER__KIND", "local")
        .set("DEADLINES__REWRITE_MS", "20000")
        .set("DEADLINES__RETRIEVAL_MS", "20000")
        .set("DEADLINES__RERANK_MS", "20000")
        .set("DEADLINES__REQUEST_MS", "60000")
        .set("TENANTS__DIR", "data");
    let key = world.key("fivedoctors", "serve");
    let server = world.serve();
    let client = reqwest::Client::new();
    let history = "用户: 胶原蛋白肽饮怎么喝\n助手: 每天一瓶，饭后喝";
    let reply = server.ask(&client, &key, &json!({"query": "孕妇能喝吗", "history": history})).await;
    assert_eq!(reply.body["rewrite_source"], "local", "{:?}", reply.body);
    assert_eq!(reply.body["degraded"], json!([]));
    let rewrite = reply.body["data"]["rewritten_query"].as_str().expect("a rewrite");
    assert!(rewrite.contains("胶原蛋白肽饮") && rewrite.contains("孕妇"), "{rewrite}");
    let first = &reply.body["data"]["recall"][0];
    assert_eq!(first["metadata"]["entity"], "胶原蛋白肽饮", "{first}");
    assert_eq!(first["metadata"]["aspect"], "不适宜人群", "{first}");
    let again = server.ask(&client, &key, &json!({"query": "孕妇能喝吗", "history": history})).await;
    assert_eq!(again.body["rewrite_source"], "cached");
    assert_ne!(again.body["episode_id"], reply.body["episode_id"]);
}
