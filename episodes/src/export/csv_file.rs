//! CSV that a spreadsheet opens right: a byte order mark, quotes by RFC 4180, and no cell that could be a formula.

use std::io::Write;

use super::columns::COLUMNS;
use super::error::ExportError;
use super::output::{Encoder, HashedFile};
use super::row::Row;
use super::time::push_time;
use super::value::Value;

pub(crate) struct CsvFile {
    writer: csv::Writer<HashedFile>,
    cell: Vec<u8>,
}

impl CsvFile {
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn new(mut file: HashedFile) -> Result<Self, ExportError> {
        // without it, Excel reads UTF-8 as the code page of the country
        file.write_all("\u{feff}".as_bytes())?;
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(file);
        writer.write_record(COLUMNS.iter().map(|column| column.name))?;
        Ok(Self { writer, cell: Vec::with_capacity(256) })
    }
}

impl Encoder for CsvFile {
    fn row(&mut self, row: &Row<'_>) -> Result<(), ExportError> {
        for column in COLUMNS {
            self.cell.clear();
            let field: &[u8] = match (column.get)(row) {
                Value::Null => b"",
                Value::Text(text) if is_formula(text) => {
                    self.cell.push(b'\'');
                    self.cell.extend_from_slice(text.as_bytes());
                    &self.cell
                }
                Value::Text(text) => text.as_bytes(),
                Value::Int(number) => {
                    serde_json::to_writer(&mut self.cell, &number)?;
                    &self.cell
                }
                Value::Float(number) => {
                    serde_json::to_writer(&mut self.cell, &number)?;
                    &self.cell
                }
                Value::Bool(true) => b"true",
                Value::Bool(false) => b"false",
                Value::Time(ms) => {
                    let mut text = String::with_capacity(24);
                    push_time(&mut text, ms);
                    self.cell.extend_from_slice(text.as_bytes());
                    &self.cell
                }
            };
            self.writer.write_field(field)?;
        }
        // ends the record
        Ok(self.writer.write_record(None::<&[u8]>)?)
    }

    fn finish(self: Box<Self>) -> Result<(HashedFile, u64), ExportError> {
        let file = self.writer.into_inner().map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok((file, 0))
    }
}

/// Whether a spreadsheet could take a text for a formula: it begins with one of `= + - @`, also in full width or behind
/// white space, or with a tab or a carriage return. Such a cell gets a `'` in front; quotes alone do not help.
pub(crate) fn is_formula(text: &str) -> bool {
    text.starts_with(['\t', '\r'])
        || text.trim_start().starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
}

#[cfg(test)]
mod tests {
    use super::is_formula;

    #[test]
    fn what_could_run_is_marked_and_nothing_else() {
        for text in
            ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r", "  =1", "\n=1", "＝1", "－1", "\u{3000}@x"]
        {
            assert!(is_formula(text), "{text:?}");
        }
        for text in ["", "a=b", "孕妇能喝吗", "1-2", "'=1", "[]", "\n", " x"] {
            assert!(!is_formula(text), "{text:?}");
        }
    }
}
