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
        let digits = starts_with_digit(a) || starts_with_digit(b);
        let (part_a, rest_a) = part(a, digits);
        let (part_b, rest_b) = part(b, digits);
        let order = by_part(part_a, part_b, digits);
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
        // A tilde is smaller than the end, a plus greater than it and smaller than all else.
        let mut skipped = false;
        for (mark, beside_end) in [('~', Ordering::Less), ('+', Ordering::Greater)] {
            let beside = |rest: &str| {
                if rest.is_empty() {
                    beside_end
                } else {
                    Ordering::Less
                }
            };
            match (a.strip_prefix(mark), b.strip_prefix(mark)) {
                (Some(rest_a), Some(rest_b)) => {
                    (a, b) = (rest_a, rest_b);
                    skipped = true;
                    break;
                }
                (Some(_), None) => return beside(b),
                (None, Some(_)) => return beside(a).reverse(),
                (None, None) => {}
            }
        }
        if skipped {
            continue;
        }
        if a.is_empty() || b.is_empty() {
            return (!a.is_empty()).cmp(&!b.is_empty());
        }
        let digits = starts_with_digit(a);
        let (part_a, rest_a) = part(a, digits);
        let (part_b, rest_b) = part(b, digits);
        // Parts of different kinds: numbers are greater than letters.
        if part_b.is_empty() {
            return if digits { Ordering::Greater } else { Ordering::Less };
        }
        let order = by_part(part_a, part_b, digits);
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

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// The digits, or else the letters, that a text begins with, and what follows.
fn part(text: &str, digits: bool) -> (&str, &str) {
    let kind = if digits {
        |c: char| c.is_ascii_digit()
    } else {
        |c: char| c.is_ascii_alphabetic()
    };
    take(text, kind)
}

fn by_part(a: &str, b: &str, digits: bool) -> Ordering {
    if digits { by_value(a, b) } else { a.cmp(b) }
}

/// Of any length.
fn by_value(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}
