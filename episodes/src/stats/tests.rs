use recast_domain::{Episode, Timings};

use super::*;
use crate::test_site::{Site, on_both};
use crate::testing::{degraded, episode, everything, insert, verdict};
use crate::write::{Write, commit};
use crate::{Side, VerdictRecord};

on_both!(what_is_counted_is_what_is_there);

const DAY_MS: i64 = 86_400_000;

fn what_is_counted_is_what_is_there(site: &Site) {
    let connection = site.connection();
    let timed = |one: Episode, ms: u64| Episode {
        timings: Timings { total_us: ms * 1000, rewrite_us: 7000, ..Timings::default() },
        ..one
    };
    let mut all: Vec<Episode> = (1..=100).map(|ms| timed(episode("a", 5), ms)).collect();
    all.push(timed(degraded("a", DAY_MS + 5), 100));
    let mut empty = timed(episode("a", DAY_MS + 5), 100);
    empty.hits.clear();
    empty.conversation.query = "<b>查无".to_owned();
    all.push(empty);
    insert(&connection, &all);
    insert(&connection, &[episode("b", 5)]);
    let mut judged = timed(episode("a", DAY_MS), 100);
    let writes = everything(&mut judged);
    let score = |key, side, overall: f64| VerdictRecord {
        side,
        ..verdict(&judged, key, Some(serde_json::json!({"overall": overall})))
    };
    let verdicts = Write::Verdicts(vec![score(7, Side::Live, 2.0), score(8, Side::Shadow, 4.0)]);
    commit(&connection, writes.iter(), false).unwrap();
    commit(&connection, [verdicts].iter(), false).unwrap();

    let reader = site.reader();
    let stats = gather(&reader, &["a".parse().unwrap()], &ExportFilter::default()).unwrap();
    let expected = Counts { episodes: 103, degraded: 1, empty: 1, thumbs_up: 1, thumbs_down: 0 };
    assert_eq!((stats.total, stats.unreadable), (expected, 0));
    let days: Vec<(&str, u64)> = stats.days.iter().map(|day| (day.date.as_str(), day.counts.episodes)).collect();
    assert_eq!(days, [("1970-01-01", 100), ("1970-01-02", 3)]);
    let total = stats.latency.iter().find(|stage| stage.stage == "total").unwrap();
    assert_eq!(total.episodes, 103);
    assert!((total.p50_ms - 52.0).abs() < 0.1 && (total.p95_ms - 98.0).abs() < 0.1, "{total:?}");
    let rewrite = stats.latency.iter().find(|stage| stage.stage == "rewrite").unwrap();
    assert!((rewrite.p95_ms - 7.0).abs() < 0.01, "{rewrite:?}");
    assert!(stats.latency.iter().all(|stage| stage.stage != "embed"), "a stage that never ran has no times");
    assert_eq!((stats.pairs.completed, stats.pairs.judged, stats.pairs.wins), (1, 1, 1));
    assert_eq!(stats.pairs.win_rate, Some(1.0));
    assert_eq!(stats.failing.len(), 2);
    assert!(stats.failing.iter().any(|one| one.query == "<b>查无" && one.empty == 1));
    let (page, text) = (stats.html(), stats.text());
    assert!(page.contains("&lt;b&gt;查无") && !page.contains("<b>查无"), "texts of people are escaped");
    assert!(page.contains("1970-01-02") && text.contains("103 episodes") && text.contains("查无"), "{text}");
}
