//! Cuts a text into passages by sentence.
use crate::tokenize::is_han;

/// Lengths of passages in tokens: a Chinese character counts one, a word or number of other scripts counts one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLimits {
    /// At most so many tokens a passage.
    pub tokens: usize,
    /// Whole sentences of at most so many tokens are repeated at the start of the next passage.
    pub overlap: usize,
}

/// Tokens of `text`, as [`ChunkLimits`] counts them.
#[must_use]
pub fn count_tokens(text: &str) -> usize {
    let mut count = 0;
    let mut in_word = false;
    for c in text.chars() {
        if is_han(c) {
            count += 1;
            in_word = false;
        } else if c.is_alphanumeric() {
            count += usize::from(!in_word);
            in_word = true;
        } else {
            in_word = false;
        }
    }
    count
}

/// Cuts `text` after Chinese and English stops and at line ends. No text is lost but white space between sentences.
#[must_use]
pub fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        let ends = match c {
            '。' | '！' | '？' | '；' | '…' => !next.is_some_and(closes),
            '\n' => true,
            '.' | '!' | '?' | ';' => next.is_none_or(char::is_whitespace),
            _ => closes(c) && text[start..at].ends_with(['。', '！', '？']),
        };
        if ends {
            found.push(text[start..at + c.len_utf8()].trim());
            start = at + c.len_utf8();
        }
    }
    found.push(text[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

fn closes(c: char) -> bool {
    matches!(c, '”' | '’' | '」' | '』' | '）' | '"' | '。' | '！' | '？')
}

/// Packs sentences into passages of at most `limits.tokens`; a sentence that is longer is cut at its tokens.
#[must_use]
pub fn chunks(text: &str, limits: ChunkLimits) -> Vec<String> {
    let mut pieces: Vec<(&str, usize)> = Vec::new();
    for sentence in sentences(text) {
        split_long(sentence, limits.tokens.max(1), &mut pieces);
    }
    let mut passages = Vec::new();
    let mut first = 0;
    while first < pieces.len() {
        let mut end = first;
        let mut length = 0;
        while end < pieces.len() && (end == first || length + pieces[end].1 <= limits.tokens) {
            length += pieces[end].1;
            end += 1;
        }
        passages.push(join(&pieces[first..end]));
        if end == pieces.len() {
            break;
        }
        let mut next = end;
        let mut repeated = 0;
        // The repeated sentences must leave room for the new one, or a passage could repeat without end.
        while next > first + 1 && repeated + pieces[next - 1].1 + pieces[end].1 <= limits.tokens {
            repeated += pieces[next - 1].1;
            if repeated > limits.overlap {
                break;
            }
            next -= 1;
        }
        first = next;
    }
    passages
}

fn join(pieces: &[(&str, usize)]) -> String {
    let mut out = String::new();
    for (piece, _) in pieces {
        // English sentences need the white space back that separated them.
        if out.chars().next_back().is_some_and(|c| c.is_ascii()) {
            out.push(' ');
        }
        out.push_str(piece);
    }
    out
}

fn split_long<'a>(sentence: &'a str, limit: usize, out: &mut Vec<(&'a str, usize)>) {
    let mut rest = sentence;
    loop {
        let count = count_tokens(rest);
        if count <= limit {
            if !rest.is_empty() {
                out.push((rest, count));
            }
            return;
        }
        let cut = end_of_tokens(rest, limit);
        out.push((rest[..cut].trim(), limit));
        rest = rest[cut..].trim_start();
    }
}

/// The byte at which token `limit + 1` starts.
fn end_of_tokens(text: &str, limit: usize) -> usize {
    let mut count = 0;
    let mut in_word = false;
    for (at, c) in text.char_indices() {
        let starts = is_han(c) || (c.is_alphanumeric() && !in_word);
        in_word = c.is_alphanumeric() && !is_han(c);
        if starts {
            if count == limit {
                return at;
            }
            count += 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_characters_and_words() {
        assert_eq!(count_tokens("胶原蛋白 30ml, twice a day。"), 4 + 4);
    }

    #[test]
    fn sentences_end_at_chinese_and_english_stops() {
        let text = "每天一瓶。饭后更好！Take v2.3.1 daily. Is it safe?\n他说“好。”然后走了；结束";
        assert_eq!(
            sentences(text),
            ["每天一瓶。", "饭后更好！", "Take v2.3.1 daily.", "Is it safe?", "他说“好。”", "然后走了；", "结束"]
        );
    }

    #[test]
    fn passages_overlap_by_whole_sentences() {
        let text = "一二三四。五六七八。九十甲乙。丙丁戊己。";
        let limits = ChunkLimits { tokens: 12, overlap: 4 };
        assert_eq!(chunks(text, limits), ["一二三四。五六七八。九十甲乙。", "九十甲乙。丙丁戊己。"]);
        assert_eq!(chunks("短", limits), ["短"]);
        assert!(chunks("", limits).is_empty());
    }

    #[test]
    fn no_passage_is_too_long_and_no_token_is_lost() {
        let text = "字".repeat(700) + "。" + &"word ".repeat(300) + ". 完。";
        for limits in [ChunkLimits { tokens: 256, overlap: 64 }, ChunkLimits { tokens: 10, overlap: 9 }] {
            let passages = chunks(&text, limits);
            assert!(passages.iter().all(|passage| count_tokens(passage) <= limits.tokens));
            let total: usize = passages.iter().map(|passage| count_tokens(passage)).sum();
            assert!(total >= count_tokens(&text));
            assert!(passages.last().is_some_and(|last| last.ends_with("完。")));
        }
    }
}
