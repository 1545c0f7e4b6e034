use recast_domain::EpisodeId;
use serde_json::{Value, json};

use super::{World, plain};

#[tokio::test]
async fn labels_are_kept_once_and_only_about_the_tenants_own_answers() {
    let site = World::new().open().await;
    let reply = site.ask(&site.alpha, plain()).await;
    let id = reply.body["episode_id"].as_str().unwrap().to_owned();
    let post = async |key: &str, body: Value| site.call("POST", "/v1/labels", key, Some(body)).await;
    let rows = json!({"labels": [
        {"episode_id": id, "author": "li", "gold_rewrite": "胶原蛋白肽 用量", "relevant": ["drink"], "score": 0.5},
        {"episode_id": EpisodeId::now(), "author": "li", "label": "good"},
        {"episode_id": id, "author": "li", "score": 2},
        {"episode_id": id, "author": "li"},
        {"episode_id": id, "author": "li", "mark": 1},
    ]});
    let first = post(&site.alpha_admin, rows.clone()).await;
    assert_eq!((first.status.as_u16(), &first.body["stored"]), (200, &json!(3)), "{}", first.text);
    let refused = first.body["refused"].as_array().unwrap();
    let said: Vec<_> =
        refused.iter().map(|one| (one["index"].as_u64().unwrap(), one["message"].as_str().unwrap())).collect();
    let expected =
        [(1, "is no episode of this tenant"), (2, "score: 2 is not"), (3, "says nothing"), (4, "unknown field `mark`")];
    for ((index, message), (place, words)) in said.iter().zip(expected) {
        assert!(*index == place && message.contains(words), "{said:?}");
    }
    let second = post(&site.alpha_admin, rows.clone()).await;
    assert_eq!((&second.body["stored"], &second.body["known"]), (&json!(0), &json!(3)));
    let theirs = post(&site.beta_admin, rows.clone()).await;
    assert_eq!((&theirs.body["stored"], theirs.body["refused"].as_array().unwrap().len()), (&json!(0), 5));
    assert_eq!(post(&site.alpha, rows).await.status, 403, "labels are an admin's");
    assert_eq!(post(&site.alpha_admin, json!([])).await.status, 422);
    let (tenant, id) = ("alpha".parse().unwrap(), id.parse().unwrap());
    assert_eq!(site.app.episodes.reader().labels(&tenant, id).unwrap().len(), 3);
}
