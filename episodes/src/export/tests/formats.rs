//! Every format holds what the store holds.

use super::readers::{Cell, table};
use super::*;

on_both!(
    rows_say_what_the_store_says,
    all_formats_hold_the_same_table,
    parquet_lies_in_folders_by_tenant_and_date,
    cells_that_a_workbook_cannot_hold_are_cut_and_counted,
    filters_hold_together
);

fn text(text: &str) -> Cell {
    if text.is_empty() { Cell::Nothing } else { Cell::Text(text.to_owned()) }
}

/// Each column against the store as its own types read it, not as the export does.
fn rows_say_what_the_store_says(site: &Site) {
    let (_writer, reader) = store_at(site, &["a", "b"], 60);
    let request = request(site.folder().join("out"), Format::Jsonl, &["a"]);
    let manifest = export(&reader, &request, go_on).unwrap();
    let rows = table(&request.folder, &manifest);
    let tenant = "a".parse().unwrap();
    assert_eq!(rows.len(), 60);
    for (number, row) in rows.iter().enumerate() {
        let one = reader.get(&tenant, id(number as u64)).unwrap();
        assert_eq!(row["episode_id"], text(&one.id.to_string()));
        assert_eq!(row["tenant_id"], text("a"));
        assert_eq!(row["created_at"], Cell::Time(one.created_ms));
        assert_eq!(row["query"], text(&one.conversation.query));
        assert_eq!(row["rewrite"], text(&one.rewrite.text));
        assert_eq!(row["user_id"], text(one.request.user_id.as_deref().unwrap_or_default()));
        assert_eq!(row["history"], Cell::Json(serde_json::to_value(&one.conversation.history).unwrap()));
        assert_eq!(row["history_turns"], Cell::Int(one.conversation.history.len() as i64));
        assert_eq!(row["completion_tokens"], Cell::Int(3));
        let Cell::Float(sum) = row["log_prob_sum"] else { panic!("{row:?}") };
        assert!((sum - -0.353).abs() < 1e-9);
        let Cell::Json(hits) = &row["hits"] else { panic!("{row:?}") };
        assert_eq!(serde_json::from_value::<Vec<recast_domain::EpisodeHit>>(hits.clone()).unwrap(), one.hits);
        assert_eq!(row["n_hits"], Cell::Int(one.hits.len() as i64));
        assert_eq!(row["top1_score"], one.hits.first().map_or(Cell::Nothing, |_| Cell::Float(0.83)));
        assert_eq!(row["is_degraded"], Cell::Bool(!one.degraded.is_empty()));
        assert_eq!(row["degraded"], Cell::Json(serde_json::to_value(&one.degraded).unwrap()));
        assert_eq!(row["total_us"], Cell::Int(one.timings.total_us as i64));
        assert_eq!(row["arm"], text(one.experiment.as_ref().map_or("", |part| &part.arm)));
        shadow(&reader, &one, row);
        beside(&reader, &one, row);
    }
}

type CellRow = std::collections::BTreeMap<&'static str, Cell>;

fn shadow(reader: &EpisodeReader, one: &Episode, row: &CellRow) {
    let Some(run) = reader.shadow_run(&one.tenant, one.id, ShadowKind::Treatment).unwrap() else {
        assert_eq!((&row["shadow_state"], &row["shadow_rewrite"]), (&Cell::Nothing, &Cell::Nothing));
        return;
    };
    let outcome = run.outcome.unwrap();
    assert_eq!(row["shadow_state"], text(outcome.label()));
    assert_eq!(row["shadow_reason"], text(outcome.reason()));
    assert_eq!(row["shadow_arm"], text(&run.assignment.arm));
    let answer = match &outcome {
        recast_domain::ShadowOutcome::Completed { answer } => Some(answer),
        _ => None,
    };
    assert_eq!(row["shadow_rewrite"], text(answer.map_or("", |answer| &answer.rewrite.text)));
    assert_eq!(row["shadow_n_hits"], answer.map_or(Cell::Nothing, |answer| Cell::Int(answer.hits.len() as i64)));
    assert_eq!(row["shadow_is_degraded"], answer.map_or(Cell::Nothing, |_| Cell::Bool(false)));
}

fn beside(reader: &EpisodeReader, one: &Episode, row: &CellRow) {
    let feedback = reader.feedback(&one.tenant, one.id).unwrap();
    let count = |what: fn(&FeedbackSignal) -> bool| {
        Cell::Int(feedback.iter().filter(|event| what(&event.signal)).count() as i64)
    };
    assert_eq!(row["n_feedback"], Cell::Int(feedback.len() as i64));
    assert_eq!(row["thumbs_up"], count(|signal| matches!(signal, FeedbackSignal::Thumbs { up: true })));
    assert_eq!(row["thumbs_down"], count(|signal| matches!(signal, FeedbackSignal::Thumbs { up: false })));
    assert_eq!(row["comments"], count(|signal| matches!(signal, FeedbackSignal::Comment { .. })));
    assert_eq!(row["not_preferred"], count(|signal| matches!(signal, FeedbackSignal::Preference { .. })));
    let verdicts = reader.verdicts(&one.tenant, one.id).unwrap();
    let rewards = reader.rewards(&one.tenant, one.id).unwrap();
    assert_eq!(row["n_verdicts"], Cell::Int(verdicts.len() as i64));
    assert_eq!(row["n_rewards"], Cell::Int(rewards.len() as i64));
    if feedback.is_empty() {
        for name in ["feedback", "feedback_score", "judge", "live_overall", "reward_total", "verdicts", "rewards"] {
            assert_eq!(row[name], Cell::Nothing, "{name}");
        }
        return;
    }
    let Cell::Json(events) = &row["feedback"] else { panic!("{row:?}") };
    let signals: Vec<_> = events.as_array().unwrap().iter().map(|event| event["signal"].clone()).collect();
    let stored: Vec<_> = feedback.iter().map(|event| serde_json::to_value(&event.signal).unwrap()).collect();
    assert_eq!(signals, stored);
    assert_eq!(row["feedback_score"], Cell::Float(0.25));
    // the judge who spoke last, not the one who scored first
    assert_eq!(row["judge"], text("heuristic-1"));
    assert_eq!((&row["live_overall"], &row["shadow_overall"]), (&Cell::Float(4.5), &Cell::Float(3.25)));
    assert_eq!(row["control_overall"], Cell::Nothing);
    // the latest reward, not the first
    assert_eq!((&row["reward_total"], &row["reward_weights"]), (&Cell::Float(0.375), &text("w1")));
    assert_eq!((&row["reward_judge"], &row["reward_retrieval"]), (&Cell::Float(0.5), &Cell::Float(-0.25)));
    assert_eq!((&row["reward_quality"], &row["reward_bonus"]), (&Cell::Float(0.75), &Cell::Float(0.1)));
    assert_eq!(row["shadow_reward_total"], Cell::Float(-0.5));
}

fn all_formats_hold_the_same_table(site: &Site) {
    let (_writer, reader) = store_at(site, &["a", "b"], 60);
    let made = FORMATS.map(|format| {
        let request = ExportRequest {
            rows_per_file: Some(7),
            ..request(site.folder().join(format.ending()), format, &["a", "b"])
        };
        let manifest = export(&reader, &request, go_on).unwrap();
        assert!(manifest.files.iter().all(|file| file.rows <= 7) && manifest.files.len() > 16, "{manifest:?}");
        (format, table(&request.folder, &manifest))
    });
    let (_, first) = &made[1];
    assert_eq!(first.len(), 120);
    for (format, table) in &made {
        for (row, expected) in table.iter().zip(first) {
            for column in COLUMNS {
                let name = column.name;
                assert_eq!(row[name], expected[name], "{format:?} {name} of {:?}", expected["episode_id"]);
            }
        }
    }
}

fn parquet_lies_in_folders_by_tenant_and_date(site: &Site) {
    let (_writer, reader) = store_at(site, &["a", "b"], 20);
    let request = request(site.folder().join("out"), Format::Parquet, &["b", "a"]);
    let manifest = export(&reader, &request, go_on).unwrap();
    for file in &manifest.files {
        let one = Manifest { files: vec![file.clone()], rows: file.rows, ..manifest.clone() };
        for row in table(&request.folder, &one) {
            let Cell::Time(ms) = row["created_at"] else { panic!("{row:?}") };
            let folder = format!("tenant={}/date={}/", file.tenant, &time_text(ms)[..10]);
            assert!(file.path.starts_with(&folder), "{} holds a row of {folder}", file.path);
        }
    }
    assert!(manifest.files.len() >= 6, "three days of two tenants");
}

fn cells_that_a_workbook_cannot_hold_are_cut_and_counted(site: &Site) {
    let connection = site.connection();
    let mut long = nth("a", 0);
    long.conversation.query = "胶".repeat(40_000);
    crate::testing::insert(&connection, &[long, nth("a", 1)]);
    let reader = site.reader();
    let workbook = request(site.folder().join("xlsx"), Format::Xlsx, &["a"]);
    let manifest = export(&reader, &workbook, go_on).unwrap();
    assert_eq!(manifest.cut_cells, 1);
    let rows = table(&workbook.folder, &manifest);
    assert_eq!(rows[0]["query"], text(&"胶".repeat(32_767)));
    let csv = request(site.folder().join("csv"), Format::Csv, &["a"]);
    let manifest = export(&reader, &csv, go_on).unwrap();
    assert_eq!((manifest.cut_cells, &table(&csv.folder, &manifest)[0]["query"]), (0, &text(&"胶".repeat(40_000))));
}

fn filters_hold_together(site: &Site) {
    let (_writer, reader) = store_at(site, &["a"], 60);
    let tenant = "a".parse().unwrap();
    let count = |filter: ExportFilter, wanted: &dyn Fn(u64) -> bool| {
        let page = page(&reader, &tenant, &filter, None, 1000).unwrap();
        let expected = (0..60).filter(|number| wanted(*number)).count();
        assert_eq!(page.rows, expected, "{filter:?}");
        assert!(expected > 0 && expected < 60, "{filter:?} leaves nothing or all");
    };
    let all = ExportFilter::default;
    let at = |number: u64| Some(nth("a", number).created_ms);
    count(ExportFilter { from_ms: at(10), to_ms: at(20), ..all() }, &|n| (10..20).contains(&n));
    count(ExportFilter { degraded: Some(true), ..all() }, &|n| n % 7 == 3);
    count(ExportFilter { degraded: Some(false), from_ms: at(30), ..all() }, &|n| n % 7 != 3 && n >= 30);
    count(ExportFilter { arm: Some("control".to_owned()), ..all() }, &|n| n % 3 != 0);
    count(ExportFilter { experiment: Some("x".to_owned()), to_ms: at(5), ..all() }, &|n| n % 3 != 0 && n < 5);
    count(ExportFilter { feedback: Some(FeedbackWanted::Any), ..all() }, &|n| n % 3 == 2);
    count(ExportFilter { feedback: Some(FeedbackWanted::None), ..all() }, &|n| n % 3 != 2);
    count(ExportFilter { feedback: Some(FeedbackWanted::Up), ..all() }, &|n| n % 3 == 2 && n.is_multiple_of(2));
    count(ExportFilter { feedback: Some(FeedbackWanted::Down), ..all() }, &|n| n % 3 == 2 && n % 2 == 1);
    let tag = |text: &str| Some(text.parse().unwrap());
    count(ExportFilter { tag: tag("渠道"), ..all() }, &|n| n.is_multiple_of(2));
    count(ExportFilter { tag: tag("n=3"), degraded: Some(false), ..all() }, &|n| n % 10 == 8 && n % 7 != 3);
    let quoted = ExportFilter { tag: tag("渠道=' OR 1=1 --"), ..all() };
    assert_eq!(page(&reader, &tenant, &quoted, None, 10).unwrap().rows, 0);
    assert!("=x".parse::<TagWanted>().is_err() && "".parse::<TagWanted>().is_err());
    let other = ExportFilter { policy: Some("remote".parse().unwrap()), ..all() };
    assert_eq!(page(&reader, &tenant, &other, None, 10).unwrap().rows, 0);
    let backwards = ExportFilter { from_ms: at(2), to_ms: at(1), ..all() };
    let request = ExportRequest { filter: backwards, ..request(site.folder().join("out"), Format::Csv, &["a"]) };
    assert!(export(&reader, &request, go_on).unwrap_err().to_string().starts_with("from ("));
}
