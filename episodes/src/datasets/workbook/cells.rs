//! What a cell must be, and how a fault is named.

use std::collections::HashMap;

use serde::Serialize;

use super::sheet::Cell;
use crate::export::letters;

/// Characters of a cell that a fault quotes.
const QUOTED: usize = 40;

/// Something wrong with a cell, or with the header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The row as the spreadsheet numbers it; 1 is the header.
    pub row: u32,
    /// The column's letters; empty where the whole row is meant.
    pub cell: String,
    /// The column's name; empty where the whole row is meant.
    pub column: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.column.as_str() {
            "" => write!(f, "row {}: {}", self.row, self.problem),
            column => write!(f, "row {}, {column} ({}{}): {}", self.row, self.cell, self.row, self.problem),
        }
    }
}

/// The columns that were asked for, by where they stand.
#[derive(Debug)]
pub(super) struct Header {
    places: HashMap<&'static str, usize>,
}

impl Header {
    /// Finds `wanted` in a header; columns that nobody asked for are passed over.
    ///
    /// # Errors
    /// With every column that is missing (and what was found), doubled, or no text.
    pub(super) fn read(row: u32, cells: &[Cell], wanted: &[&'static str]) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut found: Vec<(String, usize)> = Vec::new();
        for (place, cell) in cells.iter().enumerate() {
            let mut fault = |column: &str, problem: String| {
                faults.push(Fault { row, cell: letters(place), column: column.to_owned(), problem });
            };
            match cell {
                Cell::Empty => {}
                Cell::Text(text) => {
                    let name = text.trim();
                    match found.iter().find(|(known, _)| known == name) {
                        Some((_, first)) if wanted.contains(&name) => {
                            fault(
                                name,
                                format!("stands in {} and {}: keep one of them", letters(*first), letters(place)),
                            );
                        }
                        _ => found.push((name.to_owned(), place)),
                    }
                }
                other => fault("header", format!("is {}: write the column's name", what(other))),
            }
        }
        let place = |name: &&'static str| {
            let place = found.iter().find(|(known, _)| known == name).map(|(_, place)| *place);
            place.map(|place| (*name, place))
        };
        let places: HashMap<&'static str, usize> = wanted.iter().filter_map(place).collect();
        let missing: Vec<&str> = wanted.iter().copied().filter(|name| !places.contains_key(name)).collect();
        if !missing.is_empty() {
            let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            let there = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            let problem = format!("the columns {} are missing; found: {there}", missing.join(", "));
            faults.push(Fault { row, cell: String::new(), column: String::new(), problem });
        }
        if faults.is_empty() { Ok(Self { places }) } else { Err(faults) }
    }
}

/// A cell in words.
fn what(cell: &Cell) -> String {
    match cell {
        Cell::Empty => "empty".to_owned(),
        Cell::Text(text) => {
            let start: String = text.chars().take(QUOTED).collect();
            format!("the text {start:?}")
        }
        Cell::Number(number) => format!("the number {number}"),
        Cell::Bool(truth) => format!("{truth}"),
        Cell::Formula => "a formula: paste its value".to_owned(),
        Cell::Error(error) => format!("the error {error}"),
    }
}

/// The cells of one row, read by column, with everything that is wrong with them.
pub(super) struct RowCells<'a> {
    pub row: u32,
    header: &'a Header,
    cells: &'a [Cell],
    pub faults: Vec<Fault>,
}

impl<'a> RowCells<'a> {
    pub(super) fn new(row: u32, header: &'a Header, cells: &'a [Cell]) -> Self {
        Self { row, header, cells, faults: Vec::new() }
    }

    /// Names a fault of a column.
    pub(super) fn fault(&mut self, column: &'static str, problem: impl Into<String>) {
        let cell = self.header.places.get(column).map_or_else(String::new, |place| letters(*place));
        self.faults.push(Fault { row: self.row, cell, column: column.to_owned(), problem: problem.into() });
    }

    /// A column's cell; empty where the row ends before it.
    pub(super) fn cell(&self, column: &str) -> &'a Cell {
        self.header.places.get(column).and_then(|place| self.cells.get(*place)).unwrap_or(&Cell::Empty)
    }

    /// A text of at most `max` characters; `""` where the cell is empty or faulty.
    pub(super) fn text(&mut self, column: &'static str, max: usize) -> &'a str {
        match self.cell(column) {
            Cell::Empty => "",
            Cell::Text(text) => {
                let chars = text.trim().chars().count();
                if chars > max {
                    self.fault(column, format!("has {chars} characters, at most {max} are kept"));
                }
                text
            }
            other => {
                self.fault(column, format!("is {}, text is wanted", what(other)));
                ""
            }
        }
    }

    /// A number of `range`; `None` where the cell is empty or faulty.
    pub(super) fn number(&mut self, column: &'static str, range: (f64, f64)) -> Option<f64> {
        let (least, most) = range;
        match self.cell(column) {
            Cell::Empty => None,
            Cell::Number(number) if (least..=most).contains(number) => Some(*number),
            Cell::Number(number) => {
                self.fault(column, format!("{number} is not from {least} to {most}"));
                None
            }
            Cell::Text(text) if text.trim().parse::<f64>().is_ok() => {
                self.fault(column, format!("is the number {} as text: format the cell as a number", text.trim()));
                None
            }
            other => {
                self.fault(column, format!("is {}, a number is wanted", what(other)));
                None
            }
        }
    }

    /// True or false; `None` where the cell is empty or faulty.
    pub(super) fn truth(&mut self, column: &'static str) -> Option<bool> {
        match self.cell(column) {
            Cell::Empty => None,
            Cell::Bool(truth) => Some(*truth),
            other => {
                self.fault(column, format!("is {}, TRUE or FALSE is wanted", what(other)));
                None
            }
        }
    }

    pub(super) fn is_blank(&self) -> bool {
        self.cells
            .iter()
            .all(|cell| matches!(cell, Cell::Empty) || matches!(cell, Cell::Text(text) if text.trim().is_empty()))
    }
}
