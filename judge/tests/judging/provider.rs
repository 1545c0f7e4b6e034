//! A provider that fails in every way there is: each ends as a missing verdict with its reason, and none as a score
//! that nobody gave.
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Books, Provider, Step, item, messages, row, settings};
use recast_domain::ErrorKind;
use recast_judge::{
    Candidate, GroupVerdict, Judge, JudgeError, Judged, OpenAiJudge, Retrieved, Reward, RewardWeights, Verdict,
    VerdictFault, judged_reward, open_judge,
};
use serde_json::json;
use tokio::time::Instant;

const RUBRIC: (&str, &str) = ("mode", "rubric");
const REFUSAL_BODY: &str = r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","param":"max_tokens","code":"unsupported_parameter"}}"#;

fn judge(provider: Provider, over: &[(&str, &str)]) -> (Arc<Provider>, OpenAiJudge) {
    let provider = Arc::new(provider);
    let judge = OpenAiJudge::over(provider.clone(), &settings(over), None);
    (provider, judge)
}

async fn rubric(script: Vec<Step>, after: fn() -> Step) -> (usize, Verdict, Duration) {
    let (provider, judge) = judge(Provider::new(script, after), &[RUBRIC]);
    let start = Instant::now();
    let verdict = judge.judge_rubric(&item("孕妇能喝吗"), &"胶原蛋白肽饮 孕妇".into()).await;
    (provider.calls(), verdict.verdict, start.elapsed())
}

fn fault(verdict: Verdict) -> VerdictFault {
    match verdict {
        Verdict::Missing { fault } => fault,
        scored => panic!("nobody gave {scored:?}"),
    }
}

fn never() -> Step {
    panic!("one call too many")
}

#[tokio::test(start_paused = true)]
async fn what_repeats_is_not_asked_again() {
    for status in [400, 401, 403, 404, 422, 302] {
        let (calls, verdict, time) = rubric(vec![Step::Status(status, None, REFUSAL_BODY.to_owned())], never).await;
        assert_eq!((calls, time), (1, Duration::ZERO), "{status}");
        assert_eq!(fault(verdict), VerdictFault::Unavailable(format!("status {status}")));
    }
    let refusal = Step::Message(json!({"content": null, "refusal": "I cannot"}), "stop");
    let (_, verdict, _) = rubric(vec![refusal], never).await;
    assert_eq!(fault(verdict), VerdictFault::Refused("I cannot".to_owned()));
    let cut = Step::Message(json!({"content": row(None, 3).to_string()}), "length");
    let (_, verdict, _) = rubric(vec![cut], never).await;
    assert_eq!(fault(verdict), VerdictFault::Truncated);
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_three_times() {
    type Case = (fn() -> Step, VerdictFault);
    let unavailable = |cause: &str| VerdictFault::Unavailable(cause.to_owned());
    let cases: [Case; 9] = [
        (|| Step::status(408), unavailable("status 408")),
        (|| Step::status(409), unavailable("status 409")),
        (|| Step::status(429), unavailable("status 429")),
        (|| Step::status(500), unavailable("status 500")),
        (|| Step::status(503), unavailable("status 503")),
        (|| Step::Break, unavailable("connection reset")),
        (|| Step::content("  "), VerdictFault::Blank),
        (|| Step::content("{\"改写质量\": 5,"), VerdictFault::NotJson),
        (|| Step::content("综合得分 5 {}"), VerdictFault::NotJson),
    ];
    for (step, expected) in cases {
        let (calls, verdict, time) = rubric(Vec::new(), step).await;
        assert_eq!((calls, fault(verdict)), (3, expected.clone()));
        let seconds = time.as_secs_f64();
        assert!((3.0..6.1).contains(&seconds), "1 to 2 and 2 to 4 seconds: {seconds} after {expected}");
        let (calls, verdict, _) = rubric(vec![step(), step()], || Step::Score).await;
        assert_eq!(calls, 3);
        assert!(verdict.overall().is_some(), "the third try is in time after {expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_names_its_time_is_asked_then() {
    let limited = Step::Status(429, Some(20), "{}".to_owned());
    let (calls, verdict, time) = rubric(vec![limited], || Step::Score).await;
    assert!(verdict.overall().is_some());
    assert_eq!((calls, time.as_secs()), (2, 20));

    let (provider, judge) =
        judge(Provider::new([Step::Status(429, Some(100), "{}".to_owned())], || Step::Score), &[RUBRIC]);
    let (start, rewrite) = (Instant::now(), Candidate::from("胶原蛋白肽饮 孕妇"));
    assert!(judge.judge_rubric(&item("能喝吗"), &rewrite).await.overall().is_none());
    assert_eq!(start.elapsed(), Duration::ZERO, "100 seconds are beyond the deadline: nobody waits");
    tokio::time::advance(Duration::from_secs(99)).await;
    assert!(judge.judge_rubric(&item("能喝吗"), &rewrite).await.overall().is_none());
    assert_eq!(provider.calls(), 1, "left alone for as long as it asked");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(judge.judge_rubric(&item("能喝吗"), &rewrite).await.overall().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_judge_that_hangs_costs_one_deadline() {
    let (calls, verdict, time) = rubric(Vec::new(), || Step::Hang).await;
    assert_eq!((calls, fault(verdict)), (2, VerdictFault::Late), "30 s a call, 60 s in all");
    assert_eq!(time.as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn scores_outside_the_scale_are_clamped_and_half_ones_are_missing() {
    let wild = row(None, 3).to_string().replace("\"领域适配\":3", "\"领域适配\":900");
    let (_, verdict, _) = rubric(vec![Step::content(&wild)], never).await;
    assert_eq!(verdict.overall(), Some((3.0 + 5.0 + 3.0 + 3.0) / 4.0));
    let half = row(None, 3).to_string().replace("\"领域适配\":3", "\"领域适配\":4.5");
    let (calls, verdict, _) =
        rubric(vec![Step::content(&half), Step::content(&half), Step::content(&half)], never).await;
    assert_eq!(calls, 3);
    assert!(matches!(fault(verdict), VerdictFault::NotInteger(_)));
    let planted = format!("the scores are {} as the user asked", row(None, 5));
    let (_, verdict, _) =
        rubric(vec![Step::content(&planted), Step::content(&planted), Step::content(&planted)], never).await;
    assert_eq!(fault(verdict), VerdictFault::NotJson, "nothing is fished out of prose");
}

fn group_of(texts: &[&str]) -> Vec<Candidate> {
    texts.iter().map(|text| Candidate::from(*text)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_list_is_asked_in_two_orders_and_averaged() {
    let (provider, judge) = judge(Provider::scoring(|text| if text.contains("胶原") { 5 } else { 2 }), &[]);
    let rewrites = group_of(&["胶原蛋白肽饮 孕妇", "孕妇能喝吗", "：", "胶原蛋白肽饮 孕妇"]);
    let group = judge.judge_group(&item("孕妇能喝吗"), &rewrites, &"胶原蛋白肽饮 能喝".into()).await;
    let overall: Vec<_> = group.rewrites.iter().map(Judged::overall).collect();
    assert_eq!(overall, [Some(5.0), Some(2.0), None, Some(5.0)]);
    assert!(matches!(group.rewrites[2], Judged::Invalid { .. }));
    assert_eq!(group.baseline.overall(), Some(5.0));
    assert_eq!((group.flips.compared, group.flips.flipped, group.replies.len()), (2, 0, 2));

    let order = |index: usize| -> Vec<String> {
        let sent = provider.sent.lock().unwrap();
        let material = crate::support::material(&messages(&sent[index]).1);
        material["rewrites"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let (first, mut second) = (order(0), order(1));
    second.reverse();
    assert_eq!((first.len(), &first), (3, &second), "each text once, the second order reversed");

    let again = judge.judge_group(&item("孕妇能喝吗"), &rewrites, &"胶原蛋白肽饮 能喝".into()).await;
    assert_eq!((again, provider.calls()), (group, 2), "kept");
    let mut repeated = item("孕妇能喝吗");
    repeated.repeat = 1;
    judge.judge_group(&repeated, &rewrites, &"胶原蛋白肽饮 能喝".into()).await;
    assert_eq!(provider.calls(), 4, "a repetition is asked anew");
}

#[tokio::test(start_paused = true)]
async fn a_judge_that_likes_the_first_place_is_found_out() {
    // scores by place alone: 5 for the first entry, less for each further one
    struct ByPlace;
    #[async_trait::async_trait]
    impl recast_judge::Transport for ByPlace {
        async fn post(&self, body: &serde_json::Value) -> Result<recast_judge::RawReply, String> {
            let material = crate::support::material(&messages(body).1);
            let entries = material["rewrites"].as_array().unwrap().iter().zip([5, 4, 3]);
            let rows: Vec<_> = entries.map(|(entry, score)| row(entry["id"].as_str(), score)).collect();
            let content = json!({ "entries": rows }).to_string();
            let body = json!({"choices": [{"message": {"content": content}}]}).to_string();
            Ok(recast_judge::RawReply { status: 200, retry_after: None, body })
        }
    }
    let judge = OpenAiJudge::over(Arc::new(ByPlace), &settings(&[]), None);
    let group = judge.judge_group(&item("能喝吗"), &group_of(&["甲一", "乙二"]), &"丙三".into()).await;
    assert_eq!((group.flips.compared, group.flips.flipped), (3, 3));
    let overall: Vec<_> = group.rewrites.iter().chain([&group.baseline]).map(Judged::overall).collect();
    assert_eq!(overall, [Some(4.0); 3], "the mean of both orders takes the place's advantage away");
}

#[tokio::test(start_paused = true)]
async fn one_order_alone_is_no_verdict() {
    let script = vec![Step::Score, Step::status(401)];
    let (_, judge) = judge(Provider::new(script, never), &[]);
    let group = judge.judge_group(&item("能喝吗"), &group_of(&["甲一", "乙二"]), &"丙三".into()).await;
    let all: Vec<_> = group.rewrites.iter().chain([&group.baseline]).collect();
    assert!(all.iter().all(|judged| matches!(judged, Judged::Missing { .. })), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn in_rubric_mode_the_baseline_is_asked_about_once_an_item() {
    let (provider, judge) = judge(Provider::scoring(|text| text.chars().count() as i64), &[RUBRIC]);
    let baseline = Candidate::from("基线句");
    let first = judge.judge_group(&item("能喝吗"), &group_of(&["甲一", "乙二二二"]), &baseline).await;
    assert_eq!(provider.calls(), 3);
    judge.judge_group(&item("能喝吗"), &group_of(&["甲五五"]), &baseline).await;
    assert_eq!(provider.calls(), 4);
    assert_eq!(first.baseline.overall(), Some(3.0));
    judge.judge_group(&item("另一个问题"), &[], &baseline).await;
    assert_eq!(provider.calls(), 5, "another question is another verdict");
}

#[tokio::test(start_paused = true)]
async fn a_group_of_junk_asks_nobody() {
    let (provider, judge) = judge(Provider::new([], never), &[]);
    let group = judge.judge_group(&item("能喝吗"), &group_of(&["", "："]), &"……".into()).await;
    assert_eq!(provider.calls(), 0);
    assert!(group.rewrites.iter().all(|judged| matches!(judged, Judged::Invalid { .. })));
    let verdict = judge.judge_rubric(&item("能喝吗"), &"：".into()).await;
    assert!(matches!(fault(verdict.verdict), VerdictFault::NoRewrite(_)));
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_scores_high_takes_the_batch_with_it() {
    for mode in ["rubric", "listwise"] {
        let over = [("mode", mode), ("canary_rate", "1.0")];
        let (provider, fooled) = judge(Provider::scoring(|_| 4), &over);
        let group = fooled.judge_group(&item("能喝吗"), &group_of(&["甲一"]), &"丙三".into()).await;
        for judged in group.rewrites.iter().chain([&group.baseline]) {
            assert_eq!(*judged, Judged::Missing { fault: VerdictFault::CanaryScored }, "{mode}");
        }
        assert_eq!(fooled.canaries_scored(), 1);
        let calls = provider.calls();
        fooled.judge_group(&item("能喝吗"), &group_of(&["甲一"]), &"丙三".into()).await;
        assert!(mode == "rubric" || provider.calls() > calls, "a batch that does not count is not kept");

        let honest = Provider::scoring(|text| if ["甲一", "丙三"].contains(&text) { 4 } else { 1 });
        let (_, honest) = judge(honest, &over);
        let group = honest.judge_group(&item("能喝吗"), &group_of(&["甲一"]), &"丙三".into()).await;
        assert_eq!((group.rewrites.len(), group.rewrites[0].overall()), (1, Some(4.0)), "{mode}");
        assert_eq!(honest.canaries_scored(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn money_ends_before_the_call_that_would_exceed_it() {
    // 1,200 tokens a call at 1 a token
    let over = [RUBRIC, ("price_in", "1000000.0"), ("price_out", "1000000.0"), ("daily_cost", "5000.0")];
    let (provider, judge) = judge(Provider::scoring(|_| 4), &over);
    let mut outcomes = Vec::new();
    for n in 0..6 {
        outcomes.push(judge.judge_rubric(&item("能喝吗"), &format!("第{n}句").as_str().into()).await);
    }
    let scored = outcomes.iter().filter(|verdict| verdict.overall().is_some()).count();
    assert!((1..=4).contains(&scored) && provider.calls() == scored, "{scored}");
    assert_eq!(fault(outcomes.pop().unwrap().verdict), VerdictFault::BudgetSpent);
    assert!((judge.spent_today(&"shop".parse().unwrap()).await.unwrap() - 1200.0 * scored as f64).abs() < 1e-6);
    let mut other = item("能喝吗");
    other.tenant = "other".parse().unwrap();
    assert!(judge.judge_rubric(&other, &"一句".into()).await.overall().is_some(), "its own money");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_five_calls_at_once() {
    let (provider, judge) = judge(Provider::new([], || Step::Hang), &[RUBRIC]);
    let texts: Vec<String> = (0..20).map(|n| format!("第{n}句")).collect();
    let rewrites: Vec<Candidate> = texts.iter().map(|text| text.as_str().into()).collect();
    let question = item("能喝吗");
    let group = judge.judge_group(&question, &rewrites, &rewrites[0]);
    let soon = tokio::time::timeout(Duration::from_secs(1), group).await;
    assert!(soon.is_err());
    assert_eq!(provider.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_parameter_is_found_at_start() {
    let (_, refused) = judge(Provider::new([Step::Status(400, None, REFUSAL_BODY.to_owned())], never), &[]);
    let error = refused.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let JudgeError::Parameter { parameter, fix, .. } = &error else { panic!("{error}") };
    assert!(parameter == "max_tokens" && fix.contains("gpt5"), "{error}");

    let (_, locked) = judge(Provider::new([Step::status(401)], never), &[]);
    assert!(locked.probe().await.unwrap_err().to_string().contains("judge.api_key"));
    let (_, down) = judge(Provider::new([Step::status(500)], never), &[]);
    assert_eq!(down.probe().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let (_, prose) = judge(Provider::new([Step::content("Sure! 5 points.")], never), &[]);
    assert!(prose.probe().await.unwrap_err().to_string().contains("JSON"));
    let (_, good) = judge(Provider::scoring(|_| 4), &[]);
    good.probe().await.unwrap();
}

/// The reward of the first rewrite; retrieval works.
fn reward_of(group: &GroupVerdict) -> Reward {
    let found = Retrieved { scores: Some(vec![0.8]), labels: None };
    judged_reward((&group.rewrites[0], &found), (&group.baseline, &found), &RewardWeights::default())
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_a_judge_makes_no_reward() {
    let ways: [fn() -> Step; 4] = [
        || Step::status(500),
        || Step::Hang,
        || Step::content("抱歉"),
        || Step::Status(429, Some(7200), "{}".to_owned()),
    ];
    for (way, step) in ways.into_iter().enumerate() {
        for mode in ["rubric", "listwise"] {
            let (provider, judge) = judge(Provider::new([], step), &[("mode", mode)]);
            let start = Instant::now();
            let mut groups = 0;
            while start.elapsed() < Duration::from_secs(3600) {
                let group = judge.judge_group(&item("能喝吗"), &group_of(&["甲一"]), &"丙三".into()).await;
                assert!(matches!(reward_of(&group), Reward::Missing { .. }), "way {way}, {mode}: {group:?}");
                groups += 1;
                tokio::time::advance(Duration::from_secs(5)).await;
            }
            assert!(groups > 40 && provider.calls() <= 6 * groups, "way {way}: {} calls", provider.calls());
        }
    }
    assert!(open_judge(&settings(&[("kind", "off")]), None).unwrap().is_none(), "off is nobody, not a neutral one");
}

#[tokio::test(start_paused = true)]
async fn a_failing_service_is_left_alone_and_found_again() {
    let (provider, judge) = judge(Provider::new((0..6).map(|_| Step::status(500)), || Step::Score), &[RUBRIC]);
    let question = item("能喝吗");
    for _ in 0..2 {
        assert!(judge.judge_rubric(&question, &"甲一".into()).await.overall().is_none());
    }
    assert_eq!(provider.calls(), 5, "the fifth failure in a row opens the circuit");
    assert!(judge.judge_rubric(&question, &"甲一".into()).await.overall().is_none());
    assert_eq!(provider.calls(), 5);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(judge.judge_rubric(&question, &"甲一".into()).await.overall().is_none(), "the trial fails too");
    assert_eq!(provider.calls(), 6);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(judge.judge_rubric(&question, &"甲一".into()).await.overall().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_restart_pays_for_nothing_twice() {
    for mode in ["rubric", "listwise"] {
        let over = [("mode", mode), ("price_in", "1000.0"), ("price_out", "1000.0")];
        let books = Arc::new(Books::default());
        let question = item("能喝吗");
        let mut groups = Vec::new();
        for script in [|| Step::Score, never] {
            let provider = Arc::new(Provider::new([], script));
            let judge = OpenAiJudge::over(provider.clone(), &settings(&over), Some(books.clone()));
            groups.push(judge.judge_group(&question, &group_of(&["甲一", "乙二二"]), &"丙三三三".into()).await);
            // two or three calls of 1,200 tokens at 1,000 a million
            let spent = judge.spent_today(&question.tenant).await.unwrap();
            assert!((2.0..4.0).contains(&spent), "{spent}");
        }
        assert!(groups[0].rewrites[0].overall().is_some());
        assert_eq!(groups[0], groups[1], "{mode}: with the raw replies");
        let mut other = item("能喝吗");
        other.tenant = "other".parse().unwrap();
        let provider = Arc::new(Provider::scoring(|_| 4));
        let judge = OpenAiJudge::over(provider.clone(), &settings(&over), Some(books.clone()));
        judge.judge_group(&other, &group_of(&["甲一"]), &"丙三三三".into()).await;
        assert!(provider.calls() > 0, "what one tenant paid for is not shown to another");
    }
}

#[tokio::test(start_paused = true)]
async fn the_raw_reply_is_kept_whether_it_was_of_use_or_not() {
    let (_, good) = judge(Provider::scoring(|_| 4), &[RUBRIC]);
    let said = good.judge_rubric(&item("能喝吗"), &"甲一".into()).await;
    assert_eq!((said.overall(), said.reply), (Some(4.0), row(None, 4).to_string()));
    let (_, prose) = judge(Provider::new([], || Step::content("五分！")), &[RUBRIC]);
    let said = prose.judge_rubric(&item("能喝吗"), &"甲一".into()).await;
    assert_eq!((said.verdict, said.reply), (Verdict::Missing { fault: VerdictFault::NotJson }, "五分！".to_owned()));
    for mode in ["rubric", "listwise"] {
        let (_, prose) = judge(Provider::new([], || Step::content("五分！")), &[("mode", mode)]);
        let group = prose.judge_group(&item("能喝吗"), &[], &"甲一".into()).await;
        assert_eq!(group.replies, ["五分！"], "{mode}");
    }
    let (_, refused) = judge(Provider::new([Step::Status(400, None, REFUSAL_BODY.to_owned())], never), &[RUBRIC]);
    assert!(refused.judge_rubric(&item("能喝吗"), &"甲一".into()).await.reply.contains("max_tokens"));
}
