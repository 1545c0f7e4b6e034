//! Documents and how files become documents: Markdown, plain text, JSON lines, CSV.
use std::path::Path;

use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};
use recast_domain::{Metadata, PassageRecord};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::RetrievalError;

/// What a document consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Running text that is to be cut; each part keeps its context (a path of headings) at the start of its passages.
    Parts(Vec<Part>),
    /// Passages that somebody cut already: id and text.
    Passages(Vec<CutPassage>),
}

/// A part of a document below one heading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The path of headings; may be empty.
    pub context: String,
    /// The text.
    pub text: String,
}

/// A passage that is taken as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CutPassage {
    /// Unique within the knowledge base.
    pub id: String,
    /// The text.
    pub text: String,
    /// Its own facts, beside those of the document.
    pub metadata: Metadata,
}

/// A document of a knowledge base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Unique within tenant and knowledge base.
    pub doc_id: String,
    /// For people and for the search; may be empty.
    pub title: String,
    /// Where it came from; may be empty.
    pub source: String,
    /// Facts for filters and display.
    pub metadata: Metadata,
    /// What it says.
    pub body: Body,
}

impl Document {
    /// A document of plain text.
    #[must_use]
    pub fn text(doc_id: impl Into<String>, title: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            doc_id: doc_id.into(),
            title: title.into(),
            source: String::new(),
            metadata: Metadata::new(),
            body: Body::Parts(vec![Part { context: String::new(), text: text.into() }]),
        }
    }

    /// A hash of all that a search could show of it.
    #[must_use]
    pub fn content_hash(&self) -> String {
        // A document is plain data; serialising it cannot fail.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        blake3::hash(&bytes).to_hex()[..32].to_owned()
    }

    /// The first thing wrong with it.
    ///
    /// # Errors
    /// An empty or over-long id, or no text at all.
    pub fn check(&self) -> Result<(), RetrievalError> {
        let bad = |field: &str, message: &str| Err(RetrievalError::invalid(field, message));
        if self.doc_id.trim().is_empty() || self.doc_id.len() > 512 {
            return bad("doc_id", "must be 1 to 512 bytes");
        }
        if self.doc_id.chars().any(char::is_control) {
            return bad("doc_id", "must not hold control characters");
        }
        let blank = |text: &str| text.trim().is_empty();
        match &self.body {
            Body::Parts(parts) if parts.iter().all(|part| blank(&part.text)) => bad("text", "is empty"),
            Body::Passages(passages) => {
                if passages.is_empty() {
                    return bad("passages", "is empty");
                }
                let fault = passages.iter().position(|passage| blank(&passage.text) || blank(&passage.id));
                fault.map_or(Ok(()), |at| bad(&format!("passages[{at}]"), "needs an id and a text"))
            }
            Body::Parts(_) => Ok(()),
        }
    }
}

/// Reads a file by its extension: md, markdown, txt, jsonl, csv. `doc_id` names documents that carry no id themselves.
///
/// # Errors
/// An unknown extension, text that is not UTF-8, or a bad row with `file:line` and the field.
pub fn read_file(path: &Path, doc_id: &str) -> Result<Vec<Document>, RetrievalError> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path)
        .map_err(|error| RetrievalError::File { at: file.clone(), message: format!("cannot be read: {error}") })?;
    let text = String::from_utf8(bytes).map_err(|error| RetrievalError::File {
        at: file.clone(),
        message: format!("is not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "md" | "markdown" => Ok(vec![markdown(doc_id, &file, text)]),
        "txt" | "text" => Ok(vec![Document { source: file, ..Document::text(doc_id, "", text) }]),
        "jsonl" | "ndjson" => json_lines(&file, text),
        "csv" => csv_rows(&file, text),
        other => Err(RetrievalError::File {
            at: file,
            message: format!("files of kind {other:?} are not read: use md, txt, jsonl or csv"),
        }),
    }
}

/// Cuts Markdown at its headings; the first heading of level 1 is the title, deeper ones are the context of their part.
#[must_use]
pub fn markdown(doc_id: &str, source: &str, text: &str) -> Document {
    let mut title = String::new();
    let mut path: Vec<(HeadingLevel, String)> = Vec::new();
    let mut parts = vec![Part { context: String::new(), text: String::new() }];
    let mut heading: Option<(HeadingLevel, String)> = None;
    for event in Parser::new_ext(text, pulldown_cmark::Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new())),
            Event::End(TagEnd::Heading(_)) => {
                let Some((level, name)) = heading.take() else { continue };
                if title.is_empty() && level == HeadingLevel::H1 {
                    title = name;
                    continue;
                }
                path.retain(|(above, _)| *above < level);
                path.push((level, name));
                let context = path.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(" > ");
                parts.push(Part { context, text: String::new() });
            }
            Event::Text(words) | Event::Code(words) => match (&mut heading, parts.last_mut()) {
                (Some((_, name)), _) => name.push_str(&words),
                (None, Some(part)) => part.text.push_str(&words),
                (None, None) => {}
            },
            Event::SoftBreak | Event::HardBreak => push(&mut parts, ' '),
            Event::End(TagEnd::TableCell) => push(&mut parts, ' '),
            Event::End(TagEnd::Paragraph | TagEnd::Item | TagEnd::CodeBlock | TagEnd::TableRow | TagEnd::TableHead) => {
                push(&mut parts, '\n');
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.text.trim().is_empty());
    Document {
        doc_id: doc_id.to_owned(),
        title,
        source: source.to_owned(),
        metadata: Metadata::new(),
        body: Body::Parts(parts),
    }
}

fn push(parts: &mut [Part], c: char) {
    if let Some(part) = parts.last_mut() {
        part.text.push(c);
    }
}

/// Puts ready-cut passages of the same `doc_id` together, in the order of their first appearance.
#[must_use]
pub fn from_passages(records: Vec<PassageRecord>) -> Vec<Document> {
    let mut documents: Vec<Document> = Vec::new();
    let mut places: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for record in records {
        let passage = CutPassage { id: record.id, text: record.text, metadata: record.metadata };
        let place = *places.entry(record.doc_id.clone()).or_insert_with(|| {
            documents.push(Document {
                doc_id: record.doc_id,
                title: record.title,
                source: record.source,
                metadata: Metadata::new(),
                body: Body::Passages(Vec::new()),
            });
            documents.len() - 1
        });
        if let Body::Passages(passages) = &mut documents[place].body {
            passages.push(passage);
        }
    }
    documents
}

fn json_lines(file: &str, text: &str) -> Result<Vec<Document>, RetrievalError> {
    let mut passages = Vec::new();
    let mut documents = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line): &(usize, &str)| !line.trim().is_empty()) {
        let fault = |message: String| RetrievalError::File { at: format!("{file}:{number}"), message };
        let value: Value = serde_json::from_str(line).map_err(|error| fault(error.to_string()))?;
        let Value::Object(mut row) = value else { return Err(fault("expected one JSON object a line".to_owned())) };
        if row.contains_key("id") && row.contains_key("doc_id") {
            let mut record: PassageRecord =
                serde_json::from_value(Value::Object(row)).map_err(|error| fault(error.to_string()))?;
            for (field, value) in [("id", &record.id), ("doc_id", &record.doc_id), ("text", &record.text)] {
                if value.trim().is_empty() {
                    return Err(fault(format!("{field} is empty")));
                }
            }
            if record.source.is_empty() {
                record.source = file.to_owned();
            }
            passages.push(record);
            continue;
        }
        let mut take = |names: &[&str]| -> Result<Option<String>, RetrievalError> {
            match names.iter().find_map(|name| row.remove(*name).map(|value| (*name, value))) {
                None => Ok(None),
                Some((_, Value::String(text))) => Ok(Some(text)),
                Some((_, Value::Number(number))) => Ok(Some(number.to_string())),
                Some((name, _)) => Err(fault(format!("{name} must be a text"))),
            }
        };
        let doc_id = take(&["doc_id", "id", "_id"])?.ok_or_else(|| fault("doc_id is missing".to_owned()))?;
        let text = take(&["text", "content"])?.ok_or_else(|| fault("text is missing".to_owned()))?;
        let title = take(&["title"])?.unwrap_or_default();
        let source = take(&["source", "url"])?.unwrap_or_else(|| file.to_owned());
        let mut metadata = match row.remove("metadata") {
            None => Metadata::new(),
            Some(Value::Object(metadata)) => metadata,
            Some(_) => return Err(fault("metadata must be an object".to_owned())),
        };
        metadata.extend(row);
        let document = Document { source, metadata, ..Document::text(doc_id, title, text) };
        document.check().map_err(|error| fault(error.to_string()))?;
        documents.push(document);
    }
    documents.extend(from_passages(passages));
    Ok(documents)
}

fn csv_rows(file: &str, text: &str) -> Result<Vec<Document>, RetrievalError> {
    let fault = |line: u64, message: String| RetrievalError::File { at: format!("{file}:{line}"), message };
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<String> = reader
        .headers()
        .map_err(|error| fault(1, error.to_string()))?
        .iter()
        .map(|name| name.trim().to_lowercase())
        .collect();
    let column = |wanted: &[&str]| names.iter().position(|name| wanted.contains(&name.as_str()));
    let Some(text_column) = column(&["text", "content"]) else {
        return Err(fault(1, "the header names no column text or content".to_owned()));
    };
    let id_column = column(&["doc_id", "id"]);
    let title_column = column(&["title"]);
    let source_column = column(&["source", "url"]);
    let mut documents = Vec::new();
    for (index, row) in (1_u64..).zip(reader.records()) {
        let row = row.map_err(|error| {
            let line = error.position().map_or(index + 1, csv::Position::line);
            fault(line, error.to_string())
        })?;
        let line = row.position().map_or(index + 1, csv::Position::line);
        let cell =
            |column: Option<usize>| column.and_then(|column| row.get(column)).unwrap_or_default().trim().to_owned();
        let doc_id = match cell(id_column) {
            id if !id.is_empty() => id,
            _ if id_column.is_some() => return Err(fault(line, "doc_id is empty".to_owned())),
            _ => format!("{}#{index}", file_stem(file)),
        };
        let known = [Some(text_column), id_column, title_column, source_column];
        let extra = names.iter().enumerate().filter(|(at, _)| !known.contains(&Some(*at)));
        let metadata = extra
            .filter_map(|(at, name)| Some((name.clone(), row.get(at)?.trim())).filter(|(_, value)| !value.is_empty()))
            .map(|(name, value)| (name, Value::from(value)))
            .collect();
        let source = Some(cell(source_column)).filter(|source| !source.is_empty()).unwrap_or_else(|| file.to_owned());
        let document =
            Document { source, metadata, ..Document::text(doc_id, cell(title_column), cell(Some(text_column))) };
        document.check().map_err(|error| fault(line, error.to_string()))?;
        documents.push(document);
    }
    Ok(documents)
}

fn file_stem(file: &str) -> String {
    Path::new(file).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<Document>, RetrievalError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_file(&path, "doc")
    }

    fn fault(name: &str, text: &str) -> String {
        read(name, text).unwrap_err().to_string()
    }

    #[test]
    fn markdown_keeps_title_and_heading_paths() {
        let document =
            &read("a.md", "# 胶原蛋白\n\n简介。\n\n## 用法\n\n- 每天一瓶\n- 饭后\n\n### 孕妇\n\n不宜。\n").unwrap()[0];
        assert_eq!(document.title, "胶原蛋白");
        let Body::Parts(parts) = &document.body else { panic!("expected parts") };
        let contexts: Vec<&str> = parts.iter().map(|part| part.context.as_str()).collect();
        assert_eq!(contexts, ["", "用法", "用法 > 孕妇"]);
        assert_eq!(parts[1].text, "每天一瓶\n饭后\n");
    }

    #[test]
    fn passage_lines_group_by_document() {
        let lines = "{\"id\":\"p1\",\"doc_id\":\"d1\",\"title\":\"T\",\"text\":\"x\",\"source\":\"\",\"metadata\":{\"entity\":\"e\"}}\n\
                     {\"id\":\"p2\",\"doc_id\":\"d1\",\"title\":\"T\",\"text\":\"y\",\"source\":\"\",\"metadata\":{}}\n\
                     {\"doc_id\":\"d2\",\"title\":\"U\",\"text\":\"z\",\"year\":2024}\n";
        let documents = read("a.jsonl", lines).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].metadata["year"], 2024);
        assert!(matches!(&documents[1].body, Body::Passages(passages) if passages.len() == 2));
    }

    #[test]
    fn bad_rows_name_their_line_and_field() {
        let good = "{\"doc_id\":\"d\",\"text\":\"x\"}\n";
        assert!(fault("a.jsonl", &format!("{good}{{\"doc_id\":\"d\"}}\n")).contains("a.jsonl:2: text is missing"));
        assert!(fault("a.jsonl", "[]\n").contains(":1: expected one JSON object"));
        assert!(fault("a.jsonl", "{\"id\":\"p\",\"doc_id\":\"d\",\"text\":\" \"}").contains("text is empty"));
        assert!(fault("a.csv", "id,body\n1,x\n").contains(":1: the header names no column text"));
        assert!(fault("a.csv", "id,text\n1,x\n,y\n").contains(":3: doc_id is empty"));
        assert!(fault("a.csv", "id,text\n1,x,z\n").contains(":2"));
        assert!(fault("a.pdf", "").contains("use md, txt, jsonl or csv"));
    }

    #[test]
    fn csv_columns_become_metadata() {
        let documents = read("faq.csv", "Text,Year,Empty\n\"每天, 一瓶\",2024,\n").unwrap();
        assert_eq!(documents[0].doc_id, "faq#1");
        assert_eq!(documents[0].metadata.len(), 1);
        assert_eq!(documents[0].metadata["year"], "2024");
    }

    #[test]
    fn the_hash_follows_the_content() {
        let document = Document::text("d", "t", "x");
        assert_eq!(document.content_hash(), document.clone().content_hash());
        assert_ne!(document.content_hash(), Document::text("d", "t", "y").content_hash());
    }
}
