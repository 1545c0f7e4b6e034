//! What a report decides and shows, over made-up pairs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod common;

use common::{input, pairs};
use recast_experiments::report::{
    Credited, Looks, Metric, Report, ReportInput, Single, Units, Verdict, compute, html, text,
};
use recast_experiments::{Arm, Credit, Definition, Kind};

fn verdict(input: &ReportInput) -> Verdict {
    compute(input).decision.verdict
}

#[test]
fn a_better_treatment_is_found_and_a_worse_one_is_told() {
    let report = compute(&input(400, 0.12));
    assert_eq!(report.decision.verdict, Verdict::TreatmentBetter, "{:?}", report.decision);
    let quality = report.metric(Metric::Quality).unwrap();
    assert!(quality.difference.interval.lower > 0.0 && quality.sequential.unwrap().interval.lower > 0.0);
    assert!(quality.beyond_noise.unwrap() > 0.0 && quality.beyond_noise.unwrap() < quality.difference.mean);
    assert_eq!(verdict(&input(400, -0.12)), Verdict::ControlBetter);
}

#[test]
fn an_arm_against_itself_is_seldom_better() {
    let mut found = 0;
    for seed in 0..20 {
        let mut input = input(200, 0.0);
        input.pairs = pairs(200, 0.0, 100 + seed);
        input.controls.clear();
        found += usize::from(verdict(&input) != Verdict::KeepRunning);
    }
    // At alpha = 0.05, four of twenty happen once in sixty runs; seeds are fixed.
    assert!(found <= 3, "{found} of 20");
}

#[test]
fn every_metric_keeps_its_sides() {
    let report = compute(&input(120, 0.1));
    assert_eq!(report.metrics.len(), Metric::ALL.len());
    for one in &report.metrics {
        let difference = one.treatment_mean - one.control_mean;
        assert!((difference - one.difference.mean).abs() < 1e-9, "{one:?}");
        assert!(one.difference.interval.lower <= difference && difference <= one.difference.interval.upper);
    }
    let latency = report.metric(Metric::RewriteMs).unwrap();
    let outcomes = latency.outcomes.unwrap().counts;
    assert!(latency.difference.mean > 0.0 && outcomes.losses > outcomes.wins, "slower is worse: {latency:?}");
    // Three of four pairs were judged, the others are decided by their labels.
    let wins = report.wins.unwrap();
    let basis: Vec<_> = wins.basis.iter().map(|one| (one.metric, one.pairs)).collect();
    assert_eq!(basis, [(Metric::Judge, 90), (Metric::LabelNdcgAt10, 30)]);
}

#[test]
fn the_same_pairs_in_any_order_give_the_same_report() {
    let one = input(150, 0.1);
    let mut turned = one.clone();
    turned.pairs.reverse();
    turned.controls.reverse();
    let (first, second) = (compute(&one), compute(&turned));
    assert_eq!(serde_json::to_string(&first).unwrap(), serde_json::to_string(&second).unwrap());
    assert_eq!(html(&first), html(&second));
}

#[test]
fn a_report_survives_json() {
    let report = compute(&input(120, 0.1));
    let read: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(read.metrics.len(), report.metrics.len());
    assert_eq!(html(&read), html(&report));
}

#[test]
fn requests_that_are_not_accounted_for_invalidate_it() {
    let mut input = input(300, 0.12);
    input.accounting.sampled += 1;
    let report = compute(&input);
    assert_eq!((report.decision.verdict, report.adds_up), (Verdict::Invalid, false));
    assert!(text(&report).contains("DOES NOT ADD UP"));
}

#[test]
fn a_sample_ratio_mismatch_invalidates_it() {
    let mut input = input(300, 0.12);
    input.control_accounting.sampled += 400;
    input.control_accounting.timed_out += 400;
    let report = compute(&input);
    assert_eq!(report.decision.verdict, Verdict::Invalid);
    assert!(report.decision.reason.contains("sample ratio mismatch"), "{:?}", report.decision);
}

#[test]
fn a_broken_guardrail_and_the_kill_switch_stop_it() {
    let mut input = input(300, 0.12);
    input.definition.guardrails.p99_rewrite_ms = Some(200.0);
    assert_eq!(verdict(&input), Verdict::StoppedByGuardrail);
    input.definition.killed = true;
    assert_eq!(verdict(&input), Verdict::StoppedByKillSwitch);
}

#[test]
fn an_experiment_without_data_says_so() {
    let mut input = input(0, 0.0);
    let report = compute(&input);
    assert_eq!(report.decision.verdict, Verdict::KeepRunning);
    assert!(report.metrics.is_empty() && report.track.is_empty());
    assert!(html(&report).contains("keep running") && text(&report).contains("KEEP RUNNING"));
    input.ended = true;
    assert_eq!(verdict(&input), Verdict::NoDifference);
}

#[test]
fn a_fixed_set_of_questions_is_looked_at_once() {
    let mut input = input(60, 0.15);
    (input.looks, input.ended) = (Looks::Once, true);
    input.controls.clear();
    let report = compute(&input);
    assert_eq!(report.decision.verdict, Verdict::TreatmentBetter, "{:?}", report.decision);
    let quality = report.metric(Metric::Quality).unwrap();
    assert!(report.decision.reason.contains(&format!("{:+.4}", quality.difference.interval.lower)));
}

#[test]
fn values_that_are_missing_or_no_numbers_are_left_out() {
    let mut input = input(120, 0.1);
    input.pairs[3].live.scores = vec![f64::NAN];
    input.pairs[4].other.scores.clear();
    input.pairs[4].other.degraded = true;
    input.pairs[5].live.labels = None;
    let report = compute(&input);
    assert_eq!(report.metric(Metric::Quality).unwrap().n, 118);
    assert_eq!(report.metric(Metric::LabelTop1).unwrap().n, 119);
    assert!(report.notes.iter().any(|note| note.starts_with("2 pairs have no value of quality")), "{:?}", report.notes);
}

#[test]
fn slices_and_examples_hold_what_they_say() {
    let report = compute(&input(300, 0.05));
    for by in ["tenant", "query_type"] {
        let n: u64 = report.slices.iter().filter(|slice| slice.by == by).map(|slice| slice.n).sum();
        assert_eq!(n, 300, "{by}");
    }
    let gains: Vec<f64> = report.largest_wins.iter().map(|one| one.treatment_value - one.control_value).collect();
    assert!(gains.len() == 5 && gains.windows(2).all(|pair| pair[0] >= pair[1]) && gains[4] > 0.0, "{gains:?}");
    assert!(report.largest_losses.iter().all(|one| one.treatment_value < one.control_value));
    let last = report.track.last().unwrap();
    assert_eq!(last.n, 300);
    assert!((last.mean - report.metric(Metric::Quality).unwrap().difference.mean).abs() < 1e-9);
    assert!(report.track.len() <= 160);
}

#[test]
fn the_page_escapes_what_people_wrote_and_loads_nothing() {
    let mut input = input(60, 0.1);
    for pair in &mut input.pairs {
        pair.query = "<script>alert('query')</script>".to_owned();
        pair.live.rewrite = "\"><img src=x onerror=alert(1)>".to_owned();
        pair.other.hits[0].text = "</style><b>bold</b>".to_owned();
        pair.tenant = "<i>tenant".to_owned();
        pair.query_type = Some("a&b".to_owned());
    }
    input.definition.arms[1].name = "<u>teacher".to_owned();
    input.definition.id = "<svg onload=alert(2)>".to_owned();
    let page = html(&compute(&input));
    for raw in ["<script", "<img", "</style><b>", "<i>tenant", "<u>teacher", "<svg onload", "a&b"] {
        assert!(!page.contains(raw), "{raw}");
    }
    assert!(page.contains("&lt;script&gt;alert(&#39;query&#39;)"));
    for outside in ["http://", "https://", "url(", "@import", "<link", "src="] {
        let escaped_only = page.replace("&gt;&lt;img src=x", "");
        assert!(!escaped_only.contains(outside), "{outside}");
    }
}

#[test]
fn the_page_is_well_formed() {
    let page = html(&compute(&input(200, 0.05)));
    for tag in ["section", "table", "tbody", "tr", "td", "svg", "div", "ol", "li", "figure", "span", "p", "h2"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        assert!(opened > 0, "{tag}");
    }
    assert!(!page.contains("NaN") && !page.contains(">inf") && page.contains("胶原蛋白"));
}

/// A split in which each user asks three times, and users differ more than their questions do.
fn split(users: usize, gain: f64) -> ReportInput {
    let mut definition = Definition::between("split", Kind::Split, "local", "remote");
    definition.arms = ["local", "remote"]
        .map(|name| Arm { name: name.to_owned(), weight: 1.0, rewriter: "configured".to_owned() })
        .to_vec();
    let mut input = ReportInput::new(definition, 1);
    for (index, pair) in pairs(users * 2, gain, 5).into_iter().enumerate() {
        let (arm, facts) = if index % 2 == 0 { ("local", &pair.live) } else { ("remote", &pair.other) };
        for _ in 0..3 {
            input.singles.push(Single {
                episode: format!("e-{index}"),
                tenant: pair.tenant.clone(),
                arm: arm.to_owned(),
                unit: format!("user-{index}"),
                query: pair.query.clone(),
                facts: facts.clone(),
                judge: None,
                at_ms: pair.at_ms,
            });
        }
    }
    let n = u64::try_from(users).unwrap();
    input.units = ["local", "remote"].map(|arm| Units { arm: arm.to_owned(), units: n, requests: 3 * n }).to_vec();
    input
}

#[test]
fn a_split_compares_units_rather_than_requests() {
    let report = compute(&split(400, 0.25));
    assert_eq!(report.decision.verdict, Verdict::TreatmentBetter, "{:?}", report.decision);
    assert_eq!(report.metric(Metric::Quality).unwrap().n, 400);
    assert_eq!(verdict(&split(400, 0.0)), Verdict::KeepRunning);
    let mut lopsided = split(400, 0.25);
    lopsided.units[1].units = 250;
    assert_eq!(verdict(&lopsided), Verdict::Invalid);
}

fn interleaved(queries: u64, to_treatment: u64) -> ReportInput {
    let mut input = ReportInput::new(Definition::between("merged", Kind::Interleave, "local", "remote"), 1);
    input.credits = (0..queries)
        .map(|query| {
            let treatment = query * 10 % 100 < to_treatment;
            let credit = Credit {
                first: u64::from(!treatment),
                second: u64::from(treatment),
                shared: 0,
                slots: 5,
                competitive: 4,
            };
            Credited { episode: format!("e{query:04}"), credit, at_ms: 0 }
        })
        .collect();
    input
}

#[test]
fn an_interleaved_experiment_is_decided_by_clicks() {
    let report = compute(&interleaved(200, 80));
    assert_eq!(report.decision.verdict, Verdict::TreatmentBetter, "{:?}", report.decision);
    assert!(html(&report).contains("Clicks on merged rankings"));
    assert_eq!(verdict(&interleaved(200, 50)), Verdict::KeepRunning);
    assert_eq!(verdict(&interleaved(200, 20)), Verdict::ControlBetter);
    let mut alike = interleaved(200, 80);
    alike.credits.iter_mut().for_each(|one| one.credit.competitive = 1);
    assert!(compute(&alike).notes.iter().any(|note| note.contains("pause")));
}
