//! Words of a text as the lexical leg sees them: one tokenizer for passages and queries.
//!
//! The engine's own tokenizers drop numbers or keep whole clauses of Chinese, so the words are ours: NFKC, lower case,
//! traditional characters folded to simplified ones, jieba's search mode for Chinese, and words, numbers and codes
//! (whole and in parts) for the rest.
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use irg_kvariants::{KVARIANTS, KVariantClass};
use jieba_rs::Jieba;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

/// Raise it when the same text would give other words: stored passages must then be ingested again.
pub const TOKENIZER_VERSION: u32 = 1;

/// Words that are in most sentences and tell nothing apart.
const STOP_WORDS: [&str; 36] = [
    "的", "了", "吗", "呢", "吧", "啊", "呀", "哦", "嘛", "么", "和", "与", "及", "或", "在", "是", "也", "就", "都",
    "我", "你", "您", "它", "a", "an", "the", "of", "to", "is", "are", "and", "or", "in", "on", "for", "it",
];

fn jieba() -> &'static Jieba {
    static JIEBA: OnceLock<Jieba> = OnceLock::new();
    JIEBA.get_or_init(Jieba::new)
}

/// Loads the dictionary now (a quarter of a second), so that no request waits for it.
pub fn warm_up() {
    each_word("预热", &mut |_| {});
}

fn simplified() -> &'static HashMap<char, char> {
    static TABLE: OnceLock<HashMap<char, char>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let simplified = |class: &KVariantClass| *class == KVariantClass::Simplified;
        let pairs = KVARIANTS.values().filter(|variant| simplified(&variant.classification));
        pairs.map(|variant| (variant.destination_ideograph, variant.source_ideograph)).collect()
    })
}

pub(crate) fn is_han(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

fn is_kana(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}')
}

/// NFKC, lower case, simplified characters.
#[must_use]
pub fn normalize(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let composed = match is_nfkc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfkc().collect()),
    };
    let table = simplified();
    let mut out = String::with_capacity(composed.len());
    for c in composed.chars() {
        if is_han(c) {
            out.push(table.get(&c).copied().unwrap_or(c));
        } else {
            out.extend(c.to_lowercase());
        }
    }
    out
}

/// The words of `text` in order, with repetitions; sub-words and parts of codes follow their whole.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    each_word(text, &mut |word| found.push(word.to_owned()));
    found
}

/// Calls `emit` for every word of `text`, as [`words`] lists them.
pub fn each_word(text: &str, emit: &mut dyn FnMut(&str)) {
    let normal = normalize(text);
    let mut emit = |word: &str| {
        if !STOP_WORDS.contains(&word) {
            emit(word);
        }
    };
    let mut rest = normal.as_str();
    while let Some(first) = rest.chars().next() {
        let (end, kind) = span(rest, first);
        let (span, tail) = rest.split_at(end);
        rest = tail;
        match kind {
            Kind::Gap => {}
            Kind::Han => han_words(span, &mut emit),
            Kind::Code => code_words(span, &mut emit),
            Kind::Kana => {
                emit(span);
                pairs(span, &mut emit);
            }
            Kind::Letters => emit(span),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gap,
    Han,
    Code,
    Kana,
    Letters,
}

fn kind_of(c: char) -> Kind {
    match c {
        _ if c.is_ascii_alphanumeric() => Kind::Code,
        _ if is_han(c) => Kind::Han,
        _ if is_kana(c) => Kind::Kana,
        _ if c.is_alphanumeric() => Kind::Letters,
        _ => Kind::Gap,
    }
}

/// The bytes of the first span of equal kind; a code goes on over one joining mark between two letters or digits.
fn span(text: &str, first: char) -> (usize, Kind) {
    let kind = kind_of(first);
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        let joins = kind == Kind::Code
            && matches!(c, '-' | '_' | '.' | '/' | ',')
            && next.is_some_and(|next| next.is_ascii_alphanumeric());
        if kind_of(c) != kind && !joins {
            return (at, kind);
        }
    }
    (text.len(), kind)
}

fn han_words(span: &str, emit: &mut dyn FnMut(&str)) {
    // Without the hidden Markov model the words of a name do not depend on its neighbours.
    let mut run = String::new();
    let mut run_end = 0;
    for word in jieba().cut_for_search(span, false) {
        let single = word.word.chars().nth(1).is_none();
        if single {
            // Unknown names fall into single characters; their pairs keep such a name apart from its permutations.
            if word.byte_start != run_end {
                pairs(&run, emit);
                run.clear();
            }
            run.push_str(word.word);
            run_end = word.byte_end;
        } else {
            pairs(&run, emit);
            run.clear();
        }
        emit(word.word);
    }
    pairs(&run, emit);
}

fn pairs(run: &str, emit: &mut dyn FnMut(&str)) {
    let starts: Vec<usize> = run.char_indices().map(|(at, _)| at).chain([run.len()]).collect();
    for window in starts.windows(3) {
        emit(&run[window[0]..window[2]]);
    }
}

/// A run of ASCII letters and digits with joining marks: the whole, the whole without marks, and its parts.
fn code_words(span: &str, emit: &mut dyn FnMut(&str)) {
    // Thousands: 27,500 and 27500 are one word. Any other comma ends a word.
    if span.contains(',') {
        if is_grouped_number(span) {
            emit(&span.replace(',', ""));
        } else {
            span.split(',').for_each(|part| code_words(part, emit));
        }
        return;
    }
    let parts = code_parts(span);
    if parts.len() == 1 {
        emit(&stem(span));
        return;
    }
    emit(span);
    let decimal = parts.len() == 2 && span.contains('.') && parts.iter().all(|part| is_number(part));
    if decimal {
        return;
    }
    let marks = span.contains(['-', '_', '.', '/']);
    if marks && parts.iter().any(|part| !is_number(part)) {
        emit(&span.replace(['-', '_', '.', '/'], ""));
    }
    for part in parts {
        emit(&stem(part));
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn is_grouped_number(span: &str) -> bool {
    let mut groups = span.split(',');
    let head = groups.next().unwrap_or_default();
    let last_may_have_fraction = |group: &str| is_number(group.split('.').next().unwrap_or_default());
    (1..=3).contains(&head.len())
        && is_number(head)
        && groups.all(|group| {
            group.len() >= 3 && group.as_bytes()[..3].iter().all(u8::is_ascii_digit) && {
                group.len() == 3 || (group.as_bytes()[3] == b'.' && last_may_have_fraction(group))
            }
        })
}

/// Splits at marks and where letters meet digits.
fn code_parts(span: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for piece in span.split(['-', '_', '.', '/']) {
        let bytes = piece.as_bytes();
        let mut start = 0;
        for at in 1..bytes.len() {
            if bytes[at].is_ascii_digit() != bytes[at - 1].is_ascii_digit() {
                parts.push(&piece[start..at]);
                start = at;
            }
        }
        if start < piece.len() {
            parts.push(&piece[start..]);
        }
    }
    parts
}

/// Folds English plurals: contributions -> contribution, penalties -> penalty.
fn stem(word: &str) -> Cow<'_, str> {
    let long = word.len() > 3 && word.bytes().all(|b| b.is_ascii_alphabetic());
    if !long || !word.ends_with('s') || ["ss", "us", "is"].iter().any(|end| word.ends_with(end)) {
        return Cow::Borrowed(word);
    }
    match word.strip_suffix("ies") {
        Some(head) if head.len() > 1 => Cow::Owned(format!("{head}y")),
        _ => Cow::Borrowed(&word[..word.len() - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(words(text), expected, "{text}");
    }

    #[test]
    fn codes_numbers_and_amounts_keep_whole_and_parts() {
        check("E1001", &["e1001", "e", "1001"]);
        check("FD-2107", &["fd-2107", "fd2107", "fd", "2107"]);
        check("2024-25", &["2024-25", "2024", "25"]);
        check("3.5", &["3.5"]);
        check("27,500 and 27500", &["27500", "27500"]);
        check("a1,b2", &["a1", "1", "b2", "b", "2"]);
        check("30ml", &["30ml", "30", "ml"]);
        check("1,234.50", &["1234.50"]);
    }

    #[test]
    fn english_plurals_fold() {
        check("Contributions Penalties class status", &["contribution", "penalty", "class", "status"]);
    }

    #[test]
    fn chinese_is_cut_for_search_and_keeps_the_whole_word() {
        let found = words("胶原蛋白怎么吃");
        for word in ["胶原蛋白", "蛋白", "怎么", "吃"] {
            assert!(found.iter().any(|have| have == word), "{word} is missing in {found:?}");
        }
    }

    #[test]
    fn traditional_and_full_width_forms_unify() {
        assert_eq!(words("孕婦能喝嗎"), words("孕妇能喝吗"));
        assert_eq!(words("ＦＤ－２１０７"), words("fd-2107"));
    }

    #[test]
    fn unknown_names_give_pairs() {
        let found = words("鑫曜");
        assert!(found.contains(&"鑫曜".to_owned()), "{found:?}");
    }

    #[test]
    fn any_text_is_taken() {
        for text in ["", " ", "。！？", "\u{0}\u{200d}🧬", "ー東京タワー", "żółw Ünïcode ß", "----", "1,,2", ",5"]
        {
            let _ = words(text);
        }
    }
}
