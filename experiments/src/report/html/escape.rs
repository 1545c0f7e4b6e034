//! Text that people wrote, made harmless inside a page.

use std::fmt;

/// Shows a text with what HTML gives a meaning replaced, in content and in quoted attributes.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                // Marks that turn the direction of a line could dress one text up as another.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => formatter.write_str("\u{fffd}")?,
                letter if letter.is_control() && !letter.is_whitespace() => formatter.write_str("\u{fffd}")?,
                letter => fmt::Write::write_char(formatter, letter)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_with_a_meaning_is_left() {
        let text = Escaped("<img src=x onerror='a(\"b\")'>&\u{202e}\u{0}胶原蛋白").to_string();
        assert_eq!(text, "&lt;img src=x onerror=&#39;a(&quot;b&quot;)&#39;&gt;&amp;\u{fffd}\u{fffd}胶原蛋白");
    }
}
