use super::*;
use serde_json::json;

fn check(body: &Value) -> Result<RagRequest, Vec<String>> {
    let settings = recast_config::load(&recast_config::Source::parse("demo"), []).unwrap().settings;
    let problem = match RawRequest::read(&serde_json::to_vec(body).unwrap()) {
        Ok(raw) => raw.check(&settings.limits, &settings.retrieval),
        Err(problem) => Err(problem),
    };
    problem.map_err(|problem| problem.errors().iter().map(|fault| fault.field.clone()).collect())
}

fn good(body: Value) -> RagRequest {
    check(&body).unwrap_or_else(|faults| panic!("{body} is refused: {faults:?}"))
}

#[test]
fn absent_and_null_are_the_same_and_unknown_fields_are_ignored() {
    let plain = good(json!({"query": "价格"}));
    assert_eq!(plain.kb_name.as_str(), "default");
    let nulls = json!({
        "query": "价格", "kb_name": null, "history": null, "top_k": null, "score_threshold": null,
        "rewritten_query": null, "filters": null, "user_id": null, "thought": null, "colour": 1,
    });
    assert_eq!(good(nulls), plain);
    assert_eq!(good(json!({"query": "价格", "rewritten_query": " "})).rewritten_query, None);
}

#[test]
fn history_comes_as_text_or_turns_and_loses_the_current_question() {
    let text = good(json!({"query": "能喝吗", "history": "用户: 胶原蛋白\n助手: 有\n用户: 能喝吗"}));
    let turns = json!([
        {"role": "user", "content": "胶原蛋白"}, {"role": "assistant", "content": "有"}, {"role": "user", "content": "能喝吗"}
    ]);
    assert_eq!(good(json!({"query": "能喝吗", "history": turns})), text);
    assert_eq!(text.conversation.history.len(), 2);
}

#[test]
fn top_k_is_clamped() {
    for (given, taken) in [(json!(0), 1), (json!(-7), 1), (json!(7), 7), (json!(1_000), 50), (json!(u64::MAX), 50)] {
        assert_eq!(good(json!({"query": "x", "top_k": given})).top_k, taken, "{given}");
    }
}

#[test]
fn every_fault_is_named() {
    let body = json!({
        "query": 1, "tenant_id": 2, "kb_name": "../x", "history": [{"role": "robot", "content": 1}, 3],
        "user_profile": [], "history_summary": "长".repeat(4001), "thought": {}, "top_k": 1.5, "score_threshold": 1.01,
        "rewritten_query": "长".repeat(501), "filters": {"a": null}, "user_id": 5, "conversation_id": false,
        "tags": {"a": 1, "b=c": "x", "": "y", "d": "长".repeat(257), "good": "z"},
    });
    let faults = check(&body).unwrap_err();
    for field in [
        "query",
        "tenant_id",
        "kb_name",
        "history[0].role",
        "history[0].content",
        "history[1]",
        "user_profile",
        "history_summary",
        "thought",
        "top_k",
        "score_threshold",
        "rewritten_query",
        "filters.a",
        "user_id",
        "conversation_id",
        "tags.a",
        "tags.b=c",
        "tags.",
        "tags.d",
    ] {
        assert!(faults.iter().any(|fault| fault == field), "{field} is not in {faults:?}");
    }
}

#[test]
fn tags_are_texts_by_name() {
    let tags = good(json!({"query": "x", "tags": {"渠道": "app", "版本": ""}})).tags;
    assert_eq!(tags, [("渠道".to_owned(), "app".to_owned()), ("版本".to_owned(), String::new())].into());
    let many: serde_json::Map<_, _> = (0..17).map(|number| (number.to_string(), json!("x"))).collect();
    for wrong in [json!(many), json!(["app"]), json!("app")] {
        assert_eq!(check(&json!({"query": "x", "tags": wrong})).unwrap_err(), ["tags"]);
    }
    assert!(good(json!({"query": "x", "tags": null})).tags.is_empty());
}

#[test]
fn lengths_are_in_characters() {
    assert!(check(&json!({"query": "问".repeat(4000)})).is_ok());
    assert_eq!(check(&json!({"query": "问".repeat(4001)})).unwrap_err(), ["query"]);
    assert_eq!(check(&json!({"query": "\u{3000} "})).unwrap_err(), ["query"]);
    let many = vec![json!({"role": "user", "content": "x"}); 51];
    assert_eq!(check(&json!({"query": "x", "history": many})).unwrap_err(), ["history"]);
}

#[test]
fn filters_come_short_or_as_conditions() {
    let short = good(json!({"query": "x", "filters": {"aspect": "价格", "year": [2023, 2024]}}));
    let long = json!([{"key": "aspect", "any": ["价格"]}, {"key": "year", "any": [2023, 2024]}]);
    assert_eq!(short, good(json!({"query": "x", "filters": long})));
    let faults = check(&json!({"query": "x", "filters": [{"key": "a"}, {"key": "a", "equals": 1}]})).unwrap_err();
    assert_eq!(faults, ["filters[0]"]);
}

#[test]
fn what_is_no_json_object_is_malformed() {
    let deep = format!("{{\"query\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    for body in [&b""[..], b"[]", b"[\"x\"]", b"{", b"{\"query\": \"\xff\"}", b"null", deep.as_bytes(), b"{} x"] {
        assert_eq!(RawRequest::read(body).unwrap_err().status(), 400, "{:?}", String::from_utf8_lossy(body));
    }
}
