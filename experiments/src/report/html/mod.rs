//! The report as one page that stands alone.

use super::output::Report;

/// The page.
#[must_use]
pub fn html(report: &Report) -> String {
    format!("<!doctype html><title>{}</title>", report.experiment.len())
}
