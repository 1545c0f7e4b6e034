//! What a cell can be.

use super::row::Row;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text that few rows differ in: ids of policies, states, names.
    Word,
    /// Text of people and models, and ids.
    Text,
    /// A JSON value; text in every format but JSONL, where it is the value itself.
    Json,
    /// A whole number, 64 bits, signed.
    Int,
    /// A number, 64 bits.
    Float,
    /// True or false.
    Bool,
    /// A time, UTC, to the millisecond.
    Time,
}

impl Kind {
    /// The type as the data dictionary names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Word | Self::Text => "text",
            Self::Json => "JSON",
            Self::Int => "int64",
            Self::Float => "float64",
            Self::Bool => "bool",
            Self::Time => "timestamp",
        }
    }
}

/// A cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// There is nothing to say.
    Null,
    /// Text, or JSON where the column is of that kind.
    Text(&'a str),
    /// A whole number.
    Int(i64),
    /// A number; never infinite, never "not a number".
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Milliseconds since the Unix epoch, UTC.
    Time(i64),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Value<'_> {
    /// Numbers beyond 63 bits do not occur (times, counts); one would be shown as the largest.
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(i64::from(number))
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        if number.is_finite() { Self::Float(number) } else { Self::Null }
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A column: what it is called, what is in it, and how it is read from a row.
#[derive(Debug)]
pub struct Column {
    /// Its name, in every format.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The unit of its numbers; empty where they have none.
    pub unit: &'static str,
    /// What it says.
    pub about: &'static str,
    pub(crate) get: for<'r> fn(&'r Row<'_>) -> Value<'r>,
}

impl Column {
    /// The cell of a row.
    #[must_use]
    pub fn value<'r>(&self, row: &'r Row<'_>) -> Value<'r> {
        (self.get)(row)
    }
}
