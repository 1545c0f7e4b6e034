//! JSON lines: every column is a key of every line, so that each line says the same as the others.

use std::io::Write;
use std::sync::LazyLock;

use super::columns::COLUMNS;
use super::error::ExportError;
use super::output::{Encoder, HashedFile};
use super::row::Row;
use super::time::push_time;
use super::value::{Column, Kind, Value};

pub(crate) struct JsonLines {
    file: HashedFile,
    line: Vec<u8>,
}

impl JsonLines {
    pub(crate) fn new(file: HashedFile) -> Self {
        Self { file, line: Vec::with_capacity(8 << 10) }
    }
}

impl Encoder for JsonLines {
    fn row(&mut self, row: &Row<'_>) -> Result<(), ExportError> {
        self.line.clear();
        push_line(&mut self.line, row)?;
        Ok(self.file.write_all(&self.line)?)
    }

    fn finish(self: Box<Self>) -> Result<(HashedFile, u64), ExportError> {
        Ok((self.file, 0))
    }
}

/// What stands before each value: `{"episode_id":`, then `,"tenant_id":` and so on.
static KEYS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let before = |at: usize| if at == 0 { '{' } else { ',' };
    let key = |(at, column): (usize, &Column)| format!("{}\"{}\":", before(at), column.name).into_bytes();
    COLUMNS.iter().enumerate().map(key).collect()
});

/// Appends a row as one line.
///
/// # Errors
/// Never in practice: only the serializer's type asks for it.
pub(crate) fn push_line(line: &mut Vec<u8>, row: &Row<'_>) -> Result<(), ExportError> {
    for (column, key) in COLUMNS.iter().zip(KEYS.iter()) {
        line.extend_from_slice(key);
        match (column.get)(row) {
            Value::Null => line.extend_from_slice(b"null"),
            Value::Text(json) if column.kind == Kind::Json => push_json(line, json),
            Value::Text(text) => serde_json::to_writer(&mut *line, text)?,
            Value::Int(number) => serde_json::to_writer(&mut *line, &number)?,
            Value::Float(number) => serde_json::to_writer(&mut *line, &number)?,
            Value::Bool(truth) => line.extend_from_slice(if truth { b"true" } else { b"false" }),
            Value::Time(ms) => {
                let mut text = String::with_capacity(24);
                push_time(&mut text, ms);
                line.push(b'"');
                line.extend_from_slice(text.as_bytes());
                line.push(b'"');
            }
        }
    }
    line.extend_from_slice(b"}\n");
    Ok(())
}

/// A value is one value on one line: a line break outside of texts is white space, and within them JSON has none.
fn push_json(line: &mut Vec<u8>, json: &str) {
    let start = line.len();
    line.extend_from_slice(json.as_bytes());
    // searched as bytes, which is many times faster than as characters
    if json.as_bytes().contains(&b'\n') || json.as_bytes().contains(&b'\r') {
        line[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    }
}
