//! Parquet. Rows are collected by column and written as row groups; a row group ends at a number of rows or of bytes,
//! so that memory is bounded however long the texts are.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{
    Compression, ConvertedType, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel,
};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type};

use super::columns::COLUMNS;
use super::error::ExportError;
use super::manifest::SCHEMA_VERSION;
use super::output::{Encoder, HashedFile};
use super::row::Row;
use super::value::{Column, Kind, Value};

/// Rows of a row group at most.
const GROUP_ROWS: usize = 16_384;
/// Bytes of text in a row group, about.
const GROUP_BYTES: usize = 32 << 20;
/// zstd's own default.
const LEVEL: i32 = 3;

/// The cells of one column in the row group that is being collected.
#[derive(Debug)]
enum Cells {
    Text { bytes: Vec<u8>, ends: Vec<usize> },
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
}

#[derive(Debug)]
struct ColumnCells {
    cells: Cells,
    /// 1 where there is a cell, 0 where it is null.
    levels: Vec<i16>,
}

pub(crate) struct ParquetFile {
    writer: SerializedFileWriter<HashedFile>,
    columns: Vec<ColumnCells>,
    rows: usize,
    bytes: usize,
}

/// # Errors
/// When the table of columns is no schema.
fn schema() -> Result<Type, ExportError> {
    let field = |column: &Column| {
        let (physical, logical, converted) = match column.kind {
            Kind::Word | Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String), ConvertedType::UTF8),
            // marked as plain text: most readers make bytes of what is marked as JSON
            Kind::Json => (Physical::BYTE_ARRAY, Some(LogicalType::String), ConvertedType::UTF8),
            Kind::Int => (Physical::INT64, None, ConvertedType::NONE),
            Kind::Float => (Physical::DOUBLE, None, ConvertedType::NONE),
            Kind::Bool => (Physical::BOOLEAN, None, ConvertedType::NONE),
            Kind::Time => {
                let logical = LogicalType::timestamp(true, TimeUnit::MILLIS);
                (Physical::INT64, Some(logical), ConvertedType::TIMESTAMP_MILLIS)
            }
        };
        let field = Type::primitive_type_builder(column.name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .with_converted_type(converted);
        Ok::<_, ExportError>(Arc::new(field.build()?))
    };
    let fields = COLUMNS.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    Ok(Type::group_type_builder("episode").with_fields(fields).build()?)
}

fn properties() -> Result<WriterProperties, ExportError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(format!("recast {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "recast.schema_version".to_owned(),
            SCHEMA_VERSION.to_string(),
        )]));
    for column in COLUMNS {
        let path = || ColumnPath::from(column.name);
        match column.kind {
            // rows differ in these: a dictionary would be built, hashed and thrown away
            Kind::Text | Kind::Json => {
                properties = properties
                    .set_column_dictionary_enabled(path(), false)
                    .set_column_encoding(path(), Encoding::DELTA_LENGTH_BYTE_ARRAY)
                    .set_column_statistics_enabled(path(), EnabledStatistics::None);
            }
            Kind::Time => {
                properties = properties
                    .set_column_dictionary_enabled(path(), false)
                    .set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED);
            }
            Kind::Word | Kind::Int | Kind::Float | Kind::Bool => {}
        }
    }
    Ok(properties.build())
}

impl ParquetFile {
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn new(file: HashedFile) -> Result<Self, ExportError> {
        let writer = SerializedFileWriter::new(file, Arc::new(schema()?), Arc::new(properties()?))?;
        let cells = |column: &Column| match column.kind {
            Kind::Word | Kind::Text | Kind::Json => Cells::Text { bytes: Vec::new(), ends: Vec::new() },
            Kind::Int | Kind::Time => Cells::Int(Vec::new()),
            Kind::Float => Cells::Float(Vec::new()),
            Kind::Bool => Cells::Bool(Vec::new()),
        };
        let columns = COLUMNS.iter().map(|column| ColumnCells { cells: cells(column), levels: Vec::new() }).collect();
        Ok(Self { writer, columns, rows: 0, bytes: 0 })
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for ColumnCells { cells, levels } in &mut self.columns {
            let Some(mut column) = group.next_column()? else { break };
            let defined = Some(levels.as_slice());
            match (column.untyped(), &mut *cells) {
                (ColumnWriter::ByteArrayColumnWriter(writer), Cells::Text { bytes, ends }) => {
                    let all = Bytes::from(std::mem::take(bytes));
                    let mut start = 0;
                    let texts: Vec<ByteArray> = ends
                        .drain(..)
                        .map(|end| ByteArray::from(all.slice(std::mem::replace(&mut start, end)..end)))
                        .collect();
                    writer.write_batch(&texts, defined, None)?;
                    drop(texts);
                    // the room of this row group serves the next one
                    if let Ok(mut room) = all.try_into_mut() {
                        room.clear();
                        *bytes = room.into();
                    }
                }
                (ColumnWriter::Int64ColumnWriter(writer), Cells::Int(numbers)) => {
                    writer.write_batch(numbers, defined, None)?;
                    numbers.clear();
                }
                (ColumnWriter::DoubleColumnWriter(writer), Cells::Float(numbers)) => {
                    writer.write_batch(numbers, defined, None)?;
                    numbers.clear();
                }
                (ColumnWriter::BoolColumnWriter(writer), Cells::Bool(truths)) => {
                    writer.write_batch(truths, defined, None)?;
                    truths.clear();
                }
                _ => return Err(ExportError::Encode("a column is not of its own type".to_owned())),
            }
            levels.clear();
            column.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl Encoder for ParquetFile {
    fn row(&mut self, row: &Row<'_>) -> Result<(), ExportError> {
        for (column, into) in COLUMNS.iter().zip(&mut self.columns) {
            let level = match ((column.get)(row), &mut into.cells) {
                (Value::Null, _) => 0,
                (Value::Text(text), Cells::Text { bytes, ends }) => {
                    bytes.extend_from_slice(text.as_bytes());
                    ends.push(bytes.len());
                    self.bytes += text.len();
                    1
                }
                (Value::Int(number) | Value::Time(number), Cells::Int(numbers)) => {
                    numbers.push(number);
                    1
                }
                (Value::Float(number), Cells::Float(numbers)) => {
                    numbers.push(number);
                    1
                }
                (Value::Bool(truth), Cells::Bool(truths)) => {
                    truths.push(truth);
                    1
                }
                (value, _) => {
                    return Err(ExportError::Encode(format!("column {} holds {value:?}", column.name)));
                }
            };
            into.levels.push(level);
        }
        self.rows += 1;
        if self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<(HashedFile, u64), ExportError> {
        self.flush()?;
        Ok((self.writer.into_inner()?, 0))
    }
}
