//! The first sheet of a workbook, row by row, with what a cell is kept apart from what it shows.

use std::io::BufRead;
use std::path::Path;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::zip::Archive;

/// Columns that a sheet can have.
const COLUMNS_MAX: usize = 16_384;

/// What a cell is.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing.
    Empty,
    /// Text; also a number that is stored as one.
    Text(String),
    /// A number.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// A formula, whatever it came to.
    Formula,
    /// An error such as `#N/A`.
    Error(String),
}

/// Shows the rows of the first sheet to `visit`: the row's number, from 1, and its cells by column, from 0. Rows without
/// a cell are not shown.
///
/// # Errors
/// With what is wrong with the file.
pub(super) fn rows(path: &Path, mut visit: impl FnMut(u32, &[Cell]) -> Result<(), String>) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let archive = Archive::open(bytes)?;
    let shared = if archive.has("xl/sharedStrings.xml") {
        shared_strings(archive.member("xl/sharedStrings.xml")?)?
    } else {
        Vec::new()
    };
    let mut reader = Reader::from_reader(archive.member(&first_sheet(&archive)?)?);
    let (mut buffer, mut cells, mut number) = (Vec::new(), Vec::new(), 0);
    loop {
        match next(&mut reader, &mut buffer)? {
            Event::Eof => return Ok(()),
            Event::Start(tag) if tag.local_name().as_ref() == b"row" => {
                let given = attribute(&tag, b"r").and_then(|text| text.parse().ok());
                number = given.unwrap_or(number + 1);
                cells.clear();
            }
            Event::Start(tag) if tag.local_name().as_ref() == b"c" => {
                let head = Head::of(&tag, cells.len());
                let cell = read_cell(&mut reader, &head.kind, &shared)?;
                if cell != Cell::Empty && head.column < COLUMNS_MAX {
                    cells.resize(cells.len().max(head.column + 1), Cell::Empty);
                    cells[head.column] = cell;
                }
            }
            Event::End(tag) if tag.local_name().as_ref() == b"row" && !cells.is_empty() => visit(number, &cells)?,
            _ => {}
        }
        buffer.clear();
    }
}

fn next<'b, R: BufRead>(reader: &mut Reader<R>, buffer: &'b mut Vec<u8>) -> Result<Event<'b>, String> {
    reader.read_event_into(buffer).map_err(|error| format!("is damaged: {error}"))
}

fn attribute(tag: &BytesStart<'_>, name: &[u8]) -> Option<String> {
    let found = tag.attributes().flatten().find(|attribute| attribute.key.local_name().as_ref() == name)?;
    let text = String::from_utf8_lossy(&found.value).into_owned();
    Some(text)
}

/// Where the first sheet lies in the archive.
fn first_sheet(archive: &Archive) -> Result<String, String> {
    let find = |member: &str,
                tag: &[u8],
                wanted: &dyn Fn(&BytesStart<'_>) -> Option<String>|
     -> Result<Option<String>, String> {
        let mut reader = Reader::from_reader(archive.member(member)?);
        let mut buffer = Vec::new();
        loop {
            match next(&mut reader, &mut buffer)? {
                Event::Eof => return Ok(None),
                Event::Start(start) | Event::Empty(start) if start.local_name().as_ref() == tag => {
                    if let Some(found) = wanted(&start) {
                        return Ok(Some(found));
                    }
                }
                _ => {}
            }
            buffer.clear();
        }
    };
    // the relation's id has a prefix of its own, unlike the sheet's
    let relation = |tag: &BytesStart<'_>| {
        let mut attributes = tag.attributes().flatten();
        let found = attributes.find(|one| one.key.as_ref().ends_with(b":id"))?;
        Some(String::from_utf8_lossy(&found.value).into_owned())
    };
    let id = find("xl/workbook.xml", b"sheet", &relation)?.ok_or("has no sheet")?;
    let target =
        |tag: &BytesStart<'_>| attribute(tag, b"Target").filter(|_| attribute(tag, b"Id").as_ref() == Some(&id));
    let target = find("xl/_rels/workbook.xml.rels", b"Relationship", &target)?.ok_or("has no sheet")?;
    Ok(match target.strip_prefix('/') {
        Some(whole) => whole.to_owned(),
        None => format!("xl/{target}"),
    })
}

/// The texts that cells refer to by number; runs of rich text are joined, reading aids are left out.
fn shared_strings(member: impl BufRead) -> Result<Vec<String>, String> {
    let mut reader = Reader::from_reader(member);
    let (mut buffer, mut texts) = (Vec::new(), Vec::new());
    loop {
        match next(&mut reader, &mut buffer)? {
            Event::Eof => return Ok(texts),
            Event::Start(tag) if tag.local_name().as_ref() == b"si" => texts.push(rich_text(&mut reader, b"si")?),
            Event::Empty(tag) if tag.local_name().as_ref() == b"si" => texts.push(String::new()),
            _ => {}
        }
        buffer.clear();
    }
}

/// The text up to the end of `outer`.
fn rich_text<R: BufRead>(reader: &mut Reader<R>, outer: &[u8]) -> Result<String, String> {
    let (mut buffer, mut text, mut in_text, mut in_aid) = (Vec::new(), String::new(), false, false);
    loop {
        match next(reader, &mut buffer)? {
            Event::Eof => return Err("is damaged: a text does not end".to_owned()),
            Event::End(tag) if tag.local_name().as_ref() == outer => return Ok(unescaped(&text)),
            Event::Start(tag) => match tag.local_name().as_ref() {
                b"t" => in_text = true,
                b"rPh" => in_aid = true,
                _ => {}
            },
            Event::End(tag) => match tag.local_name().as_ref() {
                b"t" => in_text = false,
                b"rPh" => in_aid = false,
                _ => {}
            },
            other if in_text && !in_aid => push_text(&mut text, &other)?,
            _ => {}
        }
        buffer.clear();
    }
}

/// Appends what an event says: text, CDATA, or a reference such as `&amp;`.
fn push_text(text: &mut String, event: &Event<'_>) -> Result<(), String> {
    let damaged = |error: &dyn std::fmt::Display| format!("is damaged: {error}");
    match event {
        Event::Text(words) => text.push_str(&words.xml10_content().map_err(|error| damaged(&error))?),
        Event::CData(words) => text.push_str(&words.decode().map_err(|error| damaged(&error))?),
        Event::GeneralRef(reference) => {
            if let Some(letter) = reference.resolve_char_ref().map_err(|error| damaged(&error))? {
                text.push(letter);
            } else {
                let name = reference.decode().map_err(|error| damaged(&error))?;
                let known = quick_xml::escape::resolve_predefined_entity(&name);
                text.push_str(known.ok_or_else(|| format!("is damaged: &{name}; is unknown"))?);
            }
        }
        _ => {}
    }
    Ok(())
}

/// A cell's place and type.
struct Head {
    column: usize,
    kind: String,
}

impl Head {
    fn of(tag: &BytesStart<'_>, next: usize) -> Self {
        let place = attribute(tag, b"r").and_then(|reference| column_of(&reference));
        Self { column: place.unwrap_or(next), kind: attribute(tag, b"t").unwrap_or_default() }
    }
}

/// The column of a reference such as `AB12`, from 0.
fn column_of(reference: &str) -> Option<usize> {
    let letters = reference.bytes().take_while(u8::is_ascii_alphabetic);
    let column = letters.fold(0_usize, |column, letter| {
        column.saturating_mul(26).saturating_add(usize::from(letter.to_ascii_uppercase() - b'A') + 1)
    });
    column.checked_sub(1)
}

/// Reads to the end of a cell.
fn read_cell<R: BufRead>(reader: &mut Reader<R>, kind: &str, shared: &[String]) -> Result<Cell, String> {
    let (mut buffer, mut value, mut inline, mut formula, mut in_value) =
        (Vec::new(), String::new(), None, false, false);
    loop {
        match next(reader, &mut buffer)? {
            Event::Eof => return Err("is damaged: a cell does not end".to_owned()),
            Event::Empty(tag) if tag.local_name().as_ref() == b"f" => formula = true,
            Event::Start(tag) => match tag.local_name().as_ref() {
                b"f" => formula = true,
                b"v" => in_value = true,
                b"is" => inline = Some(rich_text(reader, b"is")?),
                _ => {}
            },
            Event::End(tag) => match tag.local_name().as_ref() {
                b"v" => in_value = false,
                b"c" => break,
                _ => {}
            },
            other if in_value => push_text(&mut value, &other)?,
            _ => {}
        }
        buffer.clear();
    }
    if formula {
        return Ok(Cell::Formula);
    }
    if let Some(text) = inline {
        return Ok(if text.is_empty() { Cell::Empty } else { Cell::Text(text) });
    }
    if value.is_empty() {
        return Ok(Cell::Empty);
    }
    Ok(match kind {
        "s" => match value.trim().parse::<usize>().ok().and_then(|at| shared.get(at)) {
            Some(text) if text.is_empty() => Cell::Empty,
            Some(text) => Cell::Text(text.clone()),
            None => return Err(format!("is damaged: there is no shared text {value}")),
        },
        "b" => Cell::Bool(value.trim() == "1"),
        "e" => Cell::Error(value),
        "str" | "inlineStr" | "d" => Cell::Text(unescaped(&value)),
        _ => match value.trim().parse() {
            Ok(number) => Cell::Number(number),
            Err(_) => Cell::Text(value),
        },
    })
}

/// Office writes what XML cannot hold as `_x0007_`.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("_x") {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 2..at + 6).filter(|_| rest.as_bytes().get(at + 6) == Some(&b'_'));
        match code.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32) {
            Some(letter) => {
                plain.push(letter);
                rest = &rest[at + 7..];
            }
            None => {
                plain.push_str("_x");
                rest = &rest[at + 2..];
            }
        }
    }
    plain.push_str(rest);
    plain
}
