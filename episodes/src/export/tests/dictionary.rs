//! The data dictionary says what the columns are.

use super::*;

#[test]
fn the_dictionary_holds_every_column() {
    let expected = dictionary();
    let page = include_str!("../../../../docs/EPISODES.md");
    let table = page.split_once("<!-- columns -->\n").and_then(|(_, rest)| rest.split_once("<!-- end -->"));
    let table = table.map_or("", |(table, _)| table);
    assert!(table.trim() == expected.trim(), "put this between the marks in docs/EPISODES.md:\n{expected}");
}

#[test]
fn names_are_words_and_unlike() {
    let mut names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), COLUMNS.len());
    assert!(COLUMNS.iter().all(|column| column.about.ends_with('.') && !column.about.contains('|')));
}
