use serde_json::json;

use super::{World, ids, plain, write_tenant};

#[tokio::test]
async fn documents_are_put_found_listed_and_deleted() {
    let site = World::new().open().await;
    let path = "/v1/kbs/default/documents/note-1";
    let document = json!({"title": "退货", "text": "玻璃瓶破损可在七天内申请补发。", "source": "faq", "metadata": {"aspect": "售后"}});
    assert_eq!(site.call("PUT", path, &site.alpha, Some(document.clone())).await.status, 403);
    let put = site.call("PUT", path, &site.alpha_admin, Some(document.clone())).await;
    assert_eq!((put.status.as_u16(), &put.body["changed"]), (200, &json!(true)), "{}", put.text);
    let again = site.call("PUT", path, &site.alpha_admin, Some(document)).await;
    assert_eq!(again.body["changed"], false);

    let question = json!({"query": "玻璃瓶破损 补发", "filters": {"aspect": "售后"}});
    assert_eq!(ids(&site.ask(&site.alpha, question.clone()).await), ["note-1"]);
    assert!(ids(&site.ask(&site.beta, question.clone()).await).is_empty());
    assert_eq!(site.call("GET", path, &site.alpha_admin, None).await.body["title"], "退货");
    assert_eq!(site.call("GET", path, &site.beta_admin, None).await.status, 404);

    let first = site.call("GET", "/v1/kbs/default/documents?limit=2", &site.alpha_admin, None).await.body;
    assert_eq!(first["documents"].as_array().unwrap().len(), 2);
    let next = first["next"].as_str().unwrap();
    let rest =
        site.call("GET", &format!("/v1/kbs/default/documents?limit=2&after={next}"), &site.alpha_admin, None).await;
    assert_eq!((&rest.body["documents"][0]["doc_id"], &rest.body["next"]), (&json!("price"), &json!(null)));

    assert_eq!(site.call("DELETE", path, &site.alpha_admin, None).await.status, 200);
    assert_eq!(site.call("DELETE", path, &site.alpha_admin, None).await.status, 404);
    assert!(ids(&site.ask(&site.alpha, question).await).is_empty());
}

#[tokio::test]
async fn ready_cut_passages_and_markdown_are_taken() {
    let site = World::new().open().await;
    let cut = json!({"passages": [{"text": "第一段 发货时间"}, {"id": "p2", "text": "第二段 退款时间"}]});
    let put = site.call("PUT", "/v1/kbs/faq/documents/cut", &site.alpha_admin, Some(cut)).await;
    assert_eq!(put.body["passages"], 2, "{}", put.text);
    let text = json!({"format": "markdown", "text": "# 手册\n\n## 保修\n\n整机保修两年。\n"});
    assert_eq!(site.call("PUT", "/v1/kbs/faq/documents/md", &site.alpha_admin, Some(text)).await.status, 200);
    let reply = site.ask(&site.alpha, json!({"query": "保修 两年", "kb_name": "faq"})).await;
    assert_eq!(reply.body["data"]["recall"][0]["title"], "手册");
}

#[tokio::test]
async fn wrong_documents_are_refused_with_the_reason() {
    let site = World::new().open().await;
    let path = "/v1/kbs/default/documents/x";
    for body in [json!({}), json!({"text": "a", "passages": []}), json!({"text": "a", "colour": 1}), json!({"text": 5})]
    {
        let reply = site.call("PUT", path, &site.alpha_admin, Some(body.clone())).await;
        assert_eq!(reply.status, 422, "{body}: {}", reply.text);
    }
    assert_eq!(site.call("PUT", path, &site.alpha_admin, Some(json!({"text": " "}))).await.status, 400);
    assert_eq!(site.call("GET", "/v1/kbs/UPPER/documents", &site.alpha_admin, None).await.status, 422);
    assert_eq!(site.call("GET", "/v1/kbs/default/documents?limit=x", &site.alpha_admin, None).await.status, 400);
}

#[tokio::test]
async fn episodes_are_listed_in_pages_of_their_tenant() {
    let site = World::new().open().await;
    for _ in 0..3 {
        site.ask(&site.alpha, plain()).await;
    }
    let page = site.call("GET", "/v1/episodes?limit=2", &site.alpha_admin, None).await.body;
    assert_eq!(page["episodes"].as_array().unwrap().len(), 2);
    let next = page["next"].as_str().unwrap();
    let rest = site.call("GET", &format!("/v1/episodes?limit=2&after={next}"), &site.alpha_admin, None).await.body;
    assert_eq!((rest["episodes"].as_array().unwrap().len(), &rest["next"]), (1, &json!(null)));
    let foreign = site.call("GET", "/v1/episodes", &site.beta_admin, None).await.body;
    assert_eq!(foreign["episodes"], json!([]));
}

#[tokio::test]
async fn operators_get_their_routes() {
    let site = World::new().open().await;
    site.ask(&site.alpha, plain()).await;
    for path in ["/livez", "/readyz", "/health", "/v1/version", "/openapi.json", "/metrics"] {
        assert_eq!(site.call("GET", path, "", None).await.status, 200, "{path}");
    }
    let ready = site.call("GET", "/readyz", "", None).await.body;
    assert_eq!((&ready["status"], &ready["checks"]["store"]["ok"]), (&json!("ready"), &json!(true)));
    let metrics = site.call("GET", "/metrics", "", None).await.text;
    assert!(metrics.contains("recast_stage_seconds_bucket{stage=\"total\""), "{metrics}");
    let api = site.call("GET", "/openapi.json", "", None).await.body;
    for path in ["/general_rag", "/v1/kbs/{kb}/documents/{doc_id}", "/v1/episodes/{id}", "/readyz"] {
        assert!(api["paths"].get(path).is_some(), "{path} is not described");
    }
    assert!(api["components"]["schemas"]["RagRequest"]["properties"]["query"].is_object(), "{api}");
}

#[tokio::test]
async fn a_changed_tenant_is_picked_up_and_a_removed_one_refused() {
    let world = World::new();
    let site = world.open().await;
    write_tenant(world.folder.path(), "alpha", "换一个说法");
    assert!(site.app.parts.reload_tenants());
    let alpha = site.gateway.tenants().get(&"alpha".parse().unwrap()).unwrap();
    assert_eq!(alpha.system_prompt, "换一个说法");
    std::fs::remove_dir_all(world.folder.path().join("tenants/alpha")).unwrap();
    assert!(site.app.parts.reload_tenants());
    let refused = site.ask(&site.alpha, plain()).await;
    assert_eq!((refused.status.as_u16(), refused.body["code"].as_str()), (403, Some("tenant_unknown")));
}
