//! What an experiment found: computed once from the stored pairs, shown as text, JSON or a page.
//!
//! Nothing here reads a clock or a store. [`compute`] is the same for the same input, to the last bit, because its
//! resamples come from the experiment's own salt and id.

mod compute;
mod examples;
mod html;
mod input;
mod measure;
mod metric;
mod output;
mod slices;
mod split;
mod text;
mod track;

pub use compute::compute;
pub use html::{Escaped, html, page};
pub use input::{
    Accounting, ArmFacts, ArmFeedback, Credited, HitFacts, LabelFacts, Looks, Pair, ReportInput, Single, Units,
};
pub use metric::{Better, Metric};
pub use output::{
    Counted, Decision, Example, Measured, Report, Sequential, Slice, TrackPoint, UnitRatio, Verdict, Wins, WinsBasis,
};
pub use text::text;
