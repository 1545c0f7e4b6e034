//! Experiments in process: what takes part, what runs in the shadow, what stops it, and who may say so.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use recast_domain::{Episode, EpisodeId, ShadowKind, ShadowOutcome, TenantId};
use recast_episodes::Accounting;
use serde_json::{Value, json};

use super::{Double, Reply, Site, World, ids, plain, question};

fn shadow(tenant: &str) -> Value {
    json!({
        "id": format!("shadow-{tenant}"), "kind": "shadow", "tenants": [tenant], "control": "now",
        "arms": [{"name": "now", "rewriter": "configured"}, {"name": "raw", "rewriter": "pass_through"}],
        "sample_rate": 1.0,
    })
}

fn split(tenant: &str) -> Value {
    json!({
        "id": "split", "kind": "split", "tenants": [tenant], "control": "now", "unit": "user",
        "arms": [{"name": "now", "rewriter": "configured"}, {"name": "raw", "rewriter": "pass_through"}],
    })
}

impl Site {
    async fn define(&self, key: &str, definition: &Value) -> Reply {
        self.call("POST", "/v1/experiments", key, Some(definition.clone())).await
    }

    async fn accounts(&self, tenant: &str) -> Vec<Accounting> {
        let tenant: TenantId = tenant.parse().unwrap();
        self.app.episodes.read(move |reader| reader.shadow_accounting(&tenant, None)).await.unwrap()
    }

    /// Waits until this many shadow runs have ended.
    async fn ended(&self, runs: u64) {
        self.app.arena.shadow().ended().wait_for(|ended| *ended >= runs).await.unwrap();
    }

    /// Serves, and stops as SIGTERM would.
    async fn shut(self) {
        let Site { app, gateway, router, .. } = self;
        drop((app, router));
        gateway.serve().shutdown().await.unwrap();
    }

    async fn episode(&self, reply: &Reply) -> Episode {
        let id: EpisodeId = reply.body["episode_id"].as_str().unwrap().parse().unwrap();
        let tenant = if reply.text.contains("alpha") { "alpha" } else { "beta" };
        self.app.episodes.get(&tenant.parse().unwrap(), id).await.unwrap()
    }
}

#[tokio::test]
async fn every_request_is_paired_with_its_shadow() {
    let site = World::new().open().await;
    site.rewriter(Double::Says("叶黄素软糖 零售价"));
    assert_eq!(site.define(&site.alpha_admin, &shadow("alpha")).await.status, 201);
    let mut asked = BTreeSet::new();
    for _ in 0..5 {
        let reply = site.ask(&site.alpha, plain()).await;
        let episode = site.episode(&reply).await;
        let part = episode.experiment.unwrap();
        assert_eq!((part.experiment.as_str(), part.version, part.arm.as_str()), ("shadow-alpha", 1, "now"));
        asked.insert(episode.id);
    }
    site.ended(5).await;
    let alpha: TenantId = "alpha".parse().unwrap();
    let pairs =
        site.app.episodes.read(move |reader| reader.pairs(&alpha, "shadow-alpha", None, None, 100)).await.unwrap();
    assert_eq!(pairs.iter().map(|(episode, _)| episode.id).collect::<BTreeSet<_>>(), asked);
    for (episode, run) in &pairs {
        let Some(ShadowOutcome::Completed { answer }) = &run.outcome else { panic!("{run:?}") };
        assert_eq!(
            (episode.rewrite.text.as_str(), answer.rewrite.text.as_str()),
            ("叶黄素软糖 零售价", "叶黄素软糖 价格")
        );
        assert_eq!((run.kind, run.assignment.arm.as_str()), (ShadowKind::Treatment, "raw"));
        assert!(!answer.hits.is_empty());
    }
    let beta = site.ask(&site.beta, plain()).await;
    assert_eq!(site.episode(&beta).await.experiment, None);
    assert!(site.accounts("beta").await.is_empty(), "another tenant's traffic is left alone");
}

#[tokio::test]
async fn some_of_the_sampled_run_their_own_arm_again() {
    let site = World::new().open().await;
    site.rewriter(Double::Says("叶黄素软糖 零售价"));
    let mut definition = shadow("alpha");
    definition["control_rate"] = json!(0.5);
    assert_eq!(site.define(&site.alpha_admin, &definition).await.status, 201);
    for _ in 0..40 {
        site.ask(&site.alpha, plain()).await;
    }
    site.ended(40).await;
    let accounts = site.accounts("alpha").await;
    let by_kind: BTreeMap<_, _> = accounts.iter().map(|one| (one.arm.as_str(), (one.kind, one.completed))).collect();
    let ((control, noise), (treatment, tried)) = (by_kind["now"], by_kind["raw"]);
    assert_eq!((control, treatment, noise + tried), (ShadowKind::Control, ShadowKind::Treatment, 40));
    assert!(noise > 5 && tried > 5, "{by_kind:?}");
}

#[tokio::test]
async fn a_request_with_a_query_of_its_own_takes_no_part() {
    let site = World::new().open().await;
    site.define(&site.alpha_admin, &shadow("alpha")).await;
    let reply = site.ask(&site.alpha, json!({"query": "价格", "rewritten_query": "叶黄素"})).await;
    assert_eq!(site.episode(&reply).await.experiment, None);
    assert!(site.accounts("alpha").await.is_empty());
}

/// A shadow that never answers: live answers go on, and whatever is sampled ends as dropped at shutdown.
#[tokio::test]
async fn a_hung_shadow_holds_nobody_up_and_everything_adds_up() {
    let mut world = World::new();
    world.set("SHADOW__QUEUE", "4").set("REWRITER__KIND", "remote");
    // Nobody ever answers on this listener.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    world.set("SHADOW__REMOTE__URL", &url).set("REWRITER__REMOTE__URL", "http://127.0.0.1:9");
    let site = world.open().await;
    site.rewriter(Double::Says("叶黄素软糖 零售价"));
    let mut definition = shadow("alpha");
    definition["arms"][1]["rewriter"] = json!("remote");
    assert_eq!(site.define(&site.alpha_admin, &definition).await.status, 201);
    for _ in 0..30 {
        let reply = site.ask(&site.alpha, plain()).await;
        assert_eq!((reply.status, &reply.body["degraded"]), (StatusCode::OK, &json!([])));
    }
    site.ended(30 - 4 - 3).await;
    let before = site.accounts("alpha").await.remove(0);
    assert!(before.adds_up());
    assert!(before.dropped["queue_full"] >= 30 - 4 - 3, "{before:?}");
    site.shut().await;
    let next = crate::Gateway::open(world.settings()).await.unwrap();
    let tenant: TenantId = "alpha".parse().unwrap();
    let after =
        next.app().episodes.read(move |reader| reader.shadow_accounting(&tenant, None)).await.unwrap().remove(0);
    assert_eq!((after.sampled, after.pending), (30, 0));
    assert_eq!(after.dropped["queue_full"] + after.dropped["shutdown"], 30, "{after:?}");
}

#[tokio::test]
async fn the_shadow_of_a_killed_experiment_is_given_up() {
    let site = World::new().open().await;
    // The live arm passes through; the shadow asks the local model, which hangs.
    site.rewriter(Double::Hangs);
    let mut definition = shadow("alpha");
    definition["arms"] =
        json!([{"name": "now", "rewriter": "pass_through"}, {"name": "new", "rewriter": "configured"}]);
    assert_eq!(site.define(&site.alpha_admin, &definition).await.status, 201);
    for _ in 0..6 {
        assert_eq!(site.ask(&site.alpha, plain()).await.status, 200);
    }
    let path = "/v1/experiments/shadow-alpha/kill?reason=enough";
    let killed = site.call("POST", path, &site.alpha_admin, None).await;
    assert_eq!((&killed.body["state"], &killed.body["version"]), (&json!("killed"), &json!(2)), "{}", killed.text);
    site.ended(6).await;
    let account = site.accounts("alpha").await.remove(0);
    assert_eq!(account.dropped, BTreeMap::from([("experiment_stopped".to_owned(), 6)]), "{account:?}");
    site.rewriter(Double::Says("叶黄素"));
    let reply = site.ask(&site.alpha, plain()).await;
    assert_eq!(site.episode(&reply).await.experiment, None, "a killed experiment takes nobody in");
    assert_eq!(reply.body["data"]["rewritten_query"], "叶黄素", "what is configured answers again");
}

#[tokio::test]
async fn a_split_is_sticky_and_uses_both_arms() {
    let site = World::new().open().await;
    site.rewriter(Double::Says("叶黄素软糖 零售价"));
    assert_eq!(site.define(&site.alpha_admin, &split("alpha")).await.status, 201);
    let mut arms = BTreeMap::new();
    for round in 0..3 {
        for user in 0..30 {
            let reply = site.ask(&site.alpha, json!({"query": "叶黄素软糖 价格", "user_id": format!("u{user}")})).await;
            let arm = site.episode(&reply).await.experiment.unwrap().arm;
            let expected = if arm == "now" { "叶黄素软糖 零售价" } else { "叶黄素软糖 价格" };
            assert_eq!(reply.body["data"]["rewritten_query"], expected);
            assert_eq!(arms.entry(user).or_insert_with(|| arm.clone()), &arm, "round {round} moved user {user}");
        }
    }
    let now = arms.values().filter(|arm| *arm == "now").count();
    assert!((5..=25).contains(&now), "{now} of 30");
}

#[tokio::test]
async fn an_interleaved_answer_says_who_picked_what_and_takes_clicks() {
    let site = World::new().open().await;
    site.rewriter(Double::Says("胶原蛋白肽饮 孕妇"));
    let mut definition = split("alpha");
    definition["kind"] = json!("interleave");
    assert_eq!(site.define(&site.alpha_admin, &definition).await.status, 201);
    let reply = site.ask(&site.alpha, plain()).await;
    assert_eq!(ids(&reply).iter().collect::<BTreeSet<_>>(), BTreeSet::from([&"drink", &"price"]));
    let episode = site.episode(&reply).await;
    assert_eq!(episode.experiment.unwrap().arm, "now+raw");
    let teams: Vec<_> = episode.hits.iter().map(|hit| hit.team.as_deref().unwrap()).collect();
    assert_eq!(teams.iter().collect::<BTreeSet<_>>().len(), 2, "{teams:?}");
    assert_eq!(episode.hits.iter().map(|hit| hit.rank).collect::<Vec<_>>(), [1, 2]);

    let post = async |body: Value| site.call("POST", "/v1/feedback", &site.alpha, Some(body)).await;
    let click = json!({"episode_id": episode.id, "click": episode.hits[1].id});
    assert_eq!(post(click).await.status, 200);
    let foreign = post(json!({"episode_id": episode.id, "click": "no-such-passage"})).await;
    assert_eq!((foreign.status.as_u16(), &foreign.body["errors"][0]["field"]), (422, &json!("click")));
    let tenant: TenantId = "alpha".parse().unwrap();
    let clicks = site.app.episodes.read(move |reader| reader.feedback_by_experiment(&tenant, "split")).await.unwrap();
    assert_eq!(clicks.iter().map(|one| one.arm.as_str()).collect::<Vec<_>>(), ["now+raw"]);
}

#[tokio::test]
async fn feedback_is_kept_once_and_only_about_what_is_there() {
    let site = World::new().open().await;
    let reply = site.ask(&site.alpha, plain()).await;
    let id = reply.body["episode_id"].clone();
    let post = async |key: &str, body: Value| site.call("POST", "/v1/feedback", key, Some(body)).await;
    let event = json!({"episode_id": id, "event_id": EpisodeId::now(), "thumbs": "up"});
    assert_eq!(post(&site.alpha, event.clone()).await.body["duplicate"], false);
    assert_eq!(post(&site.alpha, event).await.body["duplicate"], true);

    let keyed = async || {
        let body = json!({"episode_id": id, "score": 0.5}).to_string();
        let request = question(&site.alpha).uri("/v1/feedback").header("idempotency-key", "k");
        site.send(request.body(body.into()).unwrap()).await.body
    };
    let (first, second) = (keyed().await, keyed().await);
    assert_eq!((&first["duplicate"], &second["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(first["feedback_id"], second["feedback_id"]);

    assert_eq!(post(&site.beta, json!({"episode_id": id, "thumbs": "up"})).await.status, 404, "another tenant's");
    let early = json!({"episode_id": EpisodeId::now(), "comment": "好", "deferred": true});
    assert_eq!(post(&site.alpha, early).await.status, 202);
    for wrong in [json!({}), json!({"thumbs": "up", "score": 1.0}), json!({"score": 1.5}), json!({"preferred": "both"})]
    {
        let mut body = wrong.clone();
        body["episode_id"] = id.clone();
        assert_eq!(post(&site.alpha, body).await.status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn changes_are_versioned_and_meet_no_other_change() {
    let site = World::new().open().await;
    let admin = &site.alpha_admin;
    let created = site.define(admin, &shadow("alpha")).await;
    assert_eq!((created.status.as_u16(), &created.headers["etag"]), (201, &"\"1\"".parse().unwrap()));
    assert_eq!(site.define(admin, &shadow("alpha")).await.status, 409);
    let path = "/v1/experiments/shadow-alpha";
    let mut changed = shadow("alpha");
    changed["sample_rate"] = json!(0.25);
    assert_eq!(site.call("PUT", path, admin, Some(changed.clone())).await.status, 428);
    let versioned = format!("{path}?expected_version=1&note=less");
    assert_eq!(site.call("PUT", &versioned, admin, Some(changed.clone())).await.body["version"], 2);
    let late = site.call("PUT", &versioned, admin, Some(changed)).await;
    assert_eq!((late.status.as_u16(), &late.body["version"]), (409, &json!(2)));
    let shown = site.call("GET", path, admin, None).await.body;
    assert_eq!((&shown["definition"]["sample_rate"], &shown["versions"][1]["note"]), (&json!(0.25), &json!("less")));
    assert_eq!(site.call("DELETE", path, admin, None).await.body["state"], "disabled");

    for (method, path) in [("GET", path.to_owned()), ("DELETE", path.to_owned()), ("POST", format!("{path}/kill"))] {
        assert_eq!(site.call(method, &path, &site.beta_admin, None).await.status, 404, "{method} {path}");
        assert_eq!(site.call(method, &path, &site.alpha, None).await.status, 403, "{method} {path}");
    }
    assert_eq!(site.call("GET", "/v1/experiments", &site.beta_admin, None).await.body["experiments"], json!([]));
    assert_eq!(site.define(&site.beta_admin, &split("alpha")).await.status, 403);
    let mut own = shadow("beta");
    own["id"] = json!("shadow-alpha");
    let taken = site.define(&site.beta_admin, &own).await;
    assert_eq!((taken.status.as_u16(), &taken.body["version"]), (409, &Value::Null), "nothing is told of it");
}

#[tokio::test]
async fn a_bad_definition_is_refused_with_every_problem() {
    let site = World::new().open().await;
    let bad = json!({
        "id": "bad", "kind": "shadow", "tenants": ["alpha"], "control": "nobody", "sample_rate": 2.0,
        "arms": [{"name": "a", "weight": -1.0, "rewriter": "policy:x"}, {"name": "b", "rewriter": "remote"}],
    });
    let refused = site.define(&site.alpha_admin, &bad).await;
    assert_eq!(refused.status, 422);
    let fields: BTreeSet<&str> =
        refused.body["errors"].as_array().unwrap().iter().filter_map(|one| one["field"].as_str()).collect();
    for field in ["control", "sample_rate", "arms[0].weight", "arms[0].rewriter", "arms[1].rewriter"] {
        assert!(fields.contains(field), "{field} is missing in {}", refused.text);
    }
    assert_eq!(site.define(&site.alpha_admin, &shadow("alpha")).await.status, 201);
    let second = site.define(&site.alpha_admin, &split("alpha")).await;
    assert!(second.text.contains("shadow-alpha"), "two at a time: {}", second.text);
}

#[tokio::test]
async fn the_configuration_defines_and_a_change_by_hand_stands_until_it_changes() {
    let mut world = World::new();
    let define = |rate: &str| {
        format!(
            "[{{id = \"c\", kind = \"shadow\", tenants = [\"alpha\", \"beta\"], control = \"a\", sample_rate = {rate}, \
             arms = [{{name = \"a\", rewriter = \"configured\"}}, {{name = \"b\", rewriter = \"pass_through\"}}]}}]"
        )
    };
    let state = async |world: &World| {
        let site = world.open().await;
        let entry = site.app.arena.table().all.get("c").cloned().unwrap();
        (entry.version, entry.definition.enabled, entry.definition.sample_rate, site)
    };
    world.set("EXPERIMENTS__DEFINE", &define("0.5"));
    let (version, enabled, _, site) = state(&world).await;
    assert_eq!((version, enabled), (1, true));
    assert_eq!(
        site.call("GET", "/v1/experiments/c", &site.alpha_admin, None).await.status,
        404,
        "it is not alpha's alone"
    );
    site.app.arena.stop("c", false, None, "somebody", "enough").await.unwrap();
    site.shut().await;
    let (version, enabled, _, site) = state(&world).await;
    assert_eq!((version, enabled), (2, false), "the same configuration says nothing new");
    site.shut().await;
    world.set("EXPERIMENTS__DEFINE", &define("0.75"));
    let (version, enabled, rate, site) = state(&world).await;
    assert_eq!((version, enabled, rate), (3, true, 0.75));
    site.shut().await;
    world.set("EXPERIMENTS__DEFINE", "[]");
    let (version, enabled, _, site) = state(&world).await;
    assert_eq!((version, enabled), (4, false), "it has left the configuration");
    site.shut().await;
    world.set("EXPERIMENTS__DEFINE", "[{id = \"x\"}]");
    let error = crate::Gateway::open(world.settings()).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("experiments.define[0]"), "{error}");
}

#[tokio::test]
async fn a_broken_guardrail_stops_the_experiment_and_says_why() {
    let site = World::new().open().await;
    site.rewriter(Double::Says("叶黄素软糖 零售价"));
    let mut definition = split("alpha");
    definition["guardrails"] = json!({"length_ratio": 0.5, "p99_rewrite_ms": 60000.0});
    definition["unit"] = json!("request");
    assert_eq!(site.define(&site.alpha_admin, &definition).await.status, 201);
    for _ in 0..20 {
        site.ask(&site.alpha, plain()).await;
    }
    site.app.arena.look_at_guardrails().await;
    assert_eq!(site.app.arena.table().all["split"].version, 1, "too few answers to judge by");
    for _ in 0..180 {
        site.ask(&site.alpha, plain()).await;
    }
    site.app.arena.look_at_guardrails().await;
    let entry = site.app.arena.table().all["split"].clone();
    assert!(entry.definition.killed);
    assert_eq!(entry.author, "guardrail");
    assert!(entry.note.starts_with("arm raw: length_ratio"), "{}", entry.note);
    let reply = site.ask(&site.alpha, plain()).await;
    assert_eq!(reply.body["data"]["rewritten_query"], "叶黄素软糖 零售价");
    assert_eq!(site.episode(&reply).await.experiment, None);
}

#[tokio::test]
async fn a_report_comes_in_three_forms_and_covers_what_compares_the_same() {
    let site = World::new().open().await;
    site.rewriter(Double::Says("叶黄素软糖 零售价"));
    let mut definition = shadow("alpha");
    definition["control_rate"] = json!(0.25);
    site.define(&site.alpha_admin, &definition).await;
    for _ in 0..20 {
        site.ask(&site.alpha, plain()).await;
    }
    site.ended(20).await;
    // Another rate compares the same arms: the report goes on.
    definition["control_rate"] = json!(0.0);
    let path = "/v1/experiments/shadow-alpha";
    site.call("PUT", &format!("{path}?expected_version=1"), &site.alpha_admin, Some(definition.clone())).await;
    for _ in 0..10 {
        site.ask(&site.alpha, plain()).await;
    }
    site.ended(30).await;
    let gathered = |version| {
        let reader = site.app.episodes.reader();
        crate::report_input(&reader, "shadow-alpha", version, &site.app.settings.tenants.dir).unwrap()
    };
    let all = gathered(None).unwrap();
    assert_eq!((all.version, all.pairs.len() + all.controls.len()), (2, 30));
    assert_eq!((all.accounting.sampled + all.control_accounting.sampled, all.ended), (30, false));
    assert!(all.accounting.adds_up() && all.control_accounting.adds_up() && !all.controls.is_empty());
    assert_eq!(all.pairs[0].live.rewrite, "叶黄素软糖 零售价");
    assert_eq!(all.pairs[0].other.rewrite, "叶黄素软糖 价格");
    assert_eq!(
        gathered(Some(1)).unwrap().accounting.sampled + gathered(Some(2)).unwrap().accounting.sampled,
        all.accounting.sampled
    );
    assert_eq!(gathered(Some(9)), None);
    // Another arm is another comparison: it starts anew.
    definition["salt"] = json!("anew");
    site.call("PUT", &format!("{path}?expected_version=2"), &site.alpha_admin, Some(definition)).await;
    assert!(gathered(None).unwrap().pairs.is_empty());

    let report = format!("{path}/report?version=1");
    let json = site.call("GET", &report, &site.alpha_admin, None).await;
    assert_eq!((json.status.as_u16(), &json.body["version"]), (200, &json!(1)), "{}", json.text);
    let page = site.call("GET", &format!("{report}&format=html"), &site.alpha_admin, None).await;
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    let text = site.call("GET", &format!("{report}&format=text"), &site.alpha_admin, None).await;
    assert!(text.text.contains("shadow-alpha"), "{}", text.text);
    assert_eq!(site.call("GET", &format!("{report}&format=pdf"), &site.alpha_admin, None).await.status, 422);
    assert_eq!(site.call("GET", &report, &site.beta_admin, None).await.status, 404);
    let api = site.call("GET", "/openapi.json", "", None).await.body;
    for path in ["/v1/experiments/{id}/report", "/v1/experiments/{id}/kill", "/v1/feedback"] {
        assert!(api["paths"].get(path).is_some(), "{path} is not described");
    }
}
