//! Erasure of a user on the real server: over HTTP beside traffic, and at the command line.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Reply, Server, World};

async fn post(server: &Server, key: &str, path: &str, body: &Value) -> Reply {
    let client = reqwest::Client::new();
    let response = client.post(format!("{}{path}", server.url)).bearer_auth(key).json(body).send().await;
    Reply::read(response.expect("an answer")).await
}

async fn ask(server: &Server, key: &str, user: &str, query: &str) -> String {
    let body = json!({"query": query, "user_id": user});
    let reply = server.ask(&reqwest::Client::new(), key, &body).await;
    assert_eq!((reply.status, &reply.body["episode_stored"]), (200, &json!(true)), "{:?}", reply.body);
    reply.body["episode_id"].as_str().expect("an id").to_owned()
}

fn ids(lines: &str) -> BTreeSet<String> {
    let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    rows.map(|row| row["episode_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_goes_with_all_that_hangs_on_it_and_nobody_else_does() {
    let world = World::new();
    let (key, admin) = (world.key("alpha", "serve"), world.key("alpha", "admin"));
    let (theirs, their_admin) = (world.key("beta", "serve"), world.key("beta", "admin"));
    let server = world.serve();
    let client = reqwest::Client::new();
    let mut gone = BTreeSet::new();
    for query in ["胶原蛋白肽饮 价格", "孕妇能喝吗", "how much"] {
        gone.insert(ask(&server, &key, "wang", query).await);
    }
    let other = ask(&server, &key, "li", "价格").await;
    let foreign = ask(&server, &theirs, "wang", "价格").await;
    let first = gone.first().expect("three").clone();
    let comment = json!({"episode_id": first, "comment": "我是老王"});
    assert_eq!(post(&server, &key, "/v1/feedback", &comment).await.status, 200);

    for (bad, status) in
        [(json!({}), 422), (json!({"user_id": ""}), 422), (json!({"user_id": "wang", "all": true}), 422)]
    {
        assert_eq!(post(&server, &admin, "/v1/erasures", &bad).await.status, status, "{bad}");
    }
    let wang = json!({"user_id": "wang"});
    assert_eq!(post(&server, &key, "/v1/erasures", &wang).await.status, 403, "a serving key erases nobody");
    let nobody = post(&server, &admin, "/v1/erasures", &json!({"user_id": "zhao"})).await;
    assert_eq!(nobody.body["episodes"], 0);
    let reply = post(&server, &admin, "/v1/erasures", &wang).await;
    assert_eq!((reply.status, &reply.body["episodes"]), (200, &json!(3)), "{:?}", reply.body);

    for id in &gone {
        assert_eq!(server.get(&client, &admin, &format!("/v1/episodes/{id}")).await.status, 404);
    }
    assert_eq!(server.get(&client, &admin, &format!("/v1/episodes/{other}")).await.status, 200);
    assert_eq!(server.get(&client, &their_admin, &format!("/v1/episodes/{foreign}")).await.status, 200);
    let late = json!({"episode_id": first, "thumbs": "down"});
    assert_eq!(post(&server, &key, "/v1/feedback", &late).await.status, 404, "it is unknown now");
    let listed = server.get(&client, &admin, "/v1/erasures").await;
    let shown: BTreeSet<String> = listed.body["erasures"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["episode_id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(shown, gone);
    let after = listed.body["erasures"][0]["erased_ms"].as_i64().expect("a time") + 1;
    let later = server.get(&client, &admin, &format!("/v1/erasures?since_ms={after}")).await;
    assert_eq!(later.body["erasures"], json!([]));
    assert_eq!(server.get(&client, &their_admin, "/v1/erasures").await.body["erasures"], json!([]));
    assert_eq!(server.get(&client, &admin, "/v1/erasures?since_ms=soon").await.status, 422);

    // beside a gateway the command line must not write, and says what to do
    let refused = world.run(&["episodes", "erase", "--tenant", "alpha", "--user", "li"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--url"), "{said}");
    let url = server.url.clone();
    let over = ["episodes", "erase", "--user", "li", "--url", &url, "--key", &admin];
    let over = world.run(&over);
    assert!(String::from_utf8_lossy(&over.stdout).contains("1 episodes erased"), "{over:?}");
    let printed = world.run(&["episodes", "erased", "--tenant", "alpha"]);
    gone.insert(other);
    assert_eq!(ids(&String::from_utf8_lossy(&printed.stdout)), gone);
    server.kill();
    let alone = world.run(&["episodes", "erase", "--tenant", "beta", "--user", "wang"]);
    assert!(String::from_utf8_lossy(&alone.stdout).contains("1 episodes erased"), "{alone:?}");
}
