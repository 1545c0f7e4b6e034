//! Workbooks. Rows are packed as they come; nothing of the sheet is kept. Texts are texts: no cell is a formula.

use std::fmt::Write as _;
use std::io::Write as _;

use super::columns::COLUMNS;
use super::error::ExportError;
use super::output::{Encoder, HashedFile};
use super::row::Row;
use super::sheet::{fit, letters, push_escaped};
use super::time::DAY_MS;
use super::value::Value;
use super::zip::{Member, ZipWriter};

/// Rows below the header that a worksheet holds: the format ends at 1,048,576 rows.
pub(crate) const ROWS_MAX: u64 = 1_048_575;
/// Days from Excel's epoch (30 December 1899) to Unix's.
const EPOCH_DAYS: f64 = 25_569.0;

const TYPES: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/><Override PartName="/xl/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/></Types>"#;
const ROOT: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#;
const WORKBOOK: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="{name}" sheetId="1" r:id="rId1"/></sheets></workbook>"#;
const PARTS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles" Target="styles.xml"/></Relationships>"#;
// style 0 is plain, 1 a time, 2 the header
const STYLES: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><numFmts count="1"><numFmt numFmtId="164" formatCode="yyyy\-mm\-dd\ hh:mm:ss.000"/></numFmts><fonts count="2"><font><sz val="11"/><name val="Calibri"/></font><font><b/><sz val="11"/><name val="Calibri"/></font></fonts><fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills><borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders><cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs><cellXfs count="3"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/><xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/><xf numFmtId="0" fontId="1" fillId="0" borderId="0" xfId="0" applyFont="1"/></cellXfs><cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>"#;
const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetViews><sheetView workbookViewId="0"><pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews><sheetData>"#;

pub(crate) struct Workbook {
    sheet: Member<HashedFile>,
    letters: Vec<String>,
    xml: String,
    rows: u64,
    cut: u64,
}

impl Workbook {
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn new(file: HashedFile) -> Result<Self, ExportError> {
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        Self::with_columns(file, "episodes", &names)
    }

    /// A workbook of one sheet; its name and those of the columns are words.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn with_columns(file: HashedFile, name: &str, columns: &[&str]) -> Result<Self, ExportError> {
        let zip = ZipWriter::new(file)
            .whole("[Content_Types].xml", TYPES)?
            .whole("_rels/.rels", ROOT)?
            .whole("xl/workbook.xml", &WORKBOOK.replace("{name}", name))?
            .whole("xl/_rels/workbook.xml.rels", PARTS)?
            .whole("xl/styles.xml", STYLES)?;
        let mut sheet = zip.member("xl/worksheets/sheet1.xml")?;
        let mut xml = HEAD.to_owned();
        xml.push_str("<row r=\"1\">");
        let letters: Vec<String> = (0..columns.len()).map(letters).collect();
        for (column, letter) in columns.iter().zip(&letters) {
            let _ = write!(xml, "<c r=\"{letter}1\" s=\"2\" t=\"inlineStr\"><is><t>{column}</t></is></c>");
        }
        xml.push_str("</row>");
        sheet.write_all(xml.as_bytes())?;
        Ok(Self { sheet, letters, xml, rows: 0, cut: 0 })
    }
}

impl Workbook {
    /// Adds a row.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn cells<'v>(&mut self, cells: impl Iterator<Item = Value<'v>>) -> Result<(), ExportError> {
        self.rows += 1;
        let (xml, number) = (&mut self.xml, self.rows + 1);
        xml.clear();
        // writing to a string cannot fail
        let _ = write!(xml, "<row r=\"{number}\">");
        for (cell, letter) in cells.zip(&self.letters) {
            let _ = match cell {
                Value::Null => Ok(()),
                // an empty text is no cell, either: a spreadsheet cannot tell the two apart
                Value::Text("") => Ok(()),
                Value::Text(text) => {
                    let (text, was_cut) = fit(text);
                    self.cut += u64::from(was_cut);
                    let _ = write!(xml, "<c r=\"{letter}{number}\" t=\"inlineStr\"><is><t xml:space=\"preserve\">");
                    push_escaped(xml, text);
                    xml.push_str("</t></is></c>");
                    Ok(())
                }
                Value::Int(value) => write!(xml, "<c r=\"{letter}{number}\"><v>{value}</v></c>"),
                Value::Float(value) => write!(xml, "<c r=\"{letter}{number}\"><v>{value}</v></c>"),
                Value::Bool(value) => write!(xml, "<c r=\"{letter}{number}\" t=\"b\"><v>{}</v></c>", u8::from(value)),
                Value::Time(ms) => {
                    let days = EPOCH_DAYS + ms as f64 / DAY_MS as f64;
                    write!(xml, "<c r=\"{letter}{number}\" s=\"1\"><v>{days}</v></c>")
                }
            };
        }
        xml.push_str("</row>");
        Ok(self.sheet.write_all(xml.as_bytes())?)
    }

    /// Writes what is left. Returns the file and how many cells had to be cut.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn close(mut self) -> Result<(HashedFile, u64), ExportError> {
        self.sheet.write_all(b"</sheetData></worksheet>")?;
        Ok((self.sheet.finish()?.finish()?, self.cut))
    }
}

impl Encoder for Workbook {
    fn row(&mut self, row: &Row<'_>) -> Result<(), ExportError> {
        self.cells(COLUMNS.iter().map(|column| column.value(row)))
    }

    fn finish(self: Box<Self>) -> Result<(HashedFile, u64), ExportError> {
        self.close()
    }
}
