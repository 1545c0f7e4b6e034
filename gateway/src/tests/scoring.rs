use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use base64::Engine;
use recast_domain::EpisodeId;
use recast_episodes::Side;
use recast_judge::{
    Candidate, Flips, GroupVerdict, InvalidRewrite, Judge, JudgeItem, Judged, RewriteRules, RubricVerdict, Scores,
    Verdict, VerdictFault, invalid_rewrite,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Site, World, plain};
use crate::scoring::judge_scores;

const SCORE: &str = "/v1/rl/score";

/// A judge whose mind is known: it likes texts that hold "软糖", and counts how often it is asked.
#[derive(Default)]
struct TestJudge {
    calls: AtomicUsize,
    mood: Mood,
}

#[derive(Default)]
enum Mood {
    #[default]
    Answers,
    /// Has no verdict on anything.
    Fails,
    /// Says that it was entered, and answers once it is let go.
    Waits { entered: Arc<Notify>, go: Arc<Notify> },
    /// Never answers.
    Hangs,
}

impl TestJudge {
    fn put(mood: Mood, site: &Site) -> Arc<Self> {
        let judge = Arc::new(Self { calls: AtomicUsize::new(0), mood });
        site.app.scoring.scorer.set_judge(Some(judge.clone()));
        judge
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn says(&self, query: &str, text: &str) -> Judged {
        if let Some(reason) = invalid_rewrite(query, text, &RewriteRules::default()) {
            return Judged::Invalid { reason };
        }
        if matches!(self.mood, Mood::Fails) {
            return Judged::Missing { fault: VerdictFault::Late };
        }
        let score = if text.contains("软糖") { 5 } else { 3 };
        let scores = Scores::try_from([score; 4]).unwrap();
        Judged::Scored { overall: f64::from(score), orders: vec![scores], reason: "因为".to_owned() }
    }

    async fn asked(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match &self.mood {
            Mood::Waits { entered, go } => {
                entered.notify_one();
                go.notified().await;
            }
            Mood::Hangs => std::future::pending().await,
            Mood::Answers | Mood::Fails => {}
        }
    }
}

#[async_trait]
impl Judge for TestJudge {
    fn id(&self) -> &'static str {
        "test-1"
    }

    async fn judge_rubric(&self, item: &JudgeItem, rewrite: &Candidate) -> RubricVerdict {
        self.asked().await;
        let verdict = match self.says(&item.conversation.query, &rewrite.text) {
            Judged::Scored { orders, reason, .. } => Verdict::Scored { scores: orders[0], reason },
            Judged::Missing { fault } => Verdict::Missing { fault },
            Judged::Invalid { reason } => Verdict::Missing { fault: VerdictFault::NoRewrite(reason) },
        };
        RubricVerdict { verdict, reply: "{\"双\": 1}".to_owned() }
    }

    async fn judge_group(&self, item: &JudgeItem, rewrites: &[Candidate], baseline: &Candidate) -> GroupVerdict {
        self.asked().await;
        let says = |one: &Candidate| self.says(&item.conversation.query, &one.text);
        GroupVerdict {
            judge: self.id().to_owned(),
            rewrites: rewrites.iter().map(says).collect(),
            baseline: says(baseline),
            flips: Flips::default(),
            replies: vec!["{}".to_owned()],
        }
    }
}

fn about(query: &str, completion: &str) -> Value {
    json!({"item_id": "q", "completion": completion, "context": {"query": query}})
}

async fn post(site: &Site, key: &str, body: Value) -> super::Reply {
    site.call("POST", SCORE, key, Some(body)).await
}

fn write_dialogues(world: &World, tenant: &str) {
    let line = json!({
        "id": "d1", "conversation_id": "c1", "split": "train", "history": [], "query": "多少钱", "user_profile": "",
        "history_summary": "", "thought": "", "gold_rewrites": ["叶黄素软糖 价格"],
        "relevant": [{"id": "price", "grade": 2}], "query_type": "general"
    });
    let file = world.folder.path().join("tenants").join(tenant).join("dialogues.jsonl");
    std::fs::write(file, format!("{line}\n")).unwrap();
}

#[tokio::test]
async fn a_completion_is_scored_against_the_question_as_typed() {
    let site = World::new().open().await;
    let judge = TestJudge::put(Mood::Answers, &site);
    let reply = post(&site, &site.train, about("多少钱", "叶黄素软糖 零售价")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = &reply.body;
    assert_eq!((&body["status"], &body["judge_version"]), (&json!("scored"), &json!("test-1")), "{body}");
    assert_eq!(body["parts"]["judge_student"], 5.0);
    assert!(body["reward"].as_f64().unwrap() > 0.5, "{body}");
    assert!(body["parts"]["quality_student"].as_f64().unwrap() > body["parts"]["quality_baseline"].as_f64().unwrap());
    assert_eq!(body["parts"]["format"], 0.0);
    // the same again is the same, and nobody is asked
    let again = post(&site, &site.train, about("多少钱", "叶黄素软糖 零售价")).await;
    assert_eq!((again.text, judge.calls()), (reply.text, 1));
    // what was asked for training is no answer to anybody
    let episodes = site.call("GET", "/v1/episodes", &site.alpha_admin, None).await.body;
    assert_eq!(episodes["episodes"], json!([]));
}

#[tokio::test]
async fn a_copy_is_legal_and_an_invalid_text_costs_one_without_a_call() {
    let site = World::new().open().await;
    let judge = TestJudge::put(Mood::Answers, &site);
    for (text, reason) in
        [("", "empty"), ("：：", "junk"), ("<think>软糖", "injected"), (&"软糖".repeat(60), "too_long")]
    {
        let body = post(&site, &site.alpha_admin, about("多少钱", text)).await.body;
        assert_eq!((&body["status"], &body["reward"]), (&json!("scored"), &json!(-1.0)), "{text}: {body}");
        assert_eq!(body["reason"], format!("invalid_rewrite: {reason}"));
        assert_eq!(body["parts"]["format"], -1.0);
    }
    assert_eq!(judge.calls(), 0);
    let copy = post(&site, &site.alpha_admin, about("多少钱", "多少钱")).await.body;
    assert_eq!((&copy["status"], &copy["reward"]), (&json!("scored"), &json!(0.0)), "{copy}");
}

#[tokio::test]
async fn a_batch_is_judged_by_item_and_answered_in_order() {
    let world = World::new();
    write_dialogues(&world, "alpha");
    let site = world.open().await;
    let judge = TestJudge::put(Mood::Answers, &site);
    let body = json!({"item_id": ["d1", "d1", "q", "d1"], "completion": ["软糖 价格", "饮料", "软糖", "软糖 价格"],
        "sample_id": [1, 2, 3, 4], "context": [null, null, {"query": "孕妇能吃吗"}, null]});
    let reply = post(&site, &site.alpha_admin, body).await;
    let results = reply.body["results"].as_array().unwrap_or_else(|| panic!("{}", reply.text));
    assert_eq!((results.len(), judge.calls()), (4, 2));
    assert_eq!(results.iter().map(|one| one["sample_id"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(results[0]["reward"], results[3]["reward"], "one text has one score");
    assert!(results[0]["reward"].as_f64() > results[1]["reward"].as_f64());
    assert_eq!((&reply.body["scored"], &reply.body["unscored"]), (&json!(4), &json!(0)));
}

#[tokio::test]
async fn no_judge_and_a_failing_one_make_no_reward() {
    let site = World::new().open().await;
    let body = post(&site, &site.alpha_admin, about("多少钱", "软糖")).await.body;
    assert_eq!(
        (&body["status"], &body["reward"], &body["judge_version"]),
        (&json!("unscored"), &Value::Null, &json!("off"))
    );
    assert!(body["reason"].as_str().unwrap().starts_with("judge_off"), "{body}");

    TestJudge::put(Mood::Fails, &site);
    let batch = json!([about("多少钱", "软糖"), about("多少钱", "")]);
    let reply = post(&site, &site.alpha_admin, batch).await;
    assert_eq!((reply.status.as_u16(), &reply.body["unscored"]), (200, &json!(1)), "{}", reply.text);
    let [missing, invalid] = [0, 1].map(|at| &reply.body["results"][at]);
    assert_eq!((&missing["reward"], &invalid["reward"]), (&Value::Null, &json!(-1.0)));
    assert!(missing["reason"].as_str().unwrap().starts_with("judge_late"), "{missing}");
    // a verdict that was missing is asked for again
    TestJudge::put(Mood::Answers, &site);
    assert_eq!(post(&site, &site.alpha_admin, about("多少钱", "软糖")).await.body["status"], "scored");
    let metrics = site.call("GET", "/metrics", "", None).await.text;
    for name in ["recast_judge_unscored_total{reason=\"late\"}", "recast_rl_score_total{status=\"unscored\"}"] {
        assert!(metrics.contains(name), "{name} is not counted");
    }
}

#[tokio::test]
async fn a_judge_that_hangs_ends_as_unscored_and_serving_goes_on() {
    let mut world = World::new();
    world.set("SCORING__TIMEOUT_MS", "50").set("JUDGE__SAMPLE_RATE", "1.0");
    let site = world.open().await;
    TestJudge::put(Mood::Hangs, &site);
    for _ in 0..20 {
        assert_eq!(site.ask(&site.alpha, plain()).await.status, 200);
    }
    let body = post(&site, &site.alpha_admin, about("多少钱", "软糖")).await.body;
    assert_eq!((&body["status"], &body["reason"]), (&json!("unscored"), &json!("timeout")));
    assert_eq!(site.ask(&site.alpha, plain()).await.status, 200);
}

#[tokio::test]
async fn a_full_queue_is_refused_with_a_time_to_wait() {
    let mut world = World::new();
    world.set("SCORING__QUEUE", "2");
    let site = world.open().await;
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    TestJudge::put(Mood::Waits { entered: entered.clone(), go: go.clone() }, &site);
    let many = json!([about("a", "b"), about("a", "c"), about("a", "d")]);
    assert_eq!(post(&site, &site.alpha_admin, many).await.status, 422);

    let two = post(&site, &site.alpha_admin, json!([about("多少钱", "软糖"), about("多少钱", "价格")]));
    let meanwhile = async {
        entered.notified().await;
        let refused = post(&site, &site.alpha_admin, about("多少钱", "饮料")).await;
        assert_eq!((refused.status.as_u16(), refused.body["code"].as_str()), (429, Some("overloaded")));
        assert!(refused.headers.contains_key("retry-after"));
        go.notify_one();
    };
    let (two, ()) = tokio::join!(two, meanwhile);
    assert_eq!(two.body["scored"], 2, "{}", two.text);
    TestJudge::put(Mood::Answers, &site);
    assert_eq!(post(&site, &site.alpha_admin, about("多少钱", "饮料")).await.status, 200);
}

#[tokio::test]
async fn two_requests_for_one_completion_ask_once() {
    let site = World::new().open().await;
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let judge = TestJudge::put(Mood::Waits { entered: entered.clone(), go: go.clone() }, &site);
    let ask = || post(&site, &site.alpha_admin, about("多少钱", "软糖"));
    let release = async {
        entered.notified().await;
        go.notify_one();
    };
    let (first, second, ()) = tokio::join!(ask(), ask(), release);
    assert_eq!((first.text, judge.calls()), (second.text, 1));
}

#[tokio::test]
async fn items_and_scores_are_their_tenants_own() {
    let world = World::new();
    write_dialogues(&world, "alpha");
    let site = world.open().await;
    TestJudge::put(Mood::Answers, &site);
    let sample = json!({"item_id": "d1", "completion": "叶黄素软糖 价格"});
    assert_eq!(post(&site, &site.alpha_admin, sample.clone()).await.body["status"], "scored");
    let foreign = post(&site, &site.beta_admin, sample).await;
    assert_eq!((foreign.status.as_u16(), &foreign.body["errors"][0]["field"]), (422, &json!("samples[0].item_id")));
    let id = site.ask(&site.alpha, plain()).await.body["episode_id"].clone();
    let of_episode = json!({"item_id": id, "completion": "软糖 多少钱"});
    assert_eq!(post(&site, &site.beta_admin, of_episode.clone()).await.status, 422);
    let reply = post(&site, &site.alpha_admin, of_episode).await;
    assert_eq!(reply.body["status"], "scored", "{}", reply.text);
    // keys that only ask questions do not train
    assert_eq!(post(&site, &site.alpha, about("a", "b")).await.status, 403);
    assert_eq!(site.ask(&site.train, plain()).await.status, 403);
}

#[tokio::test]
async fn a_completion_of_an_episode_is_stored_with_its_arithmetic() {
    let site = World::new().open().await;
    TestJudge::put(Mood::Answers, &site);
    let reply = site.ask(&site.alpha, json!({"query": "多少钱", "rewritten_query": "饮料 价格"})).await;
    let id: EpisodeId = reply.body["episode_id"].as_str().unwrap().parse().unwrap();
    for text in ["叶黄素软糖", ""] {
        let body = json!({"item_id": id, "completion": text});
        assert_eq!(post(&site, &site.alpha_admin, body).await.body["status"], "scored");
    }
    let tenant: recast_domain::TenantId = "alpha".parse().unwrap();
    let reader = site.app.episodes.reader();
    let verdicts = reader.verdicts(&tenant, id).unwrap();
    assert_eq!(verdicts.len(), 1, "nobody is asked about an empty text");
    assert_eq!((verdicts[0].judge.as_str(), verdicts[0].raw.as_str()), ("test-1", "{}"));
    assert!(matches!(&verdicts[0].side, Side::Completion(_)));
    let rewards = reader.rewards(&tenant, id).unwrap();
    let stored: Vec<crate::StoredReward> =
        rewards.into_iter().map(|row| serde_json::from_value(row.parts).unwrap()).collect();
    assert_eq!(stored.len(), 2);
    let weights = site.app.scoring.scorer.weights();
    assert!(stored.iter().all(|one| one.facts.reward(weights) == one.reward), "{stored:?}");
    assert!(stored.iter().any(|one| one.facts.student.judged == Judged::Invalid { reason: InvalidRewrite::Empty }));
}

#[tokio::test]
async fn openrlhf_gets_its_shape_and_nothing_made_up() {
    let world = World::new();
    write_dialogues(&world, "alpha");
    let site = world.open().await;
    let body = json!({"query": ["P软糖 价格</s>", "P"], "prompts": ["P", "P"], "labels": ["d1", "d1"]});
    // without a judge one of the two is unscored, and so the whole item counts for nothing
    let reply = site.call("POST", "/get_reward", &site.alpha_admin, Some(body.clone())).await;
    assert_eq!((&reply.body["rewards"], &reply.body["extra_logs"]["scored"]), (&json!([0.0, 0.0]), &json!([0, 0])));
    TestJudge::put(Mood::Answers, &site);
    let coded = base64::engine::general_purpose::STANDARD.encode(format!("key:{}", site.train));
    let request = http::Request::post("/get_reward")
        .header("authorization", format!("Basic {coded}"))
        .header("content-type", "application/json");
    let reply = site.send(request.body(axum::body::Body::from(body.to_string())).unwrap()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!((&reply.body["rewards"][1], &reply.body["extra_logs"]["scored"]), (&json!(-1.0), &json!([1, 1])));
    assert!(reply.body["rewards"][0].as_f64().unwrap() > 0.5);
    assert_eq!(reply.body["rewards"], reply.body["scores"]);
}

#[tokio::test]
async fn live_answers_are_judged_beside_their_replies() {
    let site = World::new().open().await;
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    TestJudge::put(Mood::Waits { entered: entered.clone(), go: go.clone() }, &site);
    let id = site.ask(&site.alpha, plain()).await.body["episode_id"].as_str().unwrap().parse().unwrap();
    entered.notified().await;
    go.notify_one();
    let tenant: recast_domain::TenantId = "alpha".parse().unwrap();
    let reader = site.app.episodes.reader();
    let verdicts = eventually(|| Some(reader.verdicts(&tenant, id).unwrap()).filter(|rows| !rows.is_empty())).await;
    assert_eq!((&verdicts[0].side, verdicts[0].judge.as_str()), (&Side::Live, "test-1"));
    assert_eq!(verdicts[0].raw, "{\"双\": 1}");
    assert_eq!(verdicts[0].scores.as_ref().unwrap()["overall"], 5.0);
    let said = judge_scores(&reader, &[(tenant.clone(), id)], None).unwrap().unwrap();
    assert_eq!((said.judge.as_str(), said.scores[&(tenant, id)].live), ("test-1", Some(5.0)));
    assert_eq!(judge_scores(&reader, &[("beta".parse().unwrap(), id)], None).unwrap(), None);
}

#[tokio::test]
async fn changed_documents_change_what_is_found() {
    let site = World::new().open().await;
    TestJudge::put(Mood::Answers, &site);
    let sample = || about("多少钱", "冻干粉 规格");
    let before = post(&site, &site.alpha_admin, sample()).await.body;
    let document = json!({"text": "冻干粉 规格 三十克"});
    site.call("PUT", "/v1/kbs/default/documents/new", &site.alpha_admin, Some(document)).await;
    let after = post(&site, &site.alpha_admin, sample()).await.body;
    assert!(
        after["parts"]["quality_student"].as_f64() > before["parts"]["quality_student"].as_f64(),
        "{before} {after}"
    );
}

#[tokio::test]
async fn an_answer_is_judged_with_its_shadow_and_both_get_a_reward() {
    let world = World::new();
    write_dialogues(&world, "alpha");
    let site = world.open().await;
    let judge = TestJudge::put(Mood::Answers, &site);
    let definition = json!({
        "id": "pairs", "kind": "shadow", "tenants": ["alpha"], "control": "now", "sample_rate": 1.0,
        "arms": [{"name": "now", "rewriter": "configured"}, {"name": "raw", "rewriter": "pass_through"}],
    });
    site.rewriter(super::Double::Says("叶黄素软糖 价格"));
    let made = site.call("POST", "/v1/experiments", &site.alpha_admin, Some(definition)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let reply = site.ask(&site.alpha, json!({"query": "多少钱"})).await;
    let id: EpisodeId = reply.body["episode_id"].as_str().unwrap().parse().unwrap();
    let tenant: recast_domain::TenantId = "alpha".parse().unwrap();
    let reader = site.app.episodes.reader();
    let rewards = eventually(|| Some(reader.rewards(&tenant, id).unwrap()).filter(|rows| !rows.is_empty())).await;
    let total = |side: Side| {
        let row = rewards.iter().find(|row| row.side == side).unwrap();
        row.parts["reward"]["total"].as_f64().unwrap_or_else(|| panic!("{}", row.parts))
    };
    assert!(total(Side::Live) > 0.3 && total(Side::Shadow) < -0.3, "{rewards:?}");
    assert_eq!(judge.calls(), 1, "one question about both");
    let sides: Vec<Side> = reader.verdicts(&tenant, id).unwrap().into_iter().map(|row| row.side).collect();
    assert_eq!(sides, [Side::Live, Side::Shadow]);
    let asked = [(tenant, id)];
    let said = judge_scores(&reader, &asked, Some("test-1")).unwrap().unwrap();
    assert_eq!((said.scores[&asked[0]].live, said.scores[&asked[0]].shadow), (Some(5.0), Some(3.0)));
    assert_eq!(judge_scores(&reader, &asked, Some("other")).unwrap(), None);

    // a request that names a dialogue and asks its question; one that only names it; one under the dialogue's own id
    let questions = [("c1", "多少钱"), ("c1", "怎么吃"), ("d1", "多少钱")];
    for (name, query) in questions {
        let reply = site.ask(&site.alpha, json!({"query": query, "conversation_id": name})).await;
        let id: EpisodeId = reply.body["episode_id"].as_str().unwrap().parse().unwrap();
        eventually(|| Some(reader.rewards(&asked[0].0, id).unwrap()).filter(|rows| !rows.is_empty())).await;
    }
    let report = site.call("GET", "/v1/experiments/pairs/report", &site.alpha_admin, None).await.body;
    let metrics = report["metrics"].as_array().unwrap();
    let judged = metrics.iter().find(|one| one["metric"] == "judge").unwrap();
    assert_eq!((&judged["n"], &judged["control_mean"]), (&json!(4), &json!(5.0)), "{judged}");
    assert_eq!(judged["treatment_mean"], 3.0);
    assert!(report["notes"].to_string().contains("test-1"), "whose scores these are is said: {}", report["notes"]);
    let labelled = metrics.iter().find(|one| one["metric"] == "label_ndcg_at10").unwrap();
    assert_eq!(labelled["n"], 2);
    let folder = world.folder.path().join("tenants");
    let input = crate::report_input(&reader, "pairs", None, &folder).unwrap().unwrap();
    let kinds: Vec<_> = input.pairs.iter().map(|pair| pair.query_type.as_deref()).collect();
    assert_eq!(kinds, [None, Some("general"), None, Some("general")]);
}

/// What `look` finds, once it finds something; panics when that takes too long.
async fn eventually<T>(look: impl Fn() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                break found;
            }
            // who asks without a pause keeps the lock of the reader from those who are to bring it about
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), found).await.unwrap()
}
