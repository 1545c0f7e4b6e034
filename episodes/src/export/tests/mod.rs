//! Tests of the exports.

mod dictionary;
mod formats;
mod killed;
mod moments;
mod readers;
mod tenants;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use recast_config::Durability;
use recast_domain::{
    Episode, EpisodeId, Feedback, FeedbackSignal, Preferred, Role, ShadowKind, ShadowRun, Timings, Turn,
};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::db::Connection;
use crate::reader::EpisodeReader;
use crate::record::encode;
use crate::scores::Side;
use crate::test_site::{Site, on_both};
use crate::testing::{completed, ended, episode, failed, feedback, reward, sampled, verdict};
use crate::write::{Write, commit};
use crate::{feedback as events, ledger};

/// Texts that break careless writers.
const HOSTILE: [&str; 12] = [
    "=cmd|' /C calc'!A0",
    "+8613800138000",
    "-1+1",
    "@SUM(A1:A9)",
    "\t=1",
    "第一行\n第二行\r\n第三行",
    "他说\"好\",然后;走了",
    "😀👨‍👩‍👧 emoji 與 ＝全形",
    "\u{7}_x0041_\u{1f}",
    "",
    "'already quoted'",
    "null",
];

/// The number-th episode of `tenant`: ids and times in order, three hours apart, with hostile texts in turn.
fn nth(tenant: &str, number: u64) -> Episode {
    let created_ms = 1_795_000_000_000 + number as i64 * 10_800_000;
    let text = HOSTILE[number as usize % HOSTILE.len()];
    let mut one = episode(tenant, created_ms);
    one.id = id(number);
    one.conversation.query = format!("{text}孕妇能喝吗{number}");
    one.conversation.history = vec![Turn { role: Role::User, content: text.to_owned() }; (number % 3) as usize];
    one.rewrite.text = text.to_owned();
    if number.is_multiple_of(2) {
        one.request.tags = [("渠道".to_owned(), text.to_owned()), ("n".to_owned(), (number % 5).to_string())].into();
    }
    one.request.user_id = (number.is_multiple_of(2)).then(|| text.to_owned());
    one.timings = Timings { rewrite_us: number, embed_us: 2, search_us: 3, rerank_us: 4, total_us: 1000 + number };
    if number % 5 == 4 {
        one.hits.clear();
    }
    if number % 7 == 3 {
        one.degraded = vec![recast_domain::Degradation::RerankTimeout];
    }
    one
}

fn id(number: u64) -> EpisodeId {
    EpisodeId(Uuid::from_u128((u128::from(1_795_000_000_000 + number) << 80) | 0x7000_8000_0000_0000_0000))
}

/// The number-th episode with what hangs on it, in turn: nothing, a paired run, and all of it.
fn writes(tenant: &str, number: u64) -> Vec<Write> {
    let mut one = nth(tenant, number);
    let (like, run) = sampled(tenant, one.created_ms);
    let run = ShadowRun { episode: one.id, ..run };
    if number.is_multiple_of(3) {
        return vec![Write::Episode(encode(&one).unwrap())];
    }
    one.experiment = like.experiment;
    let outcome = if number % 4 == 1 { failed("rewriter_failed") } else { completed() };
    let run_row = Box::new(ledger::encode(&ended(&run, outcome)).unwrap());
    let mut all = vec![Write::Sampled(encode(&one).unwrap(), run_row)];
    if number % 3 == 2 {
        let control = ShadowRun { kind: ShadowKind::Control, ..run };
        all.push(Write::EndShadow(Box::new(ledger::encode(&ended(&control, completed())).unwrap())));
        let signals = [
            FeedbackSignal::Thumbs { up: number.is_multiple_of(2) },
            FeedbackSignal::Score { value: 0.25 },
            FeedbackSignal::Comment { text: "很好, \"谢谢\"\n=1".to_owned() },
            FeedbackSignal::Click { passage: "p1".to_owned() },
            FeedbackSignal::Preference { preferred: Preferred::Other, other: None },
        ];
        for (index, signal) in signals.into_iter().enumerate() {
            let event = Feedback { signal, ..feedback(&one, one.created_ms + index as i64) };
            all.push(Write::Feedback(Box::new(events::encode(&event).unwrap())));
        }
        let score = |key, side: Side, overall: f64| crate::VerdictRecord {
            side,
            key: [key; 32],
            ..verdict(&one, key, Some(json!({"state": "scored", "overall": overall, "orders": [], "reason": ""})))
        };
        let mut early = score(1, Side::Live, 1.5);
        (early.judge, early.created_ms) = ("an-older-judge".to_owned(), 1);
        all.push(Write::Verdicts(vec![
            early,
            score(2, Side::Live, 4.5),
            score(3, Side::Shadow, 3.25),
            verdict(&one, 4, None),
        ]));
        let mut parts = reward(&one, "w1", 0.5);
        parts.parts = json!({"reward": {"state": "scored", "version": 1, "judge": 0.5, "retrieval": -0.25, "bonus": 0.1,
            "quality_student": 0.75, "quality_baseline": 0.5, "total": 0.375}, "facts": {"text": "x".repeat(50)}});
        let shadow = crate::RewardRecord { side: Side::Shadow, ..reward(&one, "w1", -0.5) };
        all.push(Write::Rewards(vec![crate::RewardRecord { created_ms: 1, ..reward(&one, "w0", 9.0) }, parts, shadow]));
    }
    all
}

/// A store with `count` episodes of each tenant. The same numbers have the same ids in both.
fn store(folder: &Path, tenants: &[&str], count: u64) -> (Connection, EpisodeReader) {
    let path = folder.join("episodes.db");
    let connection = crate::schema::open_file(&path, Durability::Group).unwrap().into();
    fill(&connection, tenants, count);
    (connection, EpisodeReader::open(&path).unwrap())
}

/// The same at a site.
fn store_at(site: &Site, tenants: &[&str], count: u64) -> (Connection, EpisodeReader) {
    let connection = site.connection();
    fill(&connection, tenants, count);
    (connection, site.reader())
}

fn fill(connection: &Connection, tenants: &[&str], count: u64) {
    for tenant in tenants {
        let all: Vec<Write> = (0..count).flat_map(|number| writes(tenant, number)).collect();
        let applied = commit(connection, all.iter(), false).unwrap();
        assert!(applied.iter().all(Result::is_ok), "{applied:?}");
    }
}

fn request(folder: PathBuf, format: Format, tenants: &[&str]) -> ExportRequest {
    ExportRequest {
        tenants: tenants.iter().map(|tenant| tenant.parse().unwrap()).collect(),
        filter: ExportFilter::default(),
        format,
        rows_per_file: None,
        folder,
        resume: false,
    }
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

const FORMATS: [Format; 4] = [Format::Parquet, Format::Jsonl, Format::Csv, Format::Xlsx];
