//! What is bound to a statement, and what is read from a row.

use rusqlite::types::{ToSqlOutput, ValueRef};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};

use super::{Error, Result};

/// A value to bind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Null,
    Number(i64),
    Real(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<usize> for Value<'_> {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Number(i64::from(flag))
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Number(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Value<'_> {
    /// The type of the parameter on a server; a null is of the type of its column.
    pub(crate) fn server_type(&self) -> Type {
        match self {
            Self::Null => Type::UNKNOWN,
            Self::Number(_) => Type::INT8,
            Self::Real(_) => Type::FLOAT8,
            Self::Text(_) => Type::TEXT,
            Self::Bytes(_) => Type::BYTEA,
        }
    }
}

type Encoded = std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

impl ToSql for Value<'_> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Encoded {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Number(number) => number.to_sql(of, out),
            Self::Real(number) => number.to_sql(of, out),
            // a text of PostgreSQL holds every character but this one
            Self::Text(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").as_str().to_sql(of, out),
            Self::Text(text) => text.to_sql(of, out),
            Self::Bytes(bytes) => bytes.to_sql(of, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // the statement was prepared for the types of its values
        true
    }

    fn to_sql_checked(&self, of: &Type, out: &mut BytesMut) -> Encoded {
        self.to_sql(of, out)
    }
}

/// A statement that is put together from fixed parts; whatever a caller gives is bound.
#[derive(Debug, Clone)]
pub(crate) struct Query<'a> {
    /// The statement so far.
    pub sql: String,
    /// What is bound to `?1`, `?2` and so on.
    pub values: Vec<Value<'a>>,
}

impl<'a> Query<'a> {
    /// Begins with `sql`, to which `values` are bound.
    pub(crate) fn new(sql: &str, values: Vec<Value<'a>>) -> Self {
        Self { sql: sql.to_owned(), values }
    }

    /// Goes on with `sql`; each `?` in it stands for the next of `values`.
    pub(crate) fn push<const N: usize>(&mut self, sql: &str, values: [Value<'a>; N]) {
        let mut number = self.values.len();
        for part in sql.split_inclusive('?') {
            self.sql.push_str(part);
            if part.ends_with('?') {
                number += 1;
                self.sql.push_str(&number.to_string());
            }
        }
        self.values.extend(values);
    }
}

/// A row, as long as it lies in the memory of its connection.
#[derive(Clone, Copy)]
pub(crate) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r tokio_postgres::Row),
}

impl<'r> Row<'r> {
    /// The value of a column, from 0 on.
    ///
    /// # Errors
    /// When it is of another kind.
    pub(crate) fn get<T: Cell<'r>>(self, column: usize) -> Result<T> {
        match self {
            Self::Sqlite(row) => T::of_sqlite(row, column),
            Self::Postgres(row) => T::of_postgres(row, column),
        }
    }
}

/// What a column can be read as.
pub(crate) trait Cell<'r>: Sized {
    fn of_sqlite(row: &'r rusqlite::Row<'r>, column: usize) -> Result<Self>;
    fn of_postgres(row: &'r tokio_postgres::Row, column: usize) -> Result<Self>;
}

macro_rules! as_it_is {
    ($($type:ty),*) => {$(
        impl<'r> Cell<'r> for $type {
            fn of_sqlite(row: &'r rusqlite::Row<'r>, column: usize) -> Result<Self> {
                Ok(row.get(column)?)
            }

            fn of_postgres(row: &'r tokio_postgres::Row, column: usize) -> Result<Self> {
                Ok(row.try_get(column)?)
            }
        }
    )*};
}

as_it_is!(i64, f64, String, Option<i64>, Option<String>);

impl<'r> Cell<'r> for u32 {
    fn of_sqlite(row: &'r rusqlite::Row<'r>, column: usize) -> Result<Self> {
        Ok(row.get(column)?)
    }

    fn of_postgres(row: &'r tokio_postgres::Row, column: usize) -> Result<Self> {
        let number: i64 = row.try_get(column)?;
        Self::try_from(number).map_err(|_| Error::cell(column, format!("{number} is out of range")))
    }
}

impl<'r> Cell<'r> for bool {
    fn of_sqlite(row: &'r rusqlite::Row<'r>, column: usize) -> Result<Self> {
        Ok(row.get(column)?)
    }

    fn of_postgres(row: &'r tokio_postgres::Row, column: usize) -> Result<Self> {
        Ok(row.try_get::<_, i64>(column)? != 0)
    }
}

impl<'r, const N: usize> Cell<'r> for [u8; N] {
    fn of_sqlite(row: &'r rusqlite::Row<'r>, column: usize) -> Result<Self> {
        Ok(row.get(column)?)
    }

    fn of_postgres(row: &'r tokio_postgres::Row, column: usize) -> Result<Self> {
        let bytes: &[u8] = row.try_get(column)?;
        bytes.try_into().map_err(|_| Error::cell(column, format!("{} bytes instead of {N}", bytes.len())))
    }
}

/// A text that is left where it lies, or what is wrong with it.
pub(crate) struct Text<'r>(pub std::result::Result<&'r str, String>);

impl<'r> Cell<'r> for Text<'r> {
    fn of_sqlite(row: &'r rusqlite::Row<'r>, column: usize) -> Result<Self> {
        Ok(Self(match row.get_ref(column)? {
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).map_err(|error| error.to_string()),
            _ => Err("it is no text".to_owned()),
        }))
    }

    fn of_postgres(row: &'r tokio_postgres::Row, column: usize) -> Result<Self> {
        Ok(Self(Ok(row.try_get(column)?)))
    }
}
