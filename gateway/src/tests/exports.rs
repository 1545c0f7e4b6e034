//! Exports over HTTP: as jobs, and page by page.

use serde_json::{Value, json};

use super::{Site, World, plain};

async fn finished(site: &Site, id: &str, key: &str) -> Value {
    let wait = std::time::Duration::from_secs(20);
    let done = async {
        loop {
            let reply = site.call("GET", &format!("/v1/exports/{id}"), key, None).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            if reply.body["state"] != "running" {
                return reply.body;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(wait, done).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_made_shown_fetched_and_removed() {
    // an export opens the store by its name: the folder must stay
    let world = World::new();
    let site = world.open().await;
    let mut tagged = plain();
    tagged["tags"] = json!({"channel": "app"});
    for body in [plain(), plain(), tagged] {
        assert_eq!(site.ask(&site.alpha, body).await.status, 200);
    }
    site.ask(&site.beta, plain()).await;
    for (tag, rows) in [("channel%3Dapp", 1), ("channel", 1), ("channel%3Dweb", 0)] {
        let page = site.call("GET", &format!("/v1/episodes?format=jsonl&tag={tag}"), &site.alpha_admin, None).await;
        assert_eq!((page.status.as_u16(), page.text.lines().count()), (200, rows), "{tag}: {}", page.text);
    }
    let begun = site.call("POST", "/v1/exports", &site.alpha_admin, Some(json!({"format": "jsonl"}))).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    let id = begun.body["id"].as_str().unwrap().to_owned();
    assert_eq!(begun.headers["location"], format!("/v1/exports/{id}"));
    let done = finished(&site, &id, &site.alpha_admin).await;
    assert_eq!((&done["state"], &done["manifest"]["rows"]), (&json!("done"), &json!(3)), "{done}");
    let path = done["manifest"]["files"][0]["path"].as_str().unwrap();
    let at = format!("/v1/exports/{id}/files/{path}");
    let file = site.call("GET", &at, &site.alpha_admin, None).await;
    assert_eq!((file.status.as_u16(), file.text.lines().count()), (200, 3), "{}", file.text);
    assert!(file.text.lines().all(|line| line.contains("\"tenant_id\":\"alpha\"")));

    // nobody else's, by whatever name
    let own = format!("/v1/exports/{id}");
    for (method, path) in [("GET", &own), ("GET", &at), ("DELETE", &own)] {
        assert_eq!(site.call(method, path, &site.beta_admin, None).await.status, 404, "{method} {path}");
        assert_eq!(site.call(method, path, &site.alpha, None).await.status, 403, "{method} {path}");
    }
    let elsewhere = format!("{own}/files/..%2F..%2F..%2Fkeys.json");
    for path in [elsewhere.as_str(), &format!("{own}/files/manifest.json"), "/v1/exports/..%2Falpha", "/v1/exports/x"] {
        assert_eq!(site.call("GET", path, &site.alpha_admin, None).await.status, 404, "{path}");
    }
    assert_eq!(site.call("DELETE", &own, &site.alpha_admin, None).await.status, 204);
    assert_eq!(site.call("GET", &own, &site.alpha_admin, None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_by_name() {
    // an export opens the store by its name: the folder must stay
    let world = World::new();
    let site = world.open().await;
    let cases = [
        (json!({"format": "pdf"}), "format"),
        (json!({"format": "csv", "tenant": "beta"}), "tenant"),
        (json!({"format": "csv", "from_ms": 5, "to_ms": 5}), "to_ms"),
        (json!({"format": "csv", "policy": "../x"}), "policy"),
        (json!({"format": "csv", "tag": "=app"}), "NAME=VALUE"),
    ];
    for (body, named) in cases {
        let reply = site.call("POST", "/v1/exports", &site.alpha_admin, Some(body)).await;
        assert!(reply.status == 422 && reply.text.contains(named), "{}", reply.text);
    }
    let api = site.call("GET", "/openapi.json", "", None).await.body;
    assert!(api["paths"]["/v1/exports/{id}"]["delete"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_export_a_tenant_and_it_can_be_stopped() {
    // an export opens the store by its name: the folder must stay
    let world = World::new();
    let site = world.open().await;
    let alpha = "alpha".parse().unwrap();
    // enough for an export that lasts, written as an import would
    let first = site.ask(&site.alpha, plain()).await;
    let id = first.body["episode_id"].as_str().unwrap().parse().unwrap();
    let one = site.app.episodes.get(&alpha, id).await.unwrap();
    let copy = |_| recast_domain::Episode { id: recast_domain::EpisodeId::now(), ..one.clone() };
    for stored in futures::future::join_all((0..3000).map(copy).map(|one| site.app.episodes.append(one))).await {
        stored.unwrap();
    }
    let begin = || site.call("POST", "/v1/exports", &site.alpha_admin, Some(json!({"format": "xlsx"})));
    let begun = begin().await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    let id = begun.body["id"].as_str().unwrap();
    let second = begin().await;
    assert_eq!((second.status.as_u16(), second.body["code"].as_str()), (409, Some("export_running")));
    assert!(second.text.contains(id), "{}", second.text);
    let path = format!("/v1/exports/{id}");
    assert_eq!(site.call("DELETE", &path, &site.alpha_admin, None).await.status, 204);
    assert_eq!(finished(&site, id, &site.alpha_admin).await["state"], "stopped");
    assert_eq!(begin().await.status, 202, "the place is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_rows_go_on_by_cursor() {
    // an export opens the store by its name: the folder must stay
    let world = World::new();
    let site = world.open().await;
    let mut asked = Vec::new();
    for _ in 0..5 {
        let reply = site.ask(&site.alpha, plain()).await;
        asked.push(reply.body["episode_id"].as_str().unwrap().to_owned());
        site.ask(&site.beta, plain()).await;
    }
    let first = site.call("GET", "/v1/episodes?format=jsonl&limit=2", &site.alpha_admin, None).await;
    assert_eq!(first.headers["content-type"], "application/x-ndjson");
    let mut next = first.headers.get("x-next-cursor").map(|cursor| cursor.to_str().unwrap().to_owned());
    let stolen = format!("/v1/episodes?format=jsonl&limit=2&cursor={}", next.as_deref().unwrap());
    let mut lines: Vec<Value> = first.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    while let Some(cursor) = next {
        let path = format!("/v1/episodes?format=jsonl&limit=2&cursor={cursor}");
        let page = site.call("GET", &path, &site.alpha_admin, None).await;
        assert_eq!(page.status, 200, "{}", page.text);
        lines.extend(page.text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        next = page.headers.get("x-next-cursor").map(|cursor| cursor.to_str().unwrap().to_owned());
    }
    let seen: Vec<&str> = lines.iter().map(|line| line["episode_id"].as_str().unwrap()).collect();
    assert_eq!(seen, asked, "each once, oldest first, nobody else's");
    assert!(lines.iter().all(|line| line["tenant_id"] == "alpha" && line["source"] == "pass_through"));
    // another tenant's cursor, and another filter's
    assert_eq!(site.call("GET", &stolen, &site.beta_admin, None).await.status, 422);
    assert_eq!(site.call("GET", &format!("{stolen}&degraded=true"), &site.alpha_admin, None).await.status, 422);
    assert_eq!(site.call("GET", "/v1/episodes?format=parquet", &site.alpha_admin, None).await.status, 422);
    assert_eq!(site.call("GET", "/v1/episodes?format=jsonl&tenant=beta", &site.alpha_admin, None).await.status, 400);
}
