//! Order of kernel versions: numbers by value, words by letter.

use std::cmp::Ordering;

/// Compares like `sort -V`: `6.1.0-9` before `6.1.0-10`, and `6.12~rc1` before `6.12`.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let ((word_a, rest_a), (word_b, rest_b)) = (take(a, false), take(b, false));
        let words = word_a
            .bytes()
            .map(rank)
            .chain([END])
            .cmp(word_b.bytes().map(rank).chain([END]));
        let ((number_a, rest_a), (number_b, rest_b)) = (take(rest_a, true), take(rest_b, true));
        let order = words.then_with(|| by_value(number_a, number_b));
        if order != Ordering::Equal || (rest_a.is_empty() && rest_b.is_empty()) {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The end of a word sorts after a tilde and before everything else.
const END: u16 = 1;

fn rank(byte: u8) -> u16 {
    if byte == b'~' { 0 } else { u16::from(byte) + 2 }
}

fn take(text: &str, digits: bool) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| c.is_ascii_digit() != digits)
            .unwrap_or(text.len()),
    )
}

/// Of any length.
fn by_value(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}
