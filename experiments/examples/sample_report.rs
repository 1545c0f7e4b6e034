//! Writes a report of made-up pairs, to look at the page: `cargo run --example sample_report -- PAGE.html`.
#![expect(clippy::print_stdout, reason = "shows the report")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::error::Error;

use recast_experiments::report::{compute, html, text};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let page = arguments.next().ok_or("name the file to write")?;
    let pairs = arguments.next().map_or(Ok(600), |pairs| pairs.parse())?;
    let report = compute(&common::input(pairs, 0.06));
    std::fs::write(page, html(&report))?;
    println!("{}", text(&report));
    Ok(())
}
