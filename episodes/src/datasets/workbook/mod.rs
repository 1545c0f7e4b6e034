//! The workbook of a batch run (`test_sft.xlsx`): written row by row, and read back with every fault named.

mod cells;
mod import;
mod questions;
mod sheet;
mod write;
mod zip;

#[cfg(test)]
mod tests;

pub use cells::Fault;
pub use import::{Imported, import};
pub use questions::{Question, read_questions};
pub use sheet::Cell;
pub use write::{BatchRow, COLUMNS, WorkbookWriter};
