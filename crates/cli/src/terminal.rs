//! Text from strangers (guests, tags) made safe for a terminal.
//!
//! A guest could write escape sequences to its console that retitle, recolour or even type into the terminal of
//! whoever reads it. So escape sequences are dropped and other control characters are made visible.

use std::io::Write as _;

/// Makes a stream of bytes safe, piece by piece: sequences and characters may be cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Sanitizer {
    escape: Escape,
    /// A carriage return was seen; what follows decides whether it was a line end.
    carriage_return: bool,
    /// The beginning of a UTF-8 character whose end has not come yet.
    partial: Vec<u8>,
}

/// Where in an escape sequence (ECMA-48, 5.4 and 5.6) the stream is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Started,
    /// In a control sequence, `ESC [`: until a final byte.
    Control,
    /// In a control string such as `ESC ]`: until BEL or `ESC \`.
    String,
    /// After an ESC within a control string.
    StringEnd,
}

impl Sanitizer {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> String {
        let mut pending = std::mem::take(&mut self.partial);
        pending.extend_from_slice(bytes);
        let mut safe = String::with_capacity(pending.len());
        for chunk in pending.utf8_chunks() {
            for c in chunk.valid().chars() {
                self.character(c, &mut safe);
            }
            let at_end = std::ptr::eq(chunk.invalid().as_ptr_range().end, pending.as_ptr_range().end);
            match chunk.invalid() {
                [] => {}
                // Incomplete rather than wrong: no character is longer than four bytes.
                cut if at_end && cut.len() < 4 => self.partial = cut.to_vec(),
                _ => self.character('\u{fffd}', &mut safe),
            }
        }
        safe
    }

    fn character(&mut self, c: char, safe: &mut String) {
        self.escape = match (self.escape, c) {
            (Escape::None, '\x1b') => Escape::Started,
            (Escape::None, c) => {
                self.plain(c, safe);
                Escape::None
            }
            (Escape::Started, '[') => Escape::Control,
            (Escape::Started, ']' | 'P' | 'X' | '^' | '_') => Escape::String,
            // Intermediate bytes of a two- or three-byte sequence such as `ESC ( B`.
            (Escape::Started, ' '..='/') => Escape::Started,
            (Escape::Started, _) => Escape::None,
            (Escape::Control, '\x40'..='\x7e') => Escape::None,
            // A line end never belongs to a sequence: give up on a broken one rather than swallow the rest.
            (Escape::Control | Escape::String | Escape::StringEnd, '\n') => {
                self.plain('\n', safe);
                Escape::None
            }
            (Escape::Control, _) => Escape::Control,
            (Escape::String, '\x07') => Escape::None,
            (Escape::String, '\x1b') => Escape::StringEnd,
            (Escape::String, _) => Escape::String,
            (Escape::StringEnd, '\\') => Escape::None,
            (Escape::StringEnd, _) => Escape::String,
        };
    }

    fn plain(&mut self, c: char, safe: &mut String) {
        // Consoles end lines with CR LF, and often CR CR LF. A CR alone would let a line overwrite itself.
        if self.carriage_return && c != '\r' {
            self.carriage_return = false;
            if c != '\n' {
                safe.push('\n');
            }
        }
        match c {
            '\r' => self.carriage_return = true,
            '\n' | '\t' => safe.push(c),
            '\x00'..='\x1f' => safe.extend(['^', char::from(c as u8 + b'@')]),
            '\x7f' => safe.push_str("^?"),
            c if drives_terminals(c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
}

/// Whether a terminal does something else with a character than to show it: control characters (C0, DEL, C1), line
/// separators, and bidirectional formatting, which reorders what stands around it (UAX #9, section 2).
pub(crate) fn drives_terminals(c: char) -> bool {
    let is_bidirectional =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_bidirectional || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Prints a line for people to standard error. A closed pipe is no reason to complain.
pub(crate) fn say(line: &impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", sanitize(&line.to_string()));
}

/// A whole text made safe.
pub(crate) fn sanitize(text: &str) -> String {
    Sanitizer::default().feed(text.as_bytes())
}

/// What `now` has beyond `before`, both being the newest bytes of the same growing output: `now` without the longest
/// end of `before` that it begins with.
pub(crate) fn news<'a>(before: &[u8], now: &'a [u8]) -> &'a [u8] {
    // Knuth-Morris-Pratt: how much of the beginning of `now` matches at the end of `before`.
    let mut borders = vec![0; now.len()];
    let mut matched = 0;
    for i in 1..now.len() {
        while matched > 0 && now[i] != now[matched] {
            matched = borders[matched - 1];
        }
        matched += usize::from(now[i] == now[matched]);
        borders[i] = matched;
    }
    let mut overlap = 0;
    for byte in before {
        while overlap > 0 && (overlap == now.len() || *byte != now[overlap]) {
            overlap = borders[overlap - 1];
        }
        overlap += usize::from(now.get(overlap) == Some(byte));
    }
    &now[overlap..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_are_dropped() {
        for (raw, safe) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07after", "after"),
            ("\x1b]0;title\x1b\\after", "after"),
            ("\x1bPdevice\x1b\\x", "x"),
            ("\x1b(Bx", "x"),
            ("\x1bcx", "x"),
            ("\x1b]never ended\nnext", "\nnext"),
            ("a\r\nb\r\r\nc", "a\nb\nc"),
            ("10%\r20%\r\n", "10%\n20%\n"),
            ("bell\x07 nul\0 del\x7f", "bell^G nul^@ del^?"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("a\u{202e}b", "a\u{fffd}b"),
        ] {
            assert_eq!(sanitize(raw), safe, "{raw:?}");
        }
    }

    #[test]
    fn news_of_a_sliding_window() {
        for (before, now, expected) in [
            ("", "abc", "abc"),
            ("abc", "abc", ""),
            ("abc", "abcd", "d"),
            ("abcd", "cdef", "ef"),
            ("abc", "xyz", "xyz"),
            ("abc", "", ""),
        ] {
            assert_eq!(
                news(before.as_bytes(), now.as_bytes()),
                expected.as_bytes(),
                "{before} {now}"
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_dangerous_comes_out_however_it_is_cut(bytes: Vec<u8>, cut in 0usize..64) {
            let cut = cut.min(bytes.len());
            let mut sanitizer = Sanitizer::default();
            let mut pieces = sanitizer.feed(&bytes[..cut]);
            pieces += &sanitizer.feed(&bytes[cut..]);
            prop_assert!(pieces.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
            prop_assert_eq!(pieces, Sanitizer::default().feed(&bytes));
        }

        #[test]
        fn a_window_that_moved_by_less_than_itself_tells_at_most_what_is_new(all in "[ab]{20,60}", moved in 0usize..10) {
            let (before, now) = (&all.as_bytes()[..all.len() - moved], &all.as_bytes()[moved..]);
            let told = news(before, now);
            prop_assert!(told.len() <= moved);
            prop_assert!(now.ends_with(told));
        }
    }
}
