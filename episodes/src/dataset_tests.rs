use super::*;

const TENANT: &str = "id = \"shop\"\nname = \"Shop\"\nsystem_prompt = \"rewrite\"\n";

fn folder(passages: &str, dialogues: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let shop = dir.path().join("shop");
    std::fs::create_dir(&shop).unwrap();
    std::fs::write(shop.join("tenant.toml"), TENANT).unwrap();
    std::fs::write(shop.join("passages.jsonl"), passages).unwrap();
    std::fs::write(shop.join("dialogues.jsonl"), dialogues).unwrap();
    (dir, shop)
}

fn passage(id: &str) -> String {
    format!("{{\"id\":\"{id}\",\"doc_id\":\"d\",\"text\":\"t\"}}\n")
}

fn dialogue(id: &str, conversation: &str, split: &str, relevant: &str) -> String {
    format!(
        "{{\"id\":\"{id}\",\"conversation_id\":\"{conversation}\",\"split\":\"{split}\",\
         \"history\":[{{\"role\":\"user\",\"content\":\"胶原蛋白\"}}],\"query\":\"孕妇能喝吗\",\"user_profile\":\"\",\
         \"history_summary\":\"\",\"thought\":\"\",\"gold_rewrites\":[\"胶原蛋白 孕妇\"],\
         \"relevant\":[{{\"id\":\"{relevant}\",\"grade\":2}}],\"query_type\":\"general\"}}\n"
    )
}

/// The problems of a folder as `file:line: message`.
fn problems(passages: &str, dialogues: &str) -> Vec<String> {
    let (_dir, shop) = folder(passages, dialogues);
    let error = load_tenant_folder(&shop).unwrap_err();
    let prefix = format!("{}/", shop.display());
    error.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

#[test]
fn a_sound_folder_is_read_whole() {
    let dialogues = dialogue("q1", "c1", "train", "p1") + "\n" + &dialogue("q2", "c1", "train", "p2");
    let (_dir, shop) = folder(&(passage("p1") + &passage("p2")), &dialogues);
    let data = load_tenant_folder(&shop).unwrap();
    assert_eq!((data.passages.len(), data.dialogues.len()), (2, 2));
    assert_eq!(data.profile.id.as_str(), "shop");
    assert_eq!(data.dialogues[1].relevant[0].id, "p2");
}

#[test]
fn every_bad_line_is_named_with_its_field() {
    let good = dialogue("q1", "c1", "train", "p1");
    let dialogues = [
        good.clone(),
        good.replace("\"q1\"", "\"q2\"").replace("\"user\"", "\"bot\""),
        good.replace("\"q1\"", "\"q3\"").replace("\"query\"", "\"Query\""),
        "not json\n".to_owned(),
        good.replace("\"q1\"", "\"q5\"").replace("胶原蛋白 孕妇", " "),
        good.clone(),
        good.trim_end().to_owned() + " {}\n",
        good.replace("\"grade\":2", "\"grade\":\"2\""),
    ];
    let found = problems(&(passage("p1") + "{\"id\":\"p2\",\"doc_id\":\"d\",\"text\":\"\"}\n"), &dialogues.concat());
    let expected = [
        "passages.jsonl:2: text is empty",
        "dialogues.jsonl:2: history[0].role: unknown variant `bot`, expected `user` or `assistant`",
        "dialogues.jsonl:3: Query: unknown field `Query`",
        "dialogues.jsonl:4: expected ident",
        "dialogues.jsonl:5: gold_rewrites[0] is empty",
        "dialogues.jsonl:6: id \"q1\" was used in line 1 before",
        "dialogues.jsonl:7: more than one value in the line",
        "dialogues.jsonl:8: relevant[0].grade: invalid type: string \"2\"",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} should start with {expected:?}");
    }
}

#[test]
fn files_are_held_against_each_other() {
    let dialogues = dialogue("q1", "c1", "train", "p1") + &dialogue("q2", "c1", "test", "p9");
    assert_eq!(
        problems(&passage("p1"), &dialogues),
        [
            "dialogues.jsonl:2: relevant[0].id: \"p9\" is not in passages.jsonl",
            "dialogues.jsonl:2: split: conversation \"c1\" is train in line 1 and test here: keep it in one",
        ]
    );
}

#[test]
fn missing_and_empty_files_are_named() {
    let (_dir, shop) = folder("", "");
    std::fs::remove_file(shop.join("tenant.toml")).unwrap();
    std::fs::remove_file(shop.join("passages.jsonl")).unwrap();
    let text = load_tenant_folder(&shop).unwrap_err().to_string();
    for part in ["tenant.toml", "passages.jsonl: cannot be read", "dialogues.jsonl: is empty"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(load_dialogues(&shop.join("none.jsonl")).is_err());
}

#[test]
fn bytes_that_are_no_utf8_are_a_problem_of_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("passages.jsonl");
    let mut bytes = passage("p1").into_bytes();
    bytes.extend(b"{\"id\":\"\xff\",\"doc_id\":\"d\",\"text\":\"t\"}\n");
    std::fs::write(&path, bytes).unwrap();
    let error = load_passages(&path).unwrap_err();
    assert_eq!(error.problems.len(), 1);
    assert_eq!(error.problems[0].line, Some(2));
}
