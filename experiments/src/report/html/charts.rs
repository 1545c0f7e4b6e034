//! Charts as SVG: where a difference lies, and how it came about.

use std::fmt::Write;

use super::super::metric::Better;
use super::super::output::{Measured, TrackPoint};
use crate::bootstrap::Interval;

/// Width and height of the small chart of one difference, in its own units.
const FOREST: (f64, f64) = (240.0, 30.0);
/// The same of the chart over pairs, and its margins: left, top, right, bottom.
const TRACK: (f64, f64) = (720.0, 260.0);
const MARGIN: (f64, f64, f64, f64) = (66.0, 12.0, 18.0, 42.0);

/// One difference on a line through 0 in the middle: thick for one look, thin for every look.
pub(super) fn forest(measured: &Measured) -> String {
    let once = measured.difference.interval;
    let always = measured.sequential.map(|it| it.interval);
    // The thin line may run out of the chart: early on it is as wide as the metric.
    let reach = once.lower.abs().max(once.upper.abs());
    let wide = always.map_or(0.0, |it| it.lower.abs().max(it.upper.abs()));
    let most = (reach.max(wide.min(3.0 * reach)) * 1.1).max(f64::MIN_POSITIVE);
    let (width, height) = FOREST;
    let x = |value: f64| width * (0.5 + 0.5 * (value / most).clamp(-1.0, 1.0));
    let middle = height / 2.0;
    let colour = colour(measured.better, once);
    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg class=\"forest\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"difference {:.4}, between {:.4} and {:.4}\">",
        measured.difference.mean, once.lower, once.upper
    );
    let zero = x(0.0);
    let _ = write!(svg, "<line class=\"zero\" x1=\"{zero:.1}\" x2=\"{zero:.1}\" y1=\"0\" y2=\"{height}\"/>");
    if let Some(always) = always {
        stroke(&mut svg, "always", colour, (x(always.lower), x(always.upper)), middle);
    }
    stroke(&mut svg, "once", colour, (x(once.lower), x(once.upper)), middle);
    let _ = write!(
        svg,
        "<circle class=\"f-{colour}\" cx=\"{:.1}\" cy=\"{middle}\" r=\"5\"/></svg>",
        x(measured.difference.mean)
    );
    svg
}

fn stroke(svg: &mut String, class: &str, colour: &str, (from, to): (f64, f64), y: f64) {
    let _ = write!(svg, "<line class=\"{class} s-{colour}\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y}\" y2=\"{y}\"/>");
}

/// Good where the whole interval is on the better side, bad where it is on the other one.
fn colour(better: Better, interval: Interval) -> &'static str {
    let (above, below) = (interval.lower > 0.0, interval.upper < 0.0);
    match better {
        Better::Higher if above => "good",
        Better::Higher if below => "bad",
        Better::Lower if below => "good",
        Better::Lower if above => "bad",
        _ => "calm",
    }
}

/// The mean difference after each number of pairs, within the band that is valid at every look.
pub(super) fn track(points: &[TrackPoint], title: &str) -> String {
    let Some(last) = points.last() else { return String::new() };
    let (width, height) = TRACK;
    let (left, top, right, bottom) = MARGIN;
    let (low, high) = scale(points);
    let x = |n: f64| left + (width - left - right) * n / as_float(last.n).max(1.0);
    let y = |value: f64| top + (height - top - bottom) * (high - value.clamp(low, high)) / (high - low);
    let mut svg = format!(
        "<svg class=\"track\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}: mean difference over the pairs, at the end {:.4}\">",
        last.mean
    );
    for tick in ticks(low, high) {
        let at = y(tick);
        let class = if tick == 0.0 { "zero" } else { "grid" };
        let _ = write!(
            svg,
            "<line class=\"{class}\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            width - right,
            left - 6.0,
            at + 4.0,
            short(tick)
        );
    }
    for tick in ticks(0.0, as_float(last.n)).into_iter().filter(|tick| *tick > 0.0) {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(tick),
            height - bottom + 20.0,
            short(tick).trim_start_matches('+')
        );
    }
    let edge = |points: &mut dyn Iterator<Item = (u64, f64)>| {
        points.map(|(n, value)| format!("{:.1},{:.1}", x(as_float(n)), y(value))).collect::<Vec<_>>().join(" ")
    };
    let upper = edge(&mut points.iter().map(|point| (point.n, point.interval.upper)));
    let lower = edge(&mut points.iter().rev().map(|point| (point.n, point.interval.lower)));
    let mean = edge(&mut points.iter().map(|point| (point.n, point.mean)));
    let _ = write!(
        svg,
        "<polygon class=\"band\" points=\"{upper} {lower}\"/><polyline class=\"mean\" points=\"{mean}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">pairs</text></svg>",
        0.5 * (left + width - right),
        height - 2.0
    );
    svg
}

/// A range that shows the later part of the band well and always holds 0; the wide beginning may be cut off.
fn scale(points: &[TrackPoint]) -> (f64, f64) {
    let later = &points[points.len() / 8..];
    let low = later.iter().map(|point| point.interval.lower.min(point.mean)).fold(0.0, f64::min);
    let high = later.iter().map(|point| point.interval.upper.max(point.mean)).fold(0.0, f64::max);
    if high > low { (low, high) } else { (-1.0, 1.0) }
}

/// Three to six round numbers within a range.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = high - low;
    if !(span.is_finite() && span > 0.0) {
        return vec![0.0];
    }
    let rough = span / 5.0;
    let power = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|one| one * power).find(|step| *step >= rough).unwrap_or(rough);
    let mut ticks = Vec::new();
    let mut tick = (low / step).ceil();
    while tick * step <= high && ticks.len() < 12 {
        // Not -0
        ticks.push(tick * step + 0.0);
        tick += 1.0;
    }
    ticks
}

/// A number with as few digits as it needs.
fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let decimals = if value.abs() >= 10.0 {
        0
    } else if value.abs() >= 0.1 {
        2
    } else {
        3
    };
    let text = format!("{value:+.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn as_float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 437.0), [0.0, 100.0, 200.0, 300.0, 400.0]);
        let small: Vec<String> = ticks(-0.03, 0.11).into_iter().map(short).collect();
        assert_eq!(small, ["0", "+0.05", "+0.1"]);
        assert_eq!(ticks(1.0, 1.0), [0.0]);
    }

    #[test]
    fn a_colour_needs_the_whole_interval_on_one_side() {
        let above = Interval { lower: 0.1, upper: 0.2 };
        let across = Interval { lower: -0.1, upper: 0.2 };
        assert_eq!((colour(Better::Higher, above), colour(Better::Lower, above)), ("good", "bad"));
        assert_eq!((colour(Better::Higher, across), colour(Better::Neither, above)), ("calm", "calm"));
    }

    #[test]
    fn every_point_of_a_band_has_numbers() {
        let point = |n, mean: f64| TrackPoint { n, mean, interval: Interval { lower: mean - 0.1, upper: mean + 0.1 } };
        let svg = track(&[point(1, 0.4), point(2, 0.2), point(3, 0.1)], "quality");
        assert!(svg.contains("polyline") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(track(&[], "quality"), "");
        let flat = track(&[TrackPoint { n: 1, mean: 0.0, interval: Interval { lower: 0.0, upper: 0.0 } }], "flat");
        assert!(!flat.contains("NaN"), "{flat}");
    }
}
