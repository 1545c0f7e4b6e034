//! The tables of the page.

use super::super::measure::count;
use super::super::metric::Better;
use super::super::output::{Counted, Measured, Report};
use super::super::text::{decimals, interval, p};
use super::escape::Escaped;
use super::parts::bar;
use super::{add, charts};

pub(super) fn metrics(page: &mut String, report: &Report) {
    if report.metrics.is_empty() {
        return;
    }
    add(
        page,
        format_args!(
            "<section><h2>Differences, treatment minus control</h2><div class=\"wide\"><table><thead><tr><th>metric</th>\
             <th>difference</th><th class=\"chart\">0 in the middle</th><th>control</th><th>treatment</th><th>n</th>\
             <th>at one look, 95 %</th><th>at every look, {:.0} %</th><th>noise floor</th></tr></thead><tbody>",
            100.0 * (1.0 - report.alpha)
        ),
    );
    for one in &report.metrics {
        metric_row(page, one, one.metric == report.primary);
    }
    page.push_str(
        "</tbody></table></div><p class=\"soft\">Thick lines are valid at one look, thin ones at every look. Green is better, \
         orange is worse, and blue may be either. Each line has a scale of its own.</p></section>\n",
    );
}

fn metric_row(page: &mut String, one: &Measured, primary: bool) {
    let digits = decimals(one);
    let unit = if one.unit.is_empty() { String::new() } else { format!(" <span class=\"soft\">{}</span>", one.unit) };
    let way = match one.better {
        Better::Higher => "",
        Better::Lower => " <span class=\"soft\">less is better</span>",
        Better::Neither => "",
    };
    let title =
        if primary { format!("<b>{}</b> <span class=\"soft\">decides</span>", one.title) } else { one.title.clone() };
    let always = one.sequential.map_or_else(|| "-".to_owned(), |it| interval(it.interval, digits));
    let anytime = one.sequential.and_then(|it| it.anytime_p);
    let noise = one.noise.zip(one.beyond_noise).map_or_else(
        || "-".to_owned(),
        |(noise, beyond)| format!("{:.digits$}<br><span class=\"soft\">{beyond:+.digits$} beyond</span>", noise.floor),
    );
    add(
        page,
        format_args!(
            "<tr><td>{title}{unit}{way}</td><td><b>{:+.digits$}</b></td><td class=\"chart\">{}</td><td>{:.digits$}</td>\
             <td>{:.digits$}</td><td>{}</td><td>{}{}</td><td>{always}{}</td><td>{noise}</td></tr>",
            one.difference.mean,
            charts::forest(one),
            one.control_mean,
            one.treatment_mean,
            one.n,
            interval(one.difference.interval, digits),
            p_line(one.p),
            p_line(anytime),
        ),
    );
}

/// A p-value on a line of its own below an interval.
fn p_line(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| {
        let text = p(Some(value));
        let sign = if text.starts_with('<') { "" } else { "= " };
        format!("<br><span class=\"soft\">p {sign}{}</span>", Escaped(&text))
    })
}

pub(super) fn outcomes(page: &mut String, report: &Report) {
    let rows: Vec<(&str, Counted)> =
        report.metrics.iter().filter_map(|one| Some((one.title.as_str(), one.outcomes?))).collect();
    if rows.is_empty() {
        return;
    }
    page.push_str("<section><h2>Pairs won, tied and lost by the treatment</h2>");
    if let Some(wins) = &report.wins {
        let counts = wins.counted.counts;
        page.push_str(&bar(&[
            ("win", "won", counts.wins),
            ("even", "tied", counts.ties),
            ("loss", "lost", counts.losses),
        ]));
        let basis: Vec<String> =
            wins.basis.iter().map(|one| format!("{} pairs by {}", one.pairs, one.metric.title())).collect();
        add(page, format_args!("<p class=\"soft\">decided: {}</p>", Escaped(&basis.join(", "))));
    }
    page.push_str(
        "<div class=\"wide\"><table><thead><tr><th>metric</th><th></th><th>won</th><th>tied</th><th>lost</th><th>win rate</th>\
         <th>95 %</th><th>p</th></tr></thead><tbody>",
    );
    for (title, counted) in rows {
        let counts = counted.counts;
        let (rate, bounds, p) = rate_cells(&counted);
        add(
            page,
            format_args!(
                "<tr><td>{title}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{rate}</td><td>{bounds}</td><td>{p}</td></tr>",
                small_bar(&counted),
                counts.wins,
                counts.ties,
                counts.losses
            ),
        );
    }
    page.push_str("</tbody></table></div></section>\n");
}

fn rate_cells(counted: &Counted) -> (String, String, String) {
    counted.rate.map_or_else(
        || ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        |rate| {
            let bounds = format!("{:.3} to {:.3}", rate.interval.lower, rate.interval.upper);
            (format!("{:.3}", rate.rate), bounds, Escaped(&p(Some(rate.p_two_sided))).to_string())
        },
    )
}

fn small_bar(counted: &Counted) -> String {
    let counts = counted.counts;
    let total = count((counts.wins + counts.ties + counts.losses).max(1));
    let part = |class: &str, n: u64| match n {
        0 => String::new(),
        n => format!("<i class=\"{class}\" style=\"width:{:.2}%\"></i>", 100.0 * count(n) / total),
    };
    let parts = [part("win", counts.wins), part("even", counts.ties), part("loss", counts.losses)].concat();
    format!("<div class=\"bar small\">{parts}</div>")
}

pub(super) fn guardrails(page: &mut String, report: &Report) {
    if report.guardrails.is_empty() {
        return;
    }
    page.push_str(
        "<section><h2>Guardrails of the treatment</h2><div class=\"wide\"><table><thead><tr><th>guardrail</th><th>measured</th>\
         <th>bound</th><th>answers</th><th></th></tr></thead><tbody>",
    );
    for one in &report.guardrails {
        let value = one.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let word = match one.ok {
            Some(true) => "<span class=\"good-text\">holds</span>",
            Some(false) => "<span class=\"bad-text\">broken</span>",
            None => "too few answers",
        };
        add(
            page,
            format_args!(
                "<tr><td>{}</td><td>{value}</td><td>{}</td><td>{}</td><td>{word}</td></tr>",
                Escaped(&one.name),
                one.bound,
                one.n
            ),
        );
    }
    page.push_str("</tbody></table></div></section>\n");
}

pub(super) fn slices(page: &mut String, report: &Report) {
    if report.slices.is_empty() {
        return;
    }
    add(
        page,
        format_args!(
            "<section><h2>Slices, by {}</h2><div class=\"wide\"><table><thead><tr><th>slice</th><th>n</th><th>control</th>\
             <th>treatment</th><th>difference</th><th>95 %</th><th></th><th>won</th><th>tied</th><th>lost</th></tr></thead><tbody>",
            report.primary.title()
        ),
    );
    let digits = report.metric(report.primary).map_or(3, decimals);
    for one in &report.slices {
        let counts = one.outcomes.counts;
        let by = if one.by == "query_type" { "query type" } else { &one.by };
        add(
            page,
            format_args!(
                "<tr><td><span class=\"soft\">{}</span> {}</td><td>{}</td><td>{:.digits$}</td><td>{:.digits$}</td><td><b>{:+.digits$}</b></td>\
                 <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                Escaped(by),
                Escaped(&one.value),
                one.n,
                one.control_mean,
                one.treatment_mean,
                one.difference.mean,
                interval(one.difference.interval, digits),
                small_bar(&one.outcomes),
                counts.wins,
                counts.ties,
                counts.losses
            ),
        );
    }
    page.push_str(
        "</tbody></table></div><p class=\"soft\">Each slice is at one look and none is corrected for the others: a surprise here \
         is a question, not an answer.</p></section>\n",
    );
}

pub(super) fn feedback(page: &mut String, report: &Report) {
    if report.feedback.is_empty() {
        return;
    }
    page.push_str(
        "<section><h2>Feedback</h2><div class=\"wide\"><table><thead><tr><th>arm</th><th>up</th><th>down</th><th>clicks</th>\
         <th>comments</th><th>scores</th><th>mean score</th><th>preferred</th><th>not preferred</th></tr></thead><tbody>",
    );
    for one in &report.feedback {
        let mean = if one.scores == 0 { "-".to_owned() } else { format!("{:.2}", one.mean_score) };
        add(
            page,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{mean}</td><td>{}</td><td>{}</td></tr>",
                Escaped(&one.arm),
                one.up,
                one.down,
                one.clicks,
                one.comments,
                one.scores,
                one.preferred,
                one.not_preferred
            ),
        );
    }
    page.push_str("</tbody></table></div></section>\n");
}
