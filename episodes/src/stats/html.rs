//! The numbers as a page that stands alone, in the style of the experiments' reports.

use std::fmt::Write;

use recast_experiments::report::{Escaped, page};

use super::text::{counts, pairs, percent};
use super::{Day, Stats};

/// Width and height of the chart by day, in its own units.
const CHART: (f64, f64) = (720.0, 200.0);
/// Room for the numbers on the left and the days below.
const MARGIN: (f64, f64) = (52.0, 24.0);
/// Days that are labelled, about.
const LABELS: usize = 8;

impl Stats {
    /// The numbers as a page of HTML. All text of people in it is escaped; it needs nothing from the network.
    #[must_use]
    pub fn html(&self) -> String {
        let mut body = String::with_capacity(32 << 10);
        self.headline(&mut body);
        self.by_day(&mut body);
        self.latencies(&mut body);
        self.origins(&mut body);
        self.failures(&mut body);
        page("Episodes", &body)
    }

    fn headline(&self, body: &mut String) {
        let n = self.total;
        let tenants: Vec<&str> = self.tenants.iter().map(|tenant| tenant.as_str()).collect();
        // writing to a string cannot fail
        let _ = write!(
            body,
            "<h1>Episodes of <b>{}</b>, counted {}</h1>\n<section class=\"verdict calm\"><div class=\"word\">{} \
             episodes</div><p>{}.</p>\n<p class=\"soft\">{}</p>\n<div class=\"tiles\">",
            Escaped(&tenants.join(", ")),
            Escaped(&self.taken_at),
            n.episodes,
            Escaped(&counts(&n)),
            Escaped(&pairs(self))
        );
        let mut tiles = vec![
            (format!("{:.1} %", percent(n.degraded, n.episodes)), "degraded".to_owned()),
            (format!("{:.1} %", percent(n.empty, n.episodes)), "without a hit".to_owned()),
            (format!("{} / {}", n.thumbs_up, n.thumbs_down), "with a thumb up / down".to_owned()),
        ];
        if let Some(total) = self.latency.iter().find(|stage| stage.stage == "total") {
            tiles.push((
                format!("{:.0} ms", total.p95_ms),
                format!("95 of 100 took at most, half {:.0} ms", total.p50_ms),
            ));
        }
        if let (Some(rate), Some((lower, upper))) = (self.pairs.win_rate, self.pairs.interval) {
            let what = format!(
                "win rate of the paired rewrite, {:.0} to {:.0} %, ties left out",
                100.0 * lower,
                100.0 * upper
            );
            tiles.push((format!("{:.0} %", 100.0 * rate), what));
        }
        if self.unreadable > 0 {
            tiles.push((self.unreadable.to_string(), "could not be read".to_owned()));
        }
        for (figure, what) in tiles {
            let _ =
                write!(body, "<div class=\"tile\"><b>{}</b><span>{}</span></div>", Escaped(&figure), Escaped(&what));
        }
        body.push_str("</div></section>\n");
    }

    fn by_day(&self, body: &mut String) {
        if self.days.is_empty() {
            return;
        }
        let _ = writeln!(
            body,
            "<section><h2>By day</h2><figure>{}<figcaption>Episodes a day (UTC); the darker part at the foot is \
             degraded.</figcaption></figure></section>",
            chart(&self.days)
        );
    }

    fn latencies(&self, body: &mut String) {
        let rows = self.latency.iter().map(|stage| {
            vec![
                stage.stage.to_owned(),
                stage.episodes.to_string(),
                format!("{:.1}", stage.p50_ms),
                format!("{:.1}", stage.p95_ms),
                format!("{:.1}", stage.p99_ms),
            ]
        });
        table(body, "Latency by stage", &["stage", "episodes", "p50 ms", "p95 ms", "p99 ms"], rows);
    }

    fn origins(&self, body: &mut String) {
        let share = |n: u64| format!("{:.1}", percent(n, self.total.episodes));
        let rows = |names: &[super::Named]| -> Vec<Vec<String>> {
            names.iter().map(|one| vec![one.name.clone(), one.episodes.to_string(), share(one.episodes)]).collect()
        };
        table(body, "Who wrote the query", &["source", "episodes", "%"], rows(&self.sources).into_iter());
        table(
            body,
            "Stages that failed or were late",
            &["stage", "episodes", "%"],
            rows(&self.degradations).into_iter(),
        );
    }

    fn failures(&self, body: &mut String) {
        let rows = self.failing.iter().map(|one| {
            let numbers = [one.failed, one.empty, one.degraded, one.thumbs_down].map(|n| n.to_string());
            let mut row = vec![one.query.clone(), one.tenant.to_string()];
            row.extend(numbers);
            row
        });
        let heads = ["query", "tenant", "wrong", "empty", "degraded", "thumbs down"];
        table(body, "Queries that went wrong most often", &heads, rows);
        if self.failing_others > 0 {
            let _ = write!(
                body,
                "<p class=\"soft\">{} more episodes went wrong with queries that are not counted one by one.</p>",
                self.failing_others
            );
        }
    }
}

/// A table, where there is a row.
fn table(body: &mut String, title: &str, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = write!(body, "<section><h2>{}</h2><div class=\"wide\"><table><tr>", Escaped(title));
    for head in heads {
        let _ = write!(body, "<th>{}</th>", Escaped(head));
    }
    body.push_str("</tr>");
    for row in rows {
        body.push_str("<tr>");
        for cell in &row {
            let _ = write!(body, "<td>{}</td>", Escaped(cell));
        }
        body.push_str("</tr>");
    }
    body.push_str("</table></div></section>\n");
}

/// A bar a day.
fn chart(days: &[Day]) -> String {
    let ((width, height), (left, foot)) = (CHART, MARGIN);
    let most = days.iter().map(|day| day.counts.episodes).max().unwrap_or(0).max(1);
    let step = (width - left) / days.len() as f64;
    let tall = |n: u64| (height - foot - 8.0) * n as f64 / most as f64;
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"episodes a day\">");
    let ground = height - foot;
    let _ = write!(
        svg,
        "<line class=\"grid\" x1=\"{left}\" x2=\"{width}\" y1=\"8\" y2=\"8\"/><text x=\"{:.0}\" y=\"12\" \
         text-anchor=\"end\">{most}</text><line class=\"grid\" x1=\"{left}\" x2=\"{width}\" y1=\"{ground}\" y2=\"{ground}\"/>\
         <text x=\"{:.0}\" y=\"{ground}\" text-anchor=\"end\">0</text>",
        left - 6.0,
        left - 6.0
    );
    let every = days.len().div_ceil(LABELS).max(1);
    for (index, day) in days.iter().enumerate() {
        let x = left + step * index as f64;
        let (all, bad) = (tall(day.counts.episodes), tall(day.counts.degraded));
        let _ = write!(
            svg,
            "<g><title>{}: {}</title><rect class=\"f-calm\" x=\"{x:.1}\" width=\"{:.1}\" y=\"{:.1}\" height=\"{all:.1}\"/>\
             <rect class=\"f-bad\" x=\"{x:.1}\" width=\"{:.1}\" y=\"{:.1}\" height=\"{bad:.1}\"/></g>",
            Escaped(&day.date),
            Escaped(&counts(&day.counts)),
            step * 0.8,
            ground - all,
            step * 0.8,
            ground - bad
        );
        if index % every == 0 {
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{:.0}\">{}</text>", height - 6.0, Escaped(&day.date));
        }
    }
    svg.push_str("</svg>");
    svg
}
