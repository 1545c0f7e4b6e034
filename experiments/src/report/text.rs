use std::fmt::Write;

use super::input::Accounting;
use super::metric::Better;
use super::output::{Example, Measured, Report};
use crate::bootstrap::Interval;

/// The report for a terminal.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    metrics(&mut out, report);
    interleaving(&mut out, report);
    checks(&mut out, report);
    slices(&mut out, report);
    examples(&mut out, "largest wins of the treatment", &report.largest_wins);
    examples(&mut out, "largest losses of the treatment", &report.largest_losses);
    for note in &report.notes {
        line(&mut out, format_args!("note: {note}"));
    }
    out
}

/// Writing to a string cannot fail.
fn line(out: &mut String, arguments: std::fmt::Arguments) {
    let _ = out.write_fmt(arguments);
    out.push('\n');
}

fn head(out: &mut String, report: &Report) {
    let Report { experiment, version, control, treatment, .. } = report;
    line(out, format_args!("experiment {experiment}, version {version}: {treatment} against {control}"));
    line(out, format_args!("{}: {}", report.decision.verdict.words().to_uppercase(), report.decision.reason));
    line(out, format_args!("{} pairs, {} control pairs", report.pairs, report.controls));
    if let Some(wins) = &report.wins {
        let counts = wins.counted.counts;
        let basis: Vec<String> =
            wins.basis.iter().map(|one| format!("{} by {}", one.pairs, one.metric.title())).collect();
        let rate = wins.counted.rate.map_or_else(String::new, |rate| {
            format!(", win rate {:.3} {} (ties left out)", rate.rate, share(rate.interval))
        });
        let (wins, ties, losses) = (counts.wins, counts.ties, counts.losses);
        line(out, format_args!("{wins} won, {ties} tied, {losses} lost{rate}; decided {}", basis.join(", ")));
    }
}

fn metrics(out: &mut String, report: &Report) {
    if report.metrics.is_empty() {
        return;
    }
    let width = report.metrics.iter().map(|one| label(one).chars().count()).max().unwrap_or(0);
    out.push('\n');
    line(
        out,
        format_args!(
            "{:width$}  {:>6}  {:>9}  {:>9}  {:<30}  {:>8}  {:<22}  {:>9}",
            "metric",
            "n",
            "control",
            "treatment",
            "difference [95 %, one look]",
            "p",
            "[valid at every look]",
            "anytime p"
        ),
    );
    for one in &report.metrics {
        let decimals = decimals(one);
        let difference = format!("{:+.decimals$} {}", one.difference.mean, interval(one.difference.interval, decimals));
        let always = one.sequential.map_or_else(|| "-".to_owned(), |it| interval(it.interval, decimals));
        let anytime = one.sequential.and_then(|it| it.anytime_p);
        let (control, treatment) = (one.control_mean, one.treatment_mean);
        line(
            out,
            format_args!(
                "{:width$}  {:>6}  {control:>9.decimals$}  {treatment:>9.decimals$}  {difference:<30}  {:>8}  {always:<22}  {:>9}",
                label(one),
                one.n,
                p(one.p),
                p(anytime)
            ),
        );
    }
    out.push('\n');
    for one in &report.metrics {
        let mut said = Vec::new();
        if let Some(outcomes) = one.outcomes {
            let counts = outcomes.counts;
            let rate = outcomes
                .rate
                .map_or_else(String::new, |rate| format!(", win rate {:.3} {}", rate.rate, share(rate.interval)));
            said.push(format!("{} won, {} tied, {} lost{rate}", counts.wins, counts.ties, counts.losses));
        }
        if let (Some(noise), Some(beyond)) = (one.noise, one.beyond_noise) {
            let decimals = decimals(one);
            said.push(format!("noise floor {:.decimals$}, {beyond:+.decimals$} beyond it", noise.floor));
        }
        if !said.is_empty() {
            line(out, format_args!("{}: {}", one.title, said.join("; ")));
        }
    }
}

fn interleaving(out: &mut String, report: &Report) {
    let Some(summary) = report.interleaving else { return };
    let counts = summary.outcomes;
    line(
        out,
        format_args!(
            "clicks: {} of {} merged rankings; {} queries to the treatment, {} to the control, {} even; arms differ on {:.0} % of slots",
            summary.clicked,
            summary.queries,
            counts.wins,
            counts.losses,
            counts.ties,
            100.0 * summary.competitive_share
        ),
    );
    if let Some(rate) = summary.win_rate {
        let anytime = p(report.preference.map(|evidence| evidence.anytime_p));
        let bounds = share(rate.interval);
        line(
            out,
            format_args!(
                "win rate {:.3} {bounds}, sign test p {}, anytime p {anytime}",
                rate.rate,
                p(Some(rate.p_two_sided))
            ),
        );
    }
}

fn checks(out: &mut String, report: &Report) {
    out.push('\n');
    for (name, accounting) in [("treatment", &report.accounting), ("control", &report.control_accounting)] {
        if accounting.sampled > 0 {
            line(out, format_args!("accounting of {name} runs: {}", accounted(accounting)));
        }
    }
    if let Some(ratio) = &report.unit_ratio {
        let parts: Vec<String> = ratio
            .counted
            .iter()
            .zip(&ratio.ratio.expected)
            .map(|((name, count), expected)| format!("{name} {count} (expected {expected:.0})"))
            .collect();
        let word = if ratio.mismatch { "MISMATCH" } else { "as it should be" };
        line(
            out,
            format_args!("sample ratio: {}: {word}, anytime p {}", parts.join(", "), p(Some(ratio.ratio.anytime_p))),
        );
    }
    for one in &report.guardrails {
        let value = one.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let word = match one.ok {
            Some(true) => "ok",
            Some(false) => "BROKEN",
            None => "too few answers",
        };
        line(out, format_args!("guardrail {}: {value} of {} at most, {} answers: {word}", one.name, one.bound, one.n));
    }
    for one in &report.feedback {
        line(
            out,
            format_args!(
                "feedback on {}: {} up, {} down, {} clicks, {} comments, {} scores (mean {:.2}), preferred {} times, not {}",
                one.arm,
                one.up,
                one.down,
                one.clicks,
                one.comments,
                one.scores,
                one.mean_score,
                one.preferred,
                one.not_preferred
            ),
        );
    }
}

fn slices(out: &mut String, report: &Report) {
    if report.slices.is_empty() {
        return;
    }
    out.push('\n');
    line(out, format_args!("{} by slice (each at one look, none corrected for the others):", report.primary.title()));
    for one in &report.slices {
        let counts = one.outcomes.counts;
        let difference = format!("{:+.3} {}", one.difference.mean, interval(one.difference.interval, 3));
        line(
            out,
            format_args!(
                "  {} {}: n {}, {difference}, {} won, {} tied, {} lost",
                one.by, one.value, one.n, counts.wins, counts.ties, counts.losses
            ),
        );
    }
}

fn examples(out: &mut String, title: &str, examples: &[Example]) {
    if examples.is_empty() {
        return;
    }
    out.push('\n');
    line(out, format_args!("{title}:"));
    for one in examples {
        line(out, format_args!("  {} [{}] {}", one.query, one.tenant, one.episode));
        for (name, value, facts) in
            [("control", one.control_value, &one.control), ("treatment", one.treatment_value, &one.treatment)]
        {
            let first: Vec<&str> = facts.hits.iter().take(3).map(|hit| hit.id.as_str()).collect();
            line(out, format_args!("    {name:<9} {value:>9.3}  {}  -> {}", facts.rewrite, first.join(", ")));
        }
    }
}

/// Counts of an account, with a word on whether they add up.
pub(super) fn accounted(accounting: &Accounting) -> String {
    let reasons = |of: &std::collections::BTreeMap<String, u64>| {
        let parts: Vec<String> = of.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
    };
    let (failed, dropped): (u64, u64) = (accounting.failed.values().sum(), accounting.dropped.values().sum());
    let sum = if accounting.adds_up() {
        "adds up".to_owned()
    } else {
        format!("DOES NOT ADD UP: {} are accounted for", accounting.sum())
    };
    format!(
        "{} sampled = {} completed + {failed} failed{} + {} timed out + {dropped} dropped{} + {} pending: {sum}",
        accounting.sampled,
        accounting.completed,
        reasons(&accounting.failed),
        accounting.timed_out,
        reasons(&accounting.dropped),
        accounting.pending
    )
}

fn label(measured: &Measured) -> String {
    let unit = if measured.unit.is_empty() { String::new() } else { format!(", {}", measured.unit) };
    format!("{}{unit}", measured.title)
}

/// Digits behind the point that a metric is shown with.
pub(super) fn decimals(measured: &Measured) -> usize {
    if measured.better == Better::Higher { 3 } else { 1 }
}

/// An interval in brackets.
pub(super) fn interval(interval: Interval, decimals: usize) -> String {
    format!("[{:+.decimals$}, {:+.decimals$}]", interval.lower, interval.upper)
}

/// An interval of shares, which have no sign.
pub(super) fn share(interval: Interval) -> String {
    format!("[{:.3}, {:.3}]", interval.lower, interval.upper)
}

/// A p-value in a few characters.
pub(super) fn p(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(p) if p < 0.0001 => "< 0.0001".to_owned(),
        Some(p) => format!("{p:.4}"),
    }
}
