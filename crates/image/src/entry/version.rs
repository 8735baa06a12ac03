//! Order of versions.

use std::cmp::Ordering;

/// As the Boot Loader Specification compares them (uapi-group.org, "Version Format Specification").
pub(super) fn compare_uapi(a: &str, b: &str) -> Ordering {
    let valid = |c: char| c.is_ascii_alphanumeric() || "~-^.".contains(c);
    let (mut a, mut b) = (a, b);
    loop {
        a = a.trim_start_matches(|c| !valid(c));
        b = b.trim_start_matches(|c| !valid(c));
        // A tilde is smaller than the end, the other marks than anything that is not the end.
        for mark in ['~', '-', '^', '.'] {
            if mark == '-' && (a.is_empty() || b.is_empty()) {
                return (!a.is_empty()).cmp(&!b.is_empty());
            }
            match (a.strip_prefix(mark), b.strip_prefix(mark)) {
                (Some(rest_a), Some(rest_b)) => (a, b) = (rest_a, rest_b),
                (Some(_), None) => return Ordering::Less,
                (None, Some(_)) => return Ordering::Greater,
                (None, None) => {}
            }
        }
        let digits =
            a.starts_with(|c: char| c.is_ascii_digit()) || b.starts_with(|c: char| c.is_ascii_digit());
        let part = |c: char| {
            if digits {
                c.is_ascii_digit()
            } else {
                c.is_ascii_alphabetic()
            }
        };
        let ((part_a, rest_a), (part_b, rest_b)) = (take(a, part), take(b, part));
        let order = if digits {
            by_value(part_a, part_b)
        } else {
            part_a.cmp(part_b)
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// As RPM compares them.
pub(super) fn compare_rpm(a: &str, b: &str) -> Ordering {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '~' || c == '+';
    let (mut a, mut b) = (a, b);
    if a == b {
        return Ordering::Equal;
    }
    loop {
        a = a.trim_start_matches(|c| !valid(c));
        b = b.trim_start_matches(|c| !valid(c));
        match (a.strip_prefix('~'), b.strip_prefix('~')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        match (a.strip_prefix('+'), b.strip_prefix('+')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            (Some(_), None) => {
                return if b.is_empty() {
                    Ordering::Greater
                } else {
                    Ordering::Less
                };
            }
            (None, Some(_)) => {
                return if a.is_empty() {
                    Ordering::Less
                } else {
                    Ordering::Greater
                };
            }
            (None, None) => {}
        }
        if a.is_empty() || b.is_empty() {
            return (!a.is_empty()).cmp(&!b.is_empty());
        }
        let digits = a.starts_with(|c: char| c.is_ascii_digit());
        let part = |c: char| {
            if digits {
                c.is_ascii_digit()
            } else {
                c.is_ascii_alphabetic()
            }
        };
        let ((part_a, rest_a), (part_b, rest_b)) = (take(a, part), take(b, part));
        if part_b.is_empty() {
            return if digits { Ordering::Greater } else { Ordering::Less };
        }
        let order = if digits {
            by_value(part_a, part_b)
        } else {
            part_a.cmp(part_b)
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// Like `sort -V`: `6.1.0-9` before `6.1.0-10`, and `6.12~rc1` before `6.12`.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let digit = |c: char| c.is_ascii_digit();
        let ((word_a, rest_a), (word_b, rest_b)) = (take(a, |c| !digit(c)), take(b, |c| !digit(c)));
        let ends = |word: &str| word.bytes().map(rank).chain([END]).collect::<Vec<_>>();
        let words = ends(word_a).cmp(&ends(word_b));
        let ((number_a, rest_a), (number_b, rest_b)) = (take(rest_a, digit), take(rest_b, digit));
        let order = words.then_with(|| by_value(number_a, number_b));
        if order != Ordering::Equal || (rest_a.is_empty() && rest_b.is_empty()) {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The end of a word sorts after a tilde, and before everything else.
const END: u16 = 1;

/// Letters sort before other characters.
fn rank(byte: u8) -> u16 {
    match byte {
        b'~' => 0,
        _ if byte.is_ascii_alphabetic() => u16::from(byte) + 2,
        _ => u16::from(byte) + 0x200,
    }
}

fn take(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c: char| !of(c)).unwrap_or(text.len()))
}

/// Of any length.
fn by_value(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}
