//! Text from elsewhere as one line of bounded length.

use std::fmt::{self, Write as _};

/// What stands for the rest of a text that was cut.
const CUT: &str = "...";

/// A writer that keeps text on one line: control characters, and others that a terminal obeys, reorders or does not
/// show, are written as Rust's escapes (`\n`, `\u{1b}`, `\u{202e}`). Text beyond the limit is cut, and writing fails
/// from there on, which ends the formatting of a long value early.
#[derive(Debug)]
pub struct Escaped<W> {
    inner: W,
    /// Bytes.
    left: usize,
    cut: bool,
}

impl<W: fmt::Write> Escaped<W> {
    /// Writes at most `limit` bytes to `inner`, and an ellipsis when that is not all.
    pub fn new(inner: W, limit: usize) -> Self {
        Self {
            inner,
            left: limit,
            cut: false,
        }
    }

    pub fn into_inner(self) -> W {
        self.inner
    }

    fn write_escaped(&mut self, c: char) -> fmt::Result {
        let escape = c.escape_debug();
        // Quotes and backslashes are themselves: what was quoted by `Debug` is not quoted again.
        let is_plain = matches!(c, '"' | '\'' | '\\') || escape.len() == 1;
        let length = if is_plain { c.len_utf8() } else { escape.len() };
        match self.left.checked_sub(length) {
            Some(left) => self.left = left,
            None => {
                self.cut = true;
                self.inner.write_str(CUT)?;
                return Err(fmt::Error);
            }
        }
        match is_plain {
            true => self.inner.write_char(c),
            false => escape.into_iter().try_for_each(|e| self.inner.write_char(e)),
        }
    }
}

impl<W: fmt::Write> fmt::Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.cut {
            true => Err(fmt::Error),
            false => text.chars().try_for_each(|c| self.write_escaped(c)),
        }
    }
}

/// A value on one line, cut after `limit` bytes.
pub fn escaped(value: impl fmt::Display, limit: usize) -> String {
    let mut line = Escaped::new(String::new(), limit);
    // An error says that the value was cut.
    let _ = write!(line, "{value}");
    line.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        for (text, expected) in [
            ("plain \"quoted\" C:\\path ü", "plain \"quoted\" C:\\path ü"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            // C1's CSI, a bidirectional override, a line separator.
            ("\u{9b}31m \u{202e}x \u{2028}", "\\u{9b}31m \\u{202e}x \\u{2028}"),
            ("\0\x07\x7f", "\\0\\u{7}\\u{7f}"),
        ] {
            assert_eq!(escaped(text, 1000), expected);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(escaped("üüü", 5), "üü...");
        assert_eq!(escaped("üüü", 6), "üüü");
        assert_eq!(escaped("a\nb", 2), "a...");
        assert_eq!(escaped(format_args!("{}{}", "abc", "def"), 4), "abcd...");
    }
}
