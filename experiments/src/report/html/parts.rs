//! The parts of the page that are no tables.

use super::super::input::{Accounting, ArmFacts};
use super::super::measure::count;
use super::super::metric::Better;
use super::super::output::{Example, Report, Verdict};
use super::super::text::{accounted, interval, p, share};
use super::escape::Escaped;
use super::{add, charts};
use crate::definition::Kind;
use crate::report::Looks;

pub(super) fn headline(page: &mut String, report: &Report) {
    let tone = match report.decision.verdict {
        Verdict::TreatmentBetter => "good",
        Verdict::ControlBetter | Verdict::StoppedByGuardrail | Verdict::StoppedByKillSwitch | Verdict::Invalid => "bad",
        Verdict::KeepRunning | Verdict::NoDifference => "calm",
    };
    let kind = match report.kind {
        Kind::Shadow => "shadow",
        Kind::Split => "split",
        Kind::Interleave => "interleaved",
    };
    let looks = match report.looks {
        Looks::Any => "looked at as it runs",
        Looks::Once => "looked at once",
    };
    add(
        page,
        format_args!(
            "<h1>Experiment <b>{}</b>, version {} · {kind} · <b>{}</b> (treatment) against <b>{}</b> (control)</h1>\n\
             <section class=\"verdict {tone}\"><div class=\"word\">{}</div><p>{}.</p>\n\
             <p class=\"soft\">{looks}, a wrong claim in {} % of such experiments at most{}</p>\n<div class=\"tiles\">",
            Escaped(&report.experiment),
            report.version,
            Escaped(&report.treatment),
            Escaped(&report.control),
            report.decision.verdict.words(),
            Escaped(&report.decision.reason),
            100.0 * report.alpha,
            tenants(report),
        ),
    );
    for (figure, what) in tiles(report) {
        add(page, format_args!("<div class=\"tile\"><b>{}</b><span>{}</span></div>", Escaped(&figure), Escaped(&what)));
    }
    page.push_str("</div></section>\n");
}

fn tenants(report: &Report) -> String {
    if report.tenants.is_empty() { String::new() } else { format!(" · {}", Escaped(&report.tenants.join(", "))) }
}

fn tiles(report: &Report) -> Vec<(String, String)> {
    let mut tiles = Vec::new();
    if let Some(one) = report.metric(report.primary) {
        let decimals = super::super::text::decimals(one);
        let what = format!("{}, difference {}", one.title, interval(one.difference.interval, decimals));
        tiles.push((format!("{:+.decimals$}", one.difference.mean), what));
    }
    if let Some(rate) = report.wins.as_ref().and_then(|wins| wins.counted.rate) {
        let (lower, upper) = (100.0 * rate.interval.lower, 100.0 * rate.interval.upper);
        tiles.push((
            format!("{:.0} %", 100.0 * rate.rate),
            format!("win rate, {lower:.0} to {upper:.0} %, ties left out"),
        ));
    }
    if let Some(one) = report.metric(super::super::Metric::RewriteMs) {
        let what = format!("mean rewrite latency, control {:.0} ms", one.control_mean);
        tiles.push((format!("{:.0} ms", one.treatment_mean), what));
    }
    match report.interleaving {
        Some(summary) => tiles.push((summary.queries.to_string(), "merged rankings".to_owned())),
        None if report.kind == Kind::Split => {
            let n = report.metric(report.primary).map_or(0, |one| one.n);
            tiles.push((n.to_string(), "units in the smaller arm".to_owned()));
        }
        None => tiles.push((report.pairs.to_string(), "pairs".to_owned())),
    }
    if report.controls > 0 {
        tiles.push((report.controls.to_string(), "control pairs for the noise floor".to_owned()));
    }
    tiles
}

pub(super) fn track(page: &mut String, report: &Report) {
    let Some(last) = report.track.last() else { return };
    let title = report.primary.title();
    add(
        page,
        format_args!(
            "<section><h2>How the difference came about</h2><figure>{}\
             <figcaption>Mean difference of {title}, treatment minus control, over the first pairs up to all {}. The band is \
             valid at every look: with probability {:.0} % it holds the true difference all along.</figcaption></figure></section>\n",
            charts::track(&report.track, title),
            last.n,
            100.0 * (1.0 - report.alpha)
        ),
    );
}

pub(super) fn interleaving(page: &mut String, report: &Report) {
    let Some(summary) = report.interleaving else { return };
    let counts = summary.outcomes;
    add(
        page,
        format_args!(
            "<section><h2>Clicks on merged rankings</h2>{}\
             <p>{} of {} rankings were clicked; the arms differ on {:.0} % of the slots.</p>",
            bar(&[
                ("win", "to the treatment", counts.wins),
                ("even", "even", counts.ties),
                ("loss", "to the control", counts.losses),
            ]),
            summary.clicked,
            summary.queries,
            100.0 * summary.competitive_share
        ),
    );
    if let Some(rate) = summary.win_rate {
        add(
            page,
            format_args!(
                "<p>Win rate {:.3}, {}; sign test p {}, p at every look {}.</p>",
                rate.rate,
                share(rate.interval),
                Escaped(&p(Some(rate.p_two_sided))),
                Escaped(&p(report.preference.map(|evidence| evidence.anytime_p)))
            ),
        );
    }
    page.push_str("</section>\n");
}

/// A bar of counts with its legend.
pub(super) fn bar(parts: &[(&str, &str, u64)]) -> String {
    let total: u64 = parts.iter().map(|(_, _, n)| n).sum();
    let mut bar = String::from("<div class=\"bar\">");
    for (class, what, n) in parts.iter().filter(|(_, _, n)| *n > 0) {
        let share = 100.0 * count(*n) / count(total);
        add(
            &mut bar,
            format_args!("<i class=\"{class}\" style=\"width:{share:.2}%\" title=\"{} {n}\"></i>", Escaped(what)),
        );
    }
    bar.push_str("</div><div class=\"legend\">");
    for (class, what, n) in parts {
        add(&mut bar, format_args!("<span><i class=\"{class}\"></i>{n} {}</span>", Escaped(what)));
    }
    bar.push_str("</div>");
    bar
}

pub(super) fn accounting(page: &mut String, report: &Report) {
    let runs = [("runs of the treatment", &report.accounting), ("control runs", &report.control_accounting)];
    let ratio = report.unit_ratio.as_ref();
    if runs.iter().all(|(_, one)| one.sampled == 0 && one.adds_up()) && ratio.is_none() {
        return;
    }
    page.push_str("<section><h2>What became of the requests</h2>");
    for (title, one) in runs.into_iter().filter(|(_, one)| one.sampled > 0 || !one.adds_up()) {
        let tone = if one.adds_up() { "soft" } else { "bad-text" };
        add(page, format_args!("<h3>{} sampled {title}</h3>{}", one.sampled, bar(&account(one))));
        add(page, format_args!("<p class=\"{tone}\">{}</p>", Escaped(&accounted(one))));
    }
    if let Some(ratio) = ratio {
        let part = |((name, n), expected): (&(String, u64), &f64)| format!("{name} {n}, expected {expected:.0}");
        let parts: Vec<String> = ratio.counted.iter().zip(&ratio.ratio.expected).map(part).collect();
        let (tone, word) = if ratio.mismatch { ("bad-text", "mismatch") } else { ("good-text", "as it should be") };
        add(
            page,
            format_args!(
                "<h3>Sample ratio</h3><p>{}: <span class=\"{tone}\">{word}</span> (p at every look {})</p>",
                Escaped(&parts.join("; ")),
                Escaped(&p(Some(ratio.ratio.anytime_p)))
            ),
        );
    }
    page.push_str("</section>\n");
}

fn account(one: &Accounting) -> [(&'static str, &'static str, u64); 5] {
    [
        ("win", "completed", one.completed),
        ("loss", "failed", one.failed.values().sum()),
        ("late", "timed out", one.timed_out),
        ("even", "dropped", one.dropped.values().sum()),
        ("info", "pending", one.pending),
    ]
}

pub(super) fn examples(page: &mut String, report: &Report) {
    let lists = [("Largest wins of the treatment", &report.largest_wins), ("Largest losses", &report.largest_losses)];
    for (title, examples) in lists.into_iter().filter(|(_, examples)| !examples.is_empty()) {
        add(page, format_args!("<section><h2>{title}, by {}</h2>", report.primary.title()));
        for one in examples {
            example(page, report, one);
        }
        page.push_str("</section>\n");
    }
}

fn example(page: &mut String, report: &Report, one: &Example) {
    let kind = one.query_type.as_deref().map_or_else(String::new, |kind| format!(" · {}", Escaped(kind)));
    add(
        page,
        format_args!(
            "<div class=\"example\"><div class=\"query\">{}</div><p class=\"soft\">{}{kind} · <code>{}</code></p><div class=\"arms\">",
            Escaped(&one.query),
            Escaped(&one.tenant),
            Escaped(&one.episode)
        ),
    );
    let lower = report.primary.better() == Better::Lower;
    let treatment_better = (one.treatment_value > one.control_value) != lower;
    arm(page, &report.control, "control", one.control_value, &one.control, !treatment_better);
    arm(page, &report.treatment, "treatment", one.treatment_value, &one.treatment, treatment_better);
    page.push_str("</div></div>");
}

fn arm(page: &mut String, name: &str, role: &str, value: f64, facts: &ArmFacts, better: bool) {
    let class = if better { "arm better" } else { "arm" };
    let degraded = if facts.degraded { " · degraded" } else { "" };
    add(
        page,
        format_args!(
            "<div class=\"{class}\"><header><span>{} ({role}){degraded}</span><b>{value:.3}</b></header>\
             <div class=\"rewrite\">{}</div>",
            Escaped(name),
            Escaped(&facts.rewrite)
        ),
    );
    if facts.hits.is_empty() {
        page.push_str("<p class=\"soft\">nothing was found</p>");
    } else {
        page.push_str("<ol>");
        for (index, hit) in facts.hits.iter().enumerate() {
            let score = facts.scores.get(index).map_or_else(String::new, |score| format!(" {score:.3}"));
            add(page, format_args!("<li>{} <code>{}{score}</code></li>", Escaped(&hit.text), Escaped(&hit.id)));
        }
        page.push_str("</ol>");
    }
    page.push_str("</div>");
}

pub(super) fn notes(page: &mut String, report: &Report) {
    if report.notes.is_empty() {
        return;
    }
    page.push_str("<section><h2>Notes</h2><ul class=\"notes\">");
    for note in &report.notes {
        add(page, format_args!("<li>{}</li>", Escaped(note)));
    }
    page.push_str("</ul></section>\n");
}
