//! Workbooks as people hand them in.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::datasets::tests::{limits, tenant};
use crate::datasets::{BuildRequest, Found, Kind, Rule};
use crate::export::{ExportError, ZipWriter, letters, push_escaped};

const TYPES: &str = "<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"/>";
const BOOK: &str =
    "<workbook xmlns:r=\"r\"><sheets><sheet name=\"s\" sheetId=\"1\" r:id=\"rId7\"/></sheets></workbook>";
const RELATIONS: &str = "<Relationships><Relationship Id=\"rId7\" Target=\"worksheets/sheet9.xml\"/></Relationships>";

/// A cell as a spreadsheet writes it.
#[derive(Clone)]
enum Raw {
    Text(String),
    Number(f64),
    Bool(bool),
    Formula,
    Error(&'static str),
    Empty,
}

fn text(words: &str) -> Raw {
    Raw::Text(words.to_owned())
}

fn workbook(path: &Path, rows: &[Vec<Raw>]) {
    let zip = ZipWriter::new(File::create(path).unwrap())
        .whole("[Content_Types].xml", TYPES)
        .and_then(|zip| zip.whole("xl/workbook.xml", BOOK))
        .and_then(|zip| zip.whole("xl/_rels/workbook.xml.rels", RELATIONS))
        .unwrap();
    let mut xml = "<worksheet><sheetData>".to_owned();
    for (row, cells) in (1..).zip(rows) {
        xml.push_str(&format!("<row r=\"{row}\">"));
        for (column, cell) in cells.iter().enumerate() {
            let place = format!("{}{row}", letters(column));
            match cell {
                Raw::Empty => {}
                Raw::Text(words) => {
                    xml.push_str(&format!("<c r=\"{place}\" t=\"inlineStr\"><is><t>"));
                    push_escaped(&mut xml, words);
                    xml.push_str("</t></is></c>");
                }
                Raw::Number(number) => xml.push_str(&format!("<c r=\"{place}\"><v>{number}</v></c>")),
                Raw::Bool(truth) => xml.push_str(&format!("<c r=\"{place}\" t=\"b\"><v>{}</v></c>", u8::from(*truth))),
                Raw::Formula => xml.push_str(&format!("<c r=\"{place}\"><f>1+1</f><v>2</v></c>")),
                Raw::Error(error) => xml.push_str(&format!("<c r=\"{place}\" t=\"e\"><v>{error}</v></c>")),
            }
        }
        xml.push_str("</row>");
    }
    xml.push_str("</sheetData></worksheet>");
    let mut member = zip.member("xl/worksheets/sheet9.xml").unwrap();
    member.write_all(xml.as_bytes()).unwrap();
    member.finish().unwrap().finish().unwrap();
}

fn header() -> Vec<Raw> {
    COLUMNS.iter().map(|name| text(name)).collect()
}

const HITS: &str = r#"[{"content":"每日一次","score":0.5,"reranker_score":0.8},{"content":"饭后","score":0.4}]"#;

fn good(number: usize) -> Vec<Raw> {
    vec![
        text(&format!("胶原蛋白第{number}天怎么吃")),
        text("女性"),
        Raw::Empty,
        text(&format!("胶原蛋白肽 第{number}天 用量")),
        text(HITS),
        Raw::Number(2.0),
        Raw::Number(0.8),
        Raw::Number(0.6),
        Raw::Bool(true),
    ]
}

fn imported(path: &Path, out: &Path) -> (Result<Imported, ExportError>, Vec<Fault>) {
    let (tenant, settings) = (tenant(), limits());
    let request = BuildRequest {
        tenant: &tenant,
        kind: Kind::Messages,
        out,
        settings: &settings,
        seed: 7,
        now_ms: 1_795_000_000_000,
    };
    let mut faults = Vec::new();
    let imported = import(path, &request, |fault| faults.push(fault.clone()));
    (imported, faults)
}

/// What is broken in turn: the column, its cell, and what the fault says.
fn broken() -> Vec<(usize, Raw, &'static str)> {
    vec![
        (0, Raw::Empty, "is empty"),
        (0, Raw::Number(7.0), "is the number 7, text is wanted"),
        (0, text(&"问".repeat(201)), "has 201 characters, at most 200 are kept"),
        (3, text(&"答".repeat(501)), "has 501 characters, at most 500 are kept"),
        (3, Raw::Formula, "is a formula: paste its value, text is wanted"),
        (4, text("[{\"content\":"), "is no list of hits"),
        (
            4,
            text("[{\"content\":\"a\",\"score\":1.5},{\"content\":\"a\",\"score\":0.1}]"),
            "[0].score 1.5 is not from 0 to 1",
        ),
        (4, text("[{\"content\":\"a\",\"score\":0.5}]"), "says 2, recall_results holds 1"),
        (5, Raw::Number(1.5), "1.5 is no whole number"),
        (6, Raw::Number(1.2), "1.2 is not from 0 to 1"),
        (6, text("0.9"), "is the number 0.9 as text: format the cell as a number"),
        (6, Raw::Error("#N/A"), "is the error #N/A, a number is wanted"),
        (6, Raw::Empty, "is empty, though success is TRUE"),
        (7, text("high"), "is the text \"high\", a number is wanted"),
        (8, text("TRUE"), "is the text \"TRUE\", TRUE or FALSE is wanted"),
        (8, Raw::Empty, "is empty"),
    ]
}

#[test]
fn ten_thousand_rows_with_broken_ones_are_imported_and_each_fault_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test_sft.xlsx");
    let (kinds, mut rows, mut expected) = (broken(), vec![header()], Vec::new());
    for number in 0..10_000_usize {
        let mut row = good(number);
        if number % 10 == 3 {
            let (column, cell, problem) = kinds[number / 10 % kinds.len()].clone();
            row[column] = cell;
            // a count that does not fit is named at the count
            let column = if problem.starts_with("says") { 5 } else { column };
            expected.push((number as u32 + 2, COLUMNS[column], letters(column), problem));
        }
        match number % 100 {
            5 => row[8] = Raw::Bool(false),
            6 => row[6] = Raw::Number(0.59),
            7 => row[3] = row[0].clone(),
            8 => row = vec![Raw::Empty, text("  ")],
            _ => {}
        }
        rows.push(row);
    }
    workbook(&path, &rows);
    let start = std::time::Instant::now();
    let (result, faults) = imported(&path, dir.path());
    let took = start.elapsed();
    let result = result.unwrap();
    let counts = &result.manifest.counts;
    assert_eq!((result.faulty_rows, counts.dropped[&Rule::Faulty]), (1000, 1000));
    assert_eq!(faults.len() as u64, result.faults);
    for (row, column, cell, problem) in &expected {
        let named = faults.iter().filter(|fault| fault.row == *row).collect::<Vec<_>>();
        let hit = named
            .iter()
            .any(|fault| (fault.column.as_str(), &fault.cell) == (*column, cell) && fault.problem.starts_with(problem));
        assert!(hit, "row {row} {column} {problem}: {named:?}");
    }
    assert!(faults.iter().all(|fault| expected.iter().any(|(row, ..)| *row == fault.row)), "no sound row is blamed");
    assert_eq!(counts.read, 9900, "blank rows are no rows");
    let dropped = [Rule::NotSuccessful, Rule::ScoreTooLow, Rule::Unchanged].map(|rule| counts.dropped[&rule]);
    assert_eq!(dropped, [100; 3]);
    assert_eq!(counts.kept, 9900 - 1000 - 300);
    eprintln!("10,000 rows in {took:?}, {} faults", faults.len());
}

#[test]
fn a_bad_header_names_what_is_missing_and_what_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.xlsx");
    let mut head = header();
    head[6] = text("top_score");
    head[3] = text("original_query");
    workbook(&path, &[head, good(1)]);
    let (result, faults) = imported(&path, dir.path());
    let error = result.unwrap_err().to_string();
    assert!(error.contains("the columns rewritten_query, top1_score are missing; found: original_query, "), "{error}");
    assert!(error.contains("stands in A and D"), "{error}");
    assert_eq!(faults.len(), 2);
    let (result, _) = imported(&dir.path().join("missing.xlsx"), dir.path());
    assert!(result.unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn damaged_files_are_errors_and_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.xlsx");
    workbook(&path, &[header(), good(1), good(2)]);
    let whole = std::fs::read(&path).unwrap();
    let broken: PathBuf = dir.path().join("broken.xlsx");
    for cut in [0, 1, 21, 22, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&broken, &whole[..cut]).unwrap();
        assert!(imported(&broken, dir.path()).0.is_err(), "cut at {cut}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x5a;
        std::fs::write(&broken, &bytes).unwrap();
        drop(read_questions(&broken));
    }
}

#[test]
fn what_a_batch_run_writes_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test_sft.xlsx");
    let mut writer = WorkbookWriter::create(&path).unwrap();
    let hit = |score: f64| Found {
        id: "p1".to_owned(),
        content: "<每日> & \"一次\"\u{7}".to_owned(),
        score,
        reranker_score: None,
    };
    for number in 0..50 {
        let mut row = BatchRow {
            original_query: format!("=胶原蛋白第{number}天怎么吃"),
            rewritten_query: format!("胶原蛋白肽 第{number}天 用量"),
            ..BatchRow::default()
        };
        if number % 5 != 0 {
            row.found(vec![hit(0.9), hit(0.6), hit(0.3), hit(0.1)]);
            assert!((row.avg_top3_score.unwrap() - 0.6).abs() < 1e-12);
        }
        writer.row(&row).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 0);
    assert!(!dir.path().join("test_sft.xlsx.part").exists());
    let (result, faults) = imported(&path, dir.path());
    assert_eq!(faults, []);
    let counts = result.unwrap().manifest.counts;
    assert_eq!((counts.kept, counts.dropped[&Rule::NotSuccessful]), (40, 10));
    let questions = read_questions(&path).unwrap();
    assert_eq!((questions.len(), questions[3].query.as_str()), (50, "=胶原蛋白第3天怎么吃"));
    let lines = dir.path().join("set.jsonl");
    std::fs::write(
        &lines,
        "{\"query\":\"能喝吗\",\"history\":\"用户: 胶原\\n助手: 好\",\"id\":1}\n{\"query\":\" \"}\n",
    )
    .unwrap();
    let error = read_questions(&lines).unwrap_err().to_string();
    assert!(error.contains(":2: query: is empty"), "{error}");
    std::fs::write(&lines, "{\"query\":\"能喝吗\",\"history\":\"用户: 胶原\\n助手: 好\",\"id\":1}\n").unwrap();
    assert_eq!(read_questions(&lines).unwrap()[0].history.len(), 2);
}
