use std::collections::BTreeMap;

use recast_domain::ErrorKind;

use super::{Gate, GateRules, Observation, OfflineReport, Pair, Pairing, SanityReport, Stage, Verdict};
use crate::testing::{TestStore, acme, policy};
use crate::{Event, Finding};

const MINUTE: i64 = 60_000;

pub fn gate(rules: &GateRules, attempt: u32) -> Gate {
    Gate::new(acme(), policy("candidate"), attempt, rules, 0).unwrap()
}

pub fn sane() -> Observation {
    Observation::Sanity(SanityReport {
        refused: None,
        prompts: 20,
        empty: Some(0),
        distinct: Some(18),
        invalid_format_rate: Some(0.0),
        kl: Some(0.1),
    })
}

/// Pairs of sessions of their own.
pub fn pairs(label: &str, differences: &[f64]) -> Vec<Pair> {
    let pair = |(index, difference): (usize, &f64)| Pair {
        session: format!("{label}-{index}"),
        difference: Some(*difference),
    };
    differences.iter().enumerate().map(pair).collect()
}

pub fn live(label: &str, differences: &[f64]) -> Observation {
    Observation::Pairs { pairing: Pairing::SameQuestion, pairs: pairs(label, differences) }
}

/// A gain of 0.1 with some spread and many ties.
fn gains(n: usize) -> Vec<f64> {
    (0..n).map(|index| [0.0, 0.4, 0.0, -0.1, 0.2][index % 5]).collect()
}

pub fn offline_report(rules: &GateRules, differences: &[f64]) -> OfflineReport {
    let primary = pairs("held-out", differences);
    let unchanged = pairs("held-out", &vec![0.0; differences.len()]);
    let guardrails = rules.offline.guardrails.keys().map(|name| (name.clone(), unchanged.clone())).collect();
    OfflineReport { primary, guardrails }
}

fn figures(rules: &GateRules) -> BTreeMap<String, Option<f64>> {
    rules.checks.limits.iter().map(|(name, bound)| (name.clone(), Some(bound / 2.0))).collect()
}

fn good_check(rules: &GateRules) -> Observation {
    Observation::Check { figures: figures(rules) }
}

/// A gate whose candidate passed everything up to a stage, at time 0.
pub fn gate_at(rules: &GateRules, stage: Stage) -> Gate {
    let mut gate = gate(rules, 1);
    let report = offline_report(rules, &gains(400));
    for observation in [sane(), Observation::Offline(report), live("shadow", &gains(400))] {
        if gate.stage() == stage {
            return gate;
        }
        let record = gate.observe(rules, &observation, 0).unwrap();
        assert_eq!(record.verdict, Verdict::Advance, "{record:?}");
    }
    let mut now = 0;
    while gate.stage() != stage {
        let before = gate.stage();
        let label = format!("{before:?}");
        gate.observe(rules, &live(&label, &gains(300)), now).unwrap();
        while gate.stage() == before {
            now += MINUTE;
            gate.observe(rules, &good_check(rules), now).unwrap();
        }
    }
    gate.entered_ms = 0;
    gate.checks = super::Checks::new(0);
    gate
}

fn finding<'a>(evidence: &'a [Finding], measure: &str) -> &'a Finding {
    evidence.iter().find(|finding| finding.measure == measure).unwrap()
}

#[test]
fn a_better_candidate_goes_all_the_way() {
    let rules = GateRules::default();
    let mut gate = gate(&rules, 1);
    assert_eq!(gate.observe(&rules, &sane(), 0).unwrap().after, Stage::Offline);
    let record = gate.observe(&rules, &Observation::Offline(offline_report(&rules, &gains(400))), 1).unwrap();
    assert_eq!(record.after, Stage::Shadow);
    let gain = finding(&record.evidence, "gain");
    assert!(gain.value.unwrap() > 0.0 && (gain.mean.unwrap() - 0.1).abs() < 1e-12, "{gain:?}");
    assert_eq!((gain.n, gain.alpha), (Some(400), Some(rules.alpha_of(1))));
    let record = gate.observe(&rules, &live("shadow", &gains(400)), 2).unwrap();
    assert_eq!(record.after, Stage::Canary { step: 0 });
    assert!(finding(&record.evidence, "gain").anytime_p.unwrap() < rules.alpha_of(1));

    let (mut now, mut shares) = (2, Vec::new());
    while let Some(canary) = gate.canary() {
        assert_eq!(canary.policy, policy("candidate"));
        shares.push(canary.share);
        let entered = now;
        gate.observe(&rules, &live(&format!("at-{}", canary.share), &gains(250)), now).unwrap();
        while gate.canary().as_ref() == Some(&canary) {
            now += MINUTE;
            gate.observe(&rules, &good_check(&rules), now).unwrap();
        }
        assert_eq!(now - entered, 10 * MINUTE, "each share is held for ten minutes");
    }
    assert_eq!((shares, gate.stage()), (vec![0.05, 0.25, 0.5, 1.0], Stage::Watched));

    let entered = now;
    gate.observe(&rules, &live("watched", &gains(250)), now).unwrap();
    while gate.stage() == Stage::Watched {
        now += MINUTE;
        assert_eq!(gate.observe(&rules, &good_check(&rules), now).unwrap().share, 1.0);
    }
    assert_eq!((gate.stage(), now - entered), (Stage::Accepted, rules.watch_ms));
    assert_eq!(gate.observe(&rules, &Observation::Tick, now).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn missing_figures_fail_the_sanity_checks() {
    let rules = GateRules::default();
    let Observation::Sanity(sound) = sane() else { panic!("a sanity report") };
    type Change = fn(&mut SanityReport);
    let changes: [(&str, Change); 8] = [
        ("does not load: shapes differ", |report| report.refused = Some("shapes differ".to_owned())),
        ("prompts", |report| report.prompts = 19),
        ("empty_outputs is 1.0000", |report| report.empty = Some(1)),
        ("empty_outputs is missing", |report| report.empty = None),
        ("distinct_outputs is 1.0000", |report| report.distinct = Some(1)),
        ("invalid_format_rate is missing", |report| report.invalid_format_rate = None),
        ("kl is missing", |report| report.kl = Some(f64::NAN)),
        ("kl is 0.6000, above 0.5000", |report| report.kl = Some(0.6)),
    ];
    for (expected, change) in changes {
        let mut report = sound.clone();
        change(&mut report);
        let record = gate(&rules, 1).observe(&rules, &Observation::Sanity(report), 0).unwrap();
        assert_eq!((record.verdict, record.after), (Verdict::Reject, Stage::Rejected));
        assert!(record.reason.contains(expected), "{expected}: {}", record.reason);
    }
}

fn offline_record(change: impl FnOnce(&mut OfflineReport)) -> super::GateRecord {
    let rules = GateRules::default();
    let mut report = offline_report(&rules, &gains(400));
    change(&mut report);
    gate_at(&rules, Stage::Offline).observe(&rules, &Observation::Offline(report), 0).unwrap()
}

#[test]
fn held_out_questions_are_looked_at_once_and_only_if_there_are_enough() {
    let record = offline_record(|report| report.primary.truncate(299));
    assert_eq!((record.verdict, record.after, record.evidence.len()), (Verdict::Hold, Stage::Offline, 0));
    // 400 questions, but of 50 sessions
    let record = offline_record(|report| {
        report.primary.iter_mut().enumerate().for_each(|(index, pair)| pair.session = format!("{}", index % 50));
    });
    assert!(record.verdict == Verdict::Hold && record.reason.contains("100 sessions"), "{}", record.reason);
}

#[test]
fn guardrails_that_fell_or_are_missing_reject() {
    let record = offline_record(|report| drop(report.guardrails.remove("recall@3")));
    assert_eq!((record.verdict, record.reason.as_str()), (Verdict::Reject, "recall@3 is missing"));
    let record = offline_record(|report| {
        report.guardrails.get_mut("ndcg@10").unwrap().iter_mut().for_each(|pair| pair.difference = Some(-0.03));
    });
    assert_eq!(record.verdict, Verdict::Reject);
    assert!(record.reason.contains("ndcg@10 is -0.0300, below -0.0200"), "{}", record.reason);
}

#[test]
fn what_the_candidate_left_unanswered_counts_as_the_worst() {
    // without a score wherever the incumbent is good: the mean of the rest is a gain
    let record = offline_record(|report| report.primary.iter_mut().step_by(5).for_each(|pair| pair.difference = None));
    assert_eq!(record.verdict, Verdict::Reject, "{}", record.reason);
    for odd in [f64::NAN, 1.5, -7.0] {
        assert_eq!(Pair { session: String::new(), difference: Some(odd) }.value(), -1.0);
    }
}

#[test]
fn a_long_session_counts_once() {
    let rules = GateRules::default();
    let mut gate = gate_at(&rules, Stage::Shadow);
    let same = |n: usize| vec![Pair { session: "one".to_owned(), difference: Some(1.0) }; n];
    let observation = Observation::Pairs { pairing: Pairing::SameQuestion, pairs: same(5_000) };
    let record = gate.observe(&rules, &observation, 0).unwrap();
    assert_eq!((record.verdict, finding(&record.evidence, "gain").n), (Verdict::Hold, Some(1)));
}

#[test]
fn the_shadow_ends_without_a_gain() {
    let rules = GateRules::default();
    let mut gate = gate_at(&rules, Stage::Shadow);
    let record = gate.observe(&rules, &live("ties", &[0.0; 5_000]), 0).unwrap();
    assert_eq!((record.verdict, record.after, record.share), (Verdict::Reject, Stage::Rejected, 0.0));
    let mut gate = gate_at(&rules, Stage::Shadow);
    assert_eq!(gate.observe(&rules, &Observation::Tick, rules.shadow.max_ms - 1).unwrap().verdict, Verdict::Hold);
    assert_eq!(gate.observe(&rules, &Observation::Tick, rules.shadow.max_ms).unwrap().verdict, Verdict::Reject);
}

#[test]
fn five_failed_checks_of_ten_roll_back() {
    let rules = GateRules::default();
    for bad in [Some(0.011), None, Some(f64::NAN)] {
        let mut gate = gate_at(&rules, Stage::Canary { step: 1 });
        let mut failing = figures(&rules);
        failing.insert("error_rate".to_owned(), bad);
        // every second check fails: the fifth failure is the ninth check
        for minute in 1..=9 {
            let found = if minute % 2 == 1 { failing.clone() } else { figures(&rules) };
            let record = gate.observe(&rules, &Observation::Check { figures: found }, minute * MINUTE).unwrap();
            let expected = if minute == 9 { Verdict::RollBack } else { Verdict::Hold };
            assert_eq!(record.verdict, expected, "{bad:?} after {minute} minutes: {}", record.reason);
            if minute == 9 {
                assert_eq!((record.after, record.share, gate.canary()), (Stage::RolledBack, 0.0, None));
                assert!(
                    record.reason.starts_with("5 of the last 10 checks failed; error_rate is "),
                    "{}",
                    record.reason
                );
            }
        }
    }
}

#[test]
fn a_figure_that_nobody_sends_fails() {
    let rules = GateRules::default();
    let mut gate = gate_at(&rules, Stage::Watched);
    let record = gate.observe(&rules, &Observation::Check { figures: BTreeMap::new() }, MINUTE).unwrap();
    assert!(rules.checks.limits.keys().all(|name| finding(&record.evidence, name).value.is_none()));
    assert_eq!(finding(&record.evidence, "failed_checks").value, Some(1.0));
}

#[test]
fn silence_is_a_failure() {
    let rules = GateRules::default();
    let mut gate = gate_at(&rules, Stage::Canary { step: 0 });
    assert_eq!(gate.observe(&rules, &Observation::Tick, 5 * MINUTE).unwrap().verdict, Verdict::Hold);
    let record = gate.observe(&rules, &Observation::Tick, 6 * MINUTE).unwrap();
    assert_eq!(record.verdict, Verdict::RollBack, "{}", record.reason);
    assert!(record.reason.contains("no figures came"), "{}", record.reason);
    // a clock that jumps by centuries is no reason to count for as long
    let mut gate = gate_at(&rules, Stage::Canary { step: 0 });
    assert_eq!(gate.observe(&rules, &Observation::Tick, i64::MAX).unwrap().verdict, Verdict::RollBack);
}

#[test]
fn a_fault_ends_the_candidate_at_once() {
    let rules = GateRules::default();
    let fault = Observation::Fault { what: "a logit was not finite".to_owned() };
    let stages = [Stage::Sanity, Stage::Offline, Stage::Shadow, Stage::Canary { step: 0 }, Stage::Watched];
    for stage in stages {
        let record = gate_at(&rules, stage).observe(&rules, &fault, 0).unwrap();
        let expected = if stage.serves() { Stage::RolledBack } else { Stage::Rejected };
        assert_eq!(record.after, expected, "at {stage:?}");
        assert!(record.reason.contains("a logit was not finite"));
    }
}

#[test]
fn a_share_needs_questions_time_and_a_good_check() {
    let rules = GateRules::default();
    let start = gate_at(&rules, Stage::Canary { step: 0 });
    let hold = |gate: &mut Gate, observation: Observation, now| {
        let record = gate.observe(&rules, &observation, now).unwrap();
        (record.verdict, record.reason)
    };
    let mut gate = start.clone();
    gate.observe(&rules, &live("few", &gains(199)), 0).unwrap();
    (1..=20).for_each(|minute| drop(hold(&mut gate, good_check(&rules), minute * MINUTE)));
    let (verdict, reason) = hold(&mut gate, Observation::Tick, 20 * MINUTE);
    assert_eq!((verdict, reason.as_str()), (Verdict::Hold, "at 5 %, needs more questions"));
    assert_eq!(hold(&mut gate, live("last", &[0.0]), 20 * MINUTE).0, Verdict::Advance);

    // pairs of different questions say less: 199 of the same question and 5 of others make 200
    let mut gate = start.clone();
    gate.observe(&rules, &live("few", &gains(199)), 0).unwrap();
    (1..=10).for_each(|minute| drop(hold(&mut gate, good_check(&rules), minute * MINUTE)));
    let unpaired = |n| Observation::Pairs { pairing: Pairing::SameTime, pairs: pairs("other", &vec![0.0; n]) };
    assert_eq!(hold(&mut gate, unpaired(4), 10 * MINUTE).0, Verdict::Hold);
    assert_eq!(hold(&mut gate, unpaired(5), 10 * MINUTE).0, Verdict::Advance);

    let mut gate = start.clone();
    gate.observe(&rules, &live("bad", &[-0.03; 250]), 0).unwrap();
    (1..=9).for_each(|minute| drop(hold(&mut gate, good_check(&rules), minute * MINUTE)));
    let (verdict, reason) = hold(&mut gate, good_check(&rules), 10 * MINUTE);
    assert_eq!((verdict, reason.as_str()), (Verdict::Hold, "at 5 %, needs a mean within the margin"));

    let mut gate = start;
    for day_minute in 1..=rules.canary.max_ms / MINUTE {
        let verdict = hold(&mut gate, good_check(&rules), day_minute * MINUTE).0;
        let over = day_minute * MINUTE >= rules.canary.max_ms;
        assert_eq!(verdict, if over { Verdict::RollBack } else { Verdict::Hold });
    }
}

#[test]
fn observations_of_another_stage_change_nothing() {
    let rules = GateRules::default();
    let mut gate = gate_at(&rules, Stage::Shadow);
    let before = gate.clone();
    for observation in [sane(), Observation::Offline(OfflineReport::default()), good_check(&rules)] {
        let error = gate.observe(&rules, &observation, 0).unwrap_err();
        assert!(error.to_string().contains("at shadow and cannot use"), "{error}");
        assert_eq!(gate, before);
    }
}

#[test]
fn a_gate_goes_on_where_it_was_after_a_restart() {
    let rules = GateRules::default();
    let test = TestStore::with(&["candidate"]);
    let mut gate = gate_at(&rules, Stage::Shadow);
    let record = gate.observe(&rules, &live("shadow", &gains(150)), 7).unwrap();
    test.store.keep_gate(&acme(), &gate, &record, 7).unwrap();
    let mut restored = test.store.gate(&acme()).unwrap().unwrap();
    assert_eq!((restored.stage(), restored.policy()), (Stage::Shadow, &policy("candidate")));
    let decisions = || {
        let records = test.store.journal(&acme()).unwrap();
        records.into_iter().filter(|record| matches!(record.event, Event::Gate(_))).collect::<Vec<_>>()
    };
    assert_eq!((record.verdict, decisions().len()), (Verdict::Hold, 0), "a hold is no decision");
    // pairs of known sessions do not count again; numbers in JSON may come back a hair off
    for more in [live("shadow", &gains(150)), live("more", &gains(250))] {
        let (left, right) = (restored.observe(&rules, &more, 8).unwrap(), gate.observe(&rules, &more, 8).unwrap());
        assert_eq!((left.verdict, left.after, &left.reason), (right.verdict, right.after, &right.reason));
        let e_value = |record: &super::GateRecord| finding(&record.evidence, "gain").e_value.unwrap();
        assert!((e_value(&left) / e_value(&right) - 1.0).abs() < 1e-9);
    }
    assert_eq!(restored.stage(), Stage::Canary { step: 0 });
    assert_eq!(test.store.retain(&acme(), 0, 9).unwrap(), [], "the candidate at the gate is kept");
}

#[test]
fn attempts_count_against_one_incumbent() {
    let rules = GateRules::default();
    let test = TestStore::with(&["a", "b"]);
    let look = || {
        let mut gate = gate_at(&rules, Stage::Offline);
        let record = gate.observe(&rules, &Observation::Offline(offline_report(&rules, &[0.0; 400])), 0).unwrap();
        assert_eq!(record.verdict, Verdict::Reject);
        test.store.keep_gate(&acme(), &gate, &record, 0).unwrap();
        test.store.next_attempt(&acme()).unwrap()
    };
    assert_eq!(test.store.next_attempt(&acme()).unwrap(), 1);
    assert_eq!((look(), look()), (2, 3));
    test.store.promote(&acme(), &policy("a"), 0, "better", 0).unwrap();
    assert_eq!(test.store.next_attempt(&acme()).unwrap(), 1);
    assert_eq!(look(), 2);
    // the first incumbent is back, and with it what was tried against it
    test.store.roll_back(&acme(), 1, "worse", 0).unwrap();
    assert_eq!(test.store.next_attempt(&acme()).unwrap(), 3);
}
