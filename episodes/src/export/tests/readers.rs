//! Reads every format back into the same table: column name to cell.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value as Json;

use super::*;

/// A cell as every format can say it; an empty text is nothing, as CSV and workbooks cannot tell the two apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Nothing,
    Text(String),
    Json(Json),
    Int(i64),
    Float(f64),
    Bool(bool),
    Time(i64),
}

pub(super) type Table = Vec<BTreeMap<&'static str, Cell>>;

fn text(kind: Kind, text: &str) -> Cell {
    match kind {
        _ if text.is_empty() => Cell::Nothing,
        Kind::Json => Cell::Json(serde_json::from_str(text).unwrap()),
        Kind::Word | Kind::Text => Cell::Text(text.to_owned()),
        Kind::Int => Cell::Int(text.parse().unwrap()),
        Kind::Float => Cell::Float(text.parse().unwrap()),
        Kind::Bool => Cell::Bool(matches!(text, "true" | "1")),
        Kind::Time => Cell::Time(text.parse::<jiff::Timestamp>().unwrap().as_millisecond()),
    }
}

/// All rows of the files, in the order of the manifest.
pub(super) fn table(folder: &Path, manifest: &Manifest) -> Table {
    let mut rows = Table::new();
    for file in &manifest.files {
        let path = folder.join(&file.path);
        let some = match manifest.format {
            Format::Jsonl => jsonl(&path),
            Format::Csv => csv(&path),
            Format::Parquet => parquet(&path),
            Format::Xlsx => xlsx(&path),
        };
        assert_eq!(some.len() as u64, file.rows, "{}", file.path);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), file.bytes);
        rows.extend(some);
    }
    assert_eq!(rows.len() as u64, manifest.rows);
    rows
}

fn jsonl(path: &Path) -> Table {
    let file = std::fs::read_to_string(path).unwrap();
    file.lines()
        .map(|line| {
            let row: serde_json::Map<String, Json> = serde_json::from_str(line).unwrap();
            let names: Vec<&str> = row.keys().map(String::as_str).collect();
            assert_eq!(names, COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>());
            let cell = |column: &Column| match (&row[column.name], column.kind) {
                (Json::Null, _) => Cell::Nothing,
                (json, Kind::Json) => Cell::Json(json.clone()),
                (Json::String(found), kind) => text(kind, found),
                (Json::Bool(truth), Kind::Bool) => Cell::Bool(*truth),
                (number, Kind::Int) => Cell::Int(number.as_i64().unwrap()),
                (number, Kind::Float) => Cell::Float(number.as_f64().unwrap()),
                (other, kind) => panic!("{}: {other} is no {kind:?}", column.name),
            };
            COLUMNS.iter().map(|column| (column.name, cell(column))).collect()
        })
        .collect()
}

fn csv(path: &Path) -> Table {
    let file = std::fs::read(path).unwrap();
    let text_of = file.strip_prefix("\u{feff}".as_bytes()).expect("a byte order mark");
    let mut reader = ::csv::Reader::from_reader(text_of);
    let head: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(head, COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>());
    reader
        .records()
        .map(|record| {
            let record = record.unwrap();
            let cell = |(column, found): (&Column, &str)| {
                let safe = !csv_file::is_formula(found) || matches!(column.kind, Kind::Int | Kind::Float);
                assert!(safe, "{}: {found:?} could run", column.name);
                let plain = found.strip_prefix('\'').filter(|rest| csv_file::is_formula(rest)).unwrap_or(found);
                (column.name, text(column.kind, plain))
            };
            COLUMNS.iter().zip(record.iter()).map(|(column, found)| cell((column, found))).collect()
        })
        .collect()
}

fn parquet(path: &Path) -> Table {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let row = row.unwrap();
            let fields: Vec<(String, Field)> = row.into_columns();
            assert_eq!(fields.len(), COLUMNS.len());
            let cell = |(column, (name, field)): (&Column, (String, Field))| {
                assert_eq!(column.name, name);
                let cell = match field {
                    Field::Null => Cell::Nothing,
                    Field::Str(found) => text(column.kind, &found),
                    Field::Long(number) => Cell::Int(number),
                    Field::Double(number) => Cell::Float(number),
                    Field::Bool(truth) => Cell::Bool(truth),
                    Field::TimestampMillis(ms) => Cell::Time(ms),
                    other => panic!("{name}: {other:?}"),
                };
                (column.name, cell)
            };
            COLUMNS.iter().zip(fields).map(cell).collect()
        })
        .collect()
}

/// The sheet of a workbook, by the directory at its end.
fn sheet(path: &Path) -> String {
    let file = std::fs::read(path).unwrap();
    let number = |at: usize, length: usize| {
        file[at..at + length].iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let end = file.len() - 22;
    assert_eq!(&file[end..end + 4], b"PK\x05\x06");
    let mut at = number(end + 16, 4);
    for _ in 0..number(end + 10, 2) {
        assert_eq!(&file[at..at + 4], b"PK\x01\x02");
        let (name_length, packed, offset) = (number(at + 28, 2), number(at + 20, 4), number(at + 42, 4));
        if file[at + 46..at + 46 + name_length] == *b"xl/worksheets/sheet1.xml" {
            let start = offset + 30 + number(offset + 26, 2) + number(offset + 28, 2);
            let mut xml = String::new();
            flate2::read::DeflateDecoder::new(&file[start..start + packed]).read_to_string(&mut xml).unwrap();
            assert_eq!(xml.len(), number(at + 24, 4));
            let mut crc = flate2::Crc::new();
            crc.update(xml.as_bytes());
            assert_eq!(crc.sum() as usize, number(at + 16, 4));
            return xml;
        }
        at += 46 + name_length + number(at + 30, 2) + number(at + 32, 2);
    }
    panic!("no sheet");
}

fn unescape(xml: &str) -> String {
    let mut text = String::new();
    let mut rest = xml;
    while let Some(at) = rest.find("_x") {
        text.push_str(&rest[..at]);
        let code =
            rest.get(at + 2..at + 6).and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
        match (code, rest.as_bytes().get(at + 6)) {
            (Some(letter), Some(b'_')) => {
                text.push(letter);
                rest = &rest[at + 7..];
            }
            _ => {
                text.push_str("_x");
                rest = &rest[at + 2..];
            }
        }
    }
    text.push_str(rest);
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

fn xlsx(path: &Path) -> Table {
    let xml = sheet(path);
    assert!(!xml.contains("<f>"), "a cell is a formula");
    let body = xml.split_once("<sheetData>").unwrap().1.split_once("</sheetData>").unwrap().0;
    let rows = body.split("<row r=\"").skip(2);
    rows.map(|row| {
        let mut cells: BTreeMap<&'static str, Cell> =
            COLUMNS.iter().map(|column| (column.name, Cell::Nothing)).collect();
        for cell in row.split("<c r=\"").skip(1) {
            let letters = cell.split(|letter: char| letter.is_ascii_digit()).next().unwrap();
            let index = letters.bytes().fold(0, |number, letter| number * 26 + usize::from(letter - b'A') + 1) - 1;
            let column = &COLUMNS[index];
            let inner = |tag: &str, end: &str| Some(cell.split_once(tag)?.1.split_once(end)?.0.to_owned());
            let found = match inner("<t xml:space=\"preserve\">", "</t>") {
                Some(found) => text(column.kind, &unescape(&found)),
                None => {
                    let value = inner("<v>", "</v>").unwrap();
                    match column.kind {
                        Kind::Time => {
                            let days: f64 = value.parse().unwrap();
                            Cell::Time(((days - 25_569.0) * 86_400_000.0).round() as i64)
                        }
                        kind => text(kind, &value),
                    }
                }
            };
            cells.insert(column.name, found);
        }
        cells
    })
    .collect()
}
