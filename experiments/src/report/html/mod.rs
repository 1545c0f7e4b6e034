//! The report as one page that stands alone: no script, no font, no picture from elsewhere.

mod charts;
mod escape;
mod parts;
mod style;
mod tables;

use std::fmt::Write;

pub use self::escape::Escaped;
use self::style::STYLE;
use super::output::Report;

/// The report as a page of HTML. All text of people in it is escaped; it needs nothing from the network.
#[must_use]
pub fn html(report: &Report) -> String {
    let title = format!("{}: {}", report.experiment, report.decision.verdict.words());
    let mut page = head(&title);
    parts::headline(&mut page, report);
    tables::metrics(&mut page, report);
    parts::track(&mut page, report);
    parts::interleaving(&mut page, report);
    tables::outcomes(&mut page, report);
    parts::accounting(&mut page, report);
    tables::guardrails(&mut page, report);
    tables::slices(&mut page, report);
    tables::feedback(&mut page, report);
    parts::examples(&mut page, report);
    parts::notes(&mut page, report);
    page.push_str(FOOT);
    page
}

/// A page that stands alone and looks like the report, around a body of finished HTML; the title is escaped here.
#[must_use]
pub fn page(title: &str, body: &str) -> String {
    let mut page = head(title);
    page.push_str(body);
    page.push_str(FOOT);
    page
}

const FOOT: &str = "</main>\n</body>\n</html>\n";

fn head(title: &str) -> String {
    let mut page = String::with_capacity(64 << 10);
    // The policy holds even where a text got through: nothing is loaded or run.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n",
        Escaped(title)
    );
    page
}

/// Adds formatted text to the page; writing to a string cannot fail.
fn add(page: &mut String, arguments: std::fmt::Arguments) {
    let _ = page.write_fmt(arguments);
}
