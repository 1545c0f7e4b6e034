//! Cells of a worksheet, as XML.

use std::fmt::Write;

/// Characters of a cell at most, as Excel counts them: UTF-16 units.
const CELL_MAX: usize = 32_767;

/// The letters of a column, from 0: A, B, .. Z, AA, ..
pub(crate) fn letters(mut column: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(b'A' + (column % 26) as u8);
        if column < 26 {
            break;
        }
        column = column / 26 - 1;
    }
    letters.iter().rev().map(|letter| char::from(*letter)).collect()
}

/// As much of a text as a cell holds, and whether something was cut off.
pub(crate) fn fit(text: &str) -> (&str, bool) {
    // a UTF-8 text never has more UTF-16 units than bytes
    if text.len() <= CELL_MAX {
        return (text, false);
    }
    let mut units = 0;
    for (at, letter) in text.char_indices() {
        units += letter.len_utf16();
        if units > CELL_MAX {
            return (&text[..at], true);
        }
    }
    (text, false)
}

/// Appends a text to XML. What XML cannot hold is written as Office does, `_x0007_`, and what looks like that by
/// chance is protected.
pub(crate) fn push_escaped(xml: &mut String, text: &str) {
    let mut rest = text;
    let special = |letter: char| {
        matches!(letter, '&' | '<' | '>' | '"' | '_' | '\u{fffe}' | '\u{ffff}')
            || (letter < ' ' && letter != '\n' && letter != '\t')
    };
    while let Some(at) = rest.find(special) {
        xml.push_str(&rest[..at]);
        let mut letters = rest[at..].chars();
        let letter = letters.next().unwrap_or_default();
        match letter {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '_' if looks_escaped(&rest[at..]) => xml.push_str("_x005F_"),
            '_' => xml.push('_'),
            // writing to a string cannot fail
            other => drop(write!(xml, "_x{:04X}_", u32::from(other))),
        }
        rest = letters.as_str();
    }
    xml.push_str(rest);
}

fn looks_escaped(text: &str) -> bool {
    matches!(text.as_bytes(), [b'_', b'x', a, b, c, d, b'_', ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_named_as_in_a_spreadsheet() {
        let named = [(0, "A"), (25, "Z"), (26, "AA"), (51, "AZ"), (52, "BA"), (701, "ZZ"), (702, "AAA")];
        for (column, name) in named {
            assert_eq!(letters(column), name);
        }
    }

    #[test]
    fn texts_are_escaped_as_office_reads_them() {
        let mut xml = String::new();
        push_escaped(&mut xml, "a<b>&\"_x0041_ _\u{7}\r\n胶原\u{ffff}");
        assert_eq!(xml, "a&lt;b&gt;&amp;&quot;_x005F_x0041_ __x0007__x000D_\n胶原_xFFFF_");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(fit("胶原"), ("胶原", false));
        let exact = "胶".repeat(CELL_MAX);
        assert_eq!(fit(&exact), (exact.as_str(), false));
        let long = "😀".repeat(CELL_MAX);
        let (cut, was_cut) = fit(&long);
        assert!(was_cut && cut.encode_utf16().count() == CELL_MAX - 1);
    }
}
