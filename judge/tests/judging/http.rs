//! The client over real HTTP.
use crate::support::{item, row, settings};
use recast_judge::{Judge, OpenAiJudge, VerdictFault};
use serde_json::json;
use wiremock::matchers::{body_partial_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

fn judge(server: &MockServer, over: &[(&str, &str)]) -> OpenAiJudge {
    let url = format!("{}/v1", server.uri());
    let base = [("url", url.as_str()), ("mode", "rubric"), ("api_key", "canary-secret")];
    OpenAiJudge::new(&settings(&[&base, over].concat()), None).unwrap()
}

fn completion(content: &str) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .set_body_json(json!({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}))
}

#[tokio::test]
async fn a_question_reaches_the_service_with_its_key_and_parameters() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/chat/completions"))
        .and(header("authorization", "Bearer canary-secret"))
        .and(body_partial_json(json!({"model": "m", "max_completion_tokens": 4500})))
        .respond_with(completion(&row(None, 4).to_string()))
        .expect(1)
        .mount(&server)
        .await;
    let judge = judge(&server, &[("provider", "gpt5")]);
    assert_eq!(judge.judge_rubric(&item("能喝吗"), &"甲 能喝吗".into()).await.overall(), Some(4.0));
    assert!(judge.id().contains("gpt5") && !judge.id().contains("secret"));
}

#[tokio::test]
async fn neither_a_redirect_nor_a_huge_reply_is_followed() {
    let elsewhere = MockServer::start().await;
    Mock::given(method("POST")).respond_with(completion(&row(None, 5).to_string())).expect(0).mount(&elsewhere).await;
    let server = MockServer::start().await;
    let redirect = ResponseTemplate::new(307).insert_header("location", elsewhere.uri());
    Mock::given(method("POST")).respond_with(redirect).expect(1).mount(&server).await;
    let verdict = judge(&server, &[]).judge_rubric(&item("能喝吗"), &"甲 能喝吗".into()).await;
    let refused = recast_judge::Verdict::Missing { fault: VerdictFault::Unavailable("status 307".to_owned()) };
    assert_eq!(verdict.verdict, refused);

    let server = MockServer::start().await;
    let huge = ResponseTemplate::new(200).set_body_string("x".repeat(2 << 20));
    Mock::given(method("POST")).respond_with(huge).mount(&server).await;
    let error = judge(&server, &[]).probe().await.unwrap_err().to_string();
    assert!(error.contains("longer than"), "{error}");
}

#[tokio::test]
async fn a_refused_key_is_named_by_its_setting_and_never_shown() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(401)).mount(&server).await;
    let error = judge(&server, &[]).probe().await.unwrap_err();
    assert!(error.to_string().contains("judge.api_key"));
    assert!(!format!("{error:?}").contains("canary-secret"));
    assert!(OpenAiJudge::new(&settings(&[("url", "http://")]), None).is_err());
}
