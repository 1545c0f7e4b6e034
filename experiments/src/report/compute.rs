use super::examples::examples;
use super::input::{Accounting, Looks, Pair, ReportInput};
use super::measure::{Settings, count, mean, measure, outcomes, side_of, to_u64};
use super::metric::{Better, Metric};
use super::output::{Counted, Measured, Report, UnitRatio, Wins, WinsBasis};
use super::slices::slices;
use super::split;
use super::track::track;
use crate::betting_interval::BettingInterval;
use crate::bootstrap::Interval;
use crate::decision::{Finding, Grounds, decide};
use crate::definition::{Definition, Kind};
use crate::e_process::{Direction, Evidence, TwoSidedBettingTest};
use crate::guardrails::AnswerFacts;
use crate::interleave::{Credit, Interleaving, MIN_COMPETITIVE};
use crate::srm::sample_ratio;
use crate::win_rate::WinTieLoss;

/// At this p-value, valid at every look, arms are not filled as they should be.
const MISMATCH: f64 = 0.001;
/// What decides an interleaved experiment.
const CLICKS: &str = "preference by clicks";

/// Computes a report. Pairs may come in any order; values that are missing or not finite leave the metric in question.
///
/// Takes time in proportion to the pairs: resamples are 2,000 at most, and drawn from 2,000 groups where there are
/// more pairs than that.
#[must_use]
pub fn compute(input: &ReportInput) -> Report {
    let definition = &input.definition;
    let settings = Settings {
        // A stored definition was checked; one that was not falls back to the usual level.
        alpha: if definition.alpha > 0.0 && definition.alpha < 1.0 { definition.alpha } else { 0.05 },
        tightest_at: definition.min_pairs.max(1),
        seed: seed(definition),
    };
    let (pairs, controls) = (in_order(&input.pairs), in_order(&input.controls));
    let treatment = definition.treatment().map_or("treatment", |arm| &arm.name);
    let metrics = metrics(input, &pairs, &controls, treatment, settings);
    let primary = definition.primary;

    let guardrails = definition.guardrails.judge(&guarded(input, &pairs, treatment));
    let unit_ratio = unit_ratio(input);
    let adds_up = input.accounting.adds_up() && input.control_accounting.adds_up();
    let credits: Vec<Credit> = in_click_order(input);
    let interleaving = (!credits.is_empty()).then(|| Interleaving::of(&credits));
    let clicks = clicks(&credits, settings.alpha);
    let finding = match definition.kind {
        Kind::Interleave => clicks.map(|clicks| {
            let Clicks { evidence, direction, interval } = clicks;
            Finding { n: evidence.n, mean: evidence.mean, interval, direction, noise: None }
        }),
        _ => metrics.iter().find(|one| one.metric == primary).and_then(|one| found(one, input.looks)),
    };
    let decision = decide(&Grounds {
        killed: definition.killed,
        ended: input.ended,
        flaw: flaw(adds_up, unit_ratio.as_ref()),
        guardrails: &guardrails,
        metric: if definition.kind == Kind::Interleave { CLICKS } else { primary.title() },
        min_pairs: definition.min_pairs,
        margin: definition.margin,
        finding,
    });
    let (largest_wins, largest_losses) = examples(primary, &pairs);
    let notes = notes(input, &metrics, interleaving.as_ref());
    Report {
        experiment: definition.id.clone(),
        version: input.version,
        kind: definition.kind,
        tenants: definition.tenants.clone(),
        control: definition.control.clone(),
        treatment: treatment.to_owned(),
        looks: input.looks,
        alpha: settings.alpha,
        decision,
        pairs: to_u64(pairs.len()),
        controls: to_u64(controls.len()),
        primary,
        wins: wins(&pairs),
        track: track(primary, &pairs, settings),
        slices: slices(primary, &pairs, settings.seed),
        metrics,
        interleaving,
        preference: clicks.map(|clicks| clicks.evidence),
        unit_ratio,
        accounting: input.accounting.clone(),
        control_accounting: input.control_accounting.clone(),
        adds_up,
        guardrails,
        largest_wins,
        largest_losses,
        feedback: input.feedback.clone(),
        notes,
    }
}

/// The seed of all draws of an experiment's reports.
fn seed(definition: &Definition) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"report\0").update(definition.salt.as_bytes()).update(b"\0").update(definition.id.as_bytes());
    hasher.finalize().as_bytes()[..8].iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// Pairs as they were asked, so that sequential statistics see them in the order in which they came.
fn in_order(pairs: &[Pair]) -> Vec<Pair> {
    let mut pairs = pairs.to_vec();
    pairs.sort_by(|a, b| a.at_ms.cmp(&b.at_ms).then_with(|| a.episode.cmp(&b.episode)));
    pairs
}

fn in_click_order(input: &ReportInput) -> Vec<Credit> {
    let mut credits: Vec<_> = input.credits.iter().collect();
    credits.sort_by(|a, b| a.at_ms.cmp(&b.at_ms).then_with(|| a.episode.cmp(&b.episode)));
    credits.into_iter().map(|one| one.credit).collect()
}

fn metrics(
    input: &ReportInput,
    pairs: &[Pair],
    controls: &[Pair],
    treatment: &str,
    settings: Settings,
) -> Vec<Measured> {
    let mut singles = input.singles.clone();
    singles.sort_by(|a, b| a.at_ms.cmp(&b.at_ms).then_with(|| a.unit.cmp(&b.unit)));
    let arms = [input.definition.control.as_str(), treatment];
    let of = |metric| match input.definition.kind {
        Kind::Split => split::measure(metric, arms, &singles, settings),
        Kind::Shadow | Kind::Interleave => measure(metric, pairs, controls, settings),
    };
    Metric::ALL.into_iter().filter_map(of).collect()
}

/// The treatment's answers, for the guardrails.
fn guarded(input: &ReportInput, pairs: &[Pair], treatment: &str) -> Vec<AnswerFacts> {
    let singles = input.singles.iter().filter(|single| single.arm == treatment);
    let singles = singles.map(|single| single.facts.guarded(&single.query));
    pairs.iter().map(|pair| pair.other.guarded(&pair.query)).chain(singles).collect()
}

/// Of a shadow experiment, runs of the treatment against runs of the control; of a split, units by arm.
fn unit_ratio(input: &ReportInput) -> Option<UnitRatio> {
    let definition = &input.definition;
    let counted: Vec<(String, u64)> = match definition.kind {
        Kind::Shadow => vec![
            ("treatment runs".to_owned(), input.accounting.sampled),
            ("control runs".to_owned(), input.control_accounting.sampled),
        ],
        Kind::Split => {
            let dealt = |name: &str| input.units.iter().filter(|one| one.arm == name).map(|one| one.units).sum();
            definition.arms.iter().map(|arm| (arm.name.clone(), dealt(&arm.name))).collect()
        }
        Kind::Interleave => return None,
    };
    let weights: Vec<f64> = match definition.kind {
        Kind::Shadow => vec![1.0 - definition.control_rate, definition.control_rate],
        Kind::Split | Kind::Interleave => definition.arms.iter().map(|arm| arm.weight).collect(),
    };
    let counts: Vec<u64> = counted.iter().map(|(_, count)| *count).collect();
    let ratio = sample_ratio(&counts, &weights).ok()?;
    Some(UnitRatio { counted, mismatch: ratio.mismatch(MISMATCH), ratio })
}

fn flaw(adds_up: bool, ratio: Option<&UnitRatio>) -> Option<String> {
    if !adds_up {
        return Some("the sampled requests are not all accounted for: see the accounting".to_owned());
    }
    let ratio = ratio.filter(|ratio| ratio.mismatch)?;
    let part = |((name, count), expected): (&(String, u64), &f64)| format!("{name} {count} instead of {expected:.0}");
    let parts: Vec<String> = ratio.counted.iter().zip(&ratio.ratio.expected).map(part).collect();
    Some(format!("sample ratio mismatch: {} (p = {:.2e})", parts.join(", "), ratio.ratio.anytime_p))
}

/// What the primary metric found, turned so that above 0 is better.
fn found(measured: &Measured, looks: Looks) -> Option<Finding> {
    let (mean, noise) = (measured.difference.mean, measured.noise.map(|noise| noise.floor));
    let (interval, direction) = match (looks, measured.sequential) {
        (Looks::Once, _) => {
            // The interval and the test must agree, lest a choice between them be a second try.
            let significant = measured.p.is_some_and(|p| p <= 0.05);
            (measured.difference.interval, side_of(measured.difference.interval).filter(|_| significant))
        }
        (Looks::Any, Some(sequential)) => (sequential.interval, sequential.direction),
        // Too early for an interval: anything is possible.
        (Looks::Any, None) => (Interval { lower: f64::NEG_INFINITY, upper: f64::INFINITY }, None),
    };
    let finding = Finding { n: measured.n, mean, interval, direction, noise };
    Some(if measured.better == Better::Lower { turned(finding) } else { finding })
}

fn turned(finding: Finding) -> Finding {
    let direction = finding.direction.map(|direction| match direction {
        Direction::Above => Direction::Below,
        Direction::Below => Direction::Above,
    });
    let interval = Interval { lower: -finding.interval.upper, upper: -finding.interval.lower };
    Finding { mean: -finding.mean, interval, direction, ..finding }
}

/// The queries with a winner: +1 for the treatment, -1 for the control.
#[derive(Debug, Clone, Copy)]
struct Clicks {
    evidence: Evidence,
    direction: Option<Direction>,
    interval: Interval,
}

/// What the clicks say at every look; nothing without a merged ranking.
fn clicks(credits: &[Credit], alpha: f64) -> Option<Clicks> {
    if credits.is_empty() {
        return None;
    }
    let mut test = TwoSidedBettingTest::new(alpha, -1.0, 1.0, 0.0).ok()?;
    let mut sequence = BettingInterval::new(alpha, -1.0, 1.0, 401).ok()?;
    for credit in credits.iter().filter(|credit| credit.first != credit.second) {
        let winner = if credit.second > credit.first { 1.0 } else { -1.0 };
        test.push(winner).ok()?;
        sequence.push(winner).ok()?;
    }
    Some(Clicks { evidence: test.evidence(), direction: test.direction(), interval: sequence.interval() })
}

/// Each pair's winner: by the judge, else by nDCG@10, else by quality.
fn wins(pairs: &[Pair]) -> Option<Wins> {
    let order = [Metric::Judge, Metric::LabelNdcgAt10, Metric::Quality];
    let (mut counts, mut basis) = (WinTieLoss::default(), Vec::new());
    let deciding = |pair: &Pair| order.into_iter().find(|metric| metric.of_pair(pair).is_some());
    for metric in order {
        let decided = pairs.iter().filter(|pair| deciding(pair) == Some(metric));
        let differences: Vec<f64> =
            decided.filter_map(|pair| metric.of_pair(pair)).map(|(control, treatment)| treatment - control).collect();
        let Some(counted) = outcomes(metric, &differences) else { continue };
        counts.wins += counted.counts.wins;
        counts.ties += counted.counts.ties;
        counts.losses += counted.counts.losses;
        basis.push(WinsBasis { metric, pairs: to_u64(differences.len()) });
    }
    (!basis.is_empty()).then(|| Wins { basis, counted: Counted::of(counts) })
}

fn notes(input: &ReportInput, metrics: &[Measured], interleaving: Option<&Interleaving>) -> Vec<String> {
    let mut notes = Vec::new();
    let primary = input.definition.primary;
    if let Some(measured) = metrics.iter().find(|one| one.metric == primary && input.definition.kind != Kind::Split) {
        let missing = to_u64(input.pairs.len()) - measured.n;
        if missing > 0 {
            notes.push(format!("{missing} pairs have no value of {} on both sides and are left out", primary.title()));
        }
    }
    let again = input.definition.kind == Kind::Shadow && input.looks == Looks::Any;
    if again && !input.pairs.is_empty() && input.controls.len() < 2 {
        notes.push("no noise floor: the control was not compared with itself (control_rate)".to_owned());
    }
    if let Some(judge) = &input.judge {
        let unscored = input.pairs.iter().filter(|pair| pair.judge.is_none()).count()
            + input.singles.iter().filter(|one| one.judge.is_none()).count();
        let all = input.pairs.len() + input.singles.len();
        notes.push(format!("the judge's scores are those of {judge}; {unscored} of {all} have none"));
    }
    if lost(&input.accounting) > 0.1 {
        let share = 100.0 * lost(&input.accounting);
        notes.push(format!(
            "{share:.0} % of the sampled requests have no answer of the treatment: the pairs may not be typical of all"
        ));
    }
    if input.definition.kind == Kind::Split {
        let largest = input.units.iter().map(|one| count(one.requests) / count(one.units.max(1)));
        notes.push(format!("answers are averaged by unit, {:.1} requests each", mean(largest)));
        let known: u64 = input.definition.arms.iter().map(|arm| split::units(&arm.name, &input.singles)).sum();
        let dealt: u64 = input.units.iter().map(|one| one.units).sum();
        if known < dealt {
            notes.push(format!("the answers of {known} of {dealt} units are in this report"));
        }
    }
    if let Some(summary) = interleaving.filter(|summary| summary.pause) {
        notes.push(format!(
            "the arms differ on {:.0} % of the slots, less than {:.0} %: pause, clicks say little here",
            100.0 * summary.competitive_share,
            100.0 * MIN_COMPETITIVE
        ));
    }
    notes
}

/// Share of the ended runs that have no answer.
fn lost(accounting: &Accounting) -> f64 {
    let ended = accounting.sampled.saturating_sub(accounting.pending);
    if ended == 0 { 0.0 } else { 1.0 - count(accounting.completed) / count(ended) }
}
