//! GRUB's environment block: the file `grubenv` (GRUB manual, "Environment block").

use std::collections::BTreeMap;

use super::values::Value;

const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// What `save_env` wrote since the disk was read, by name; none for what it removed.
pub(super) type Saved = BTreeMap<String, Option<Value>>;

/// Names and values of a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block(pub(super) Vec<(String, String)>);

impl Block {
    /// None if it is no environment block.
    pub(super) fn parse(bytes: &[u8]) -> Option<Block> {
        let text = String::from_utf8_lossy(bytes.strip_prefix(SIGNATURE)?).into_owned();
        let mut pairs = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            if rest.starts_with('#') {
                rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
                continue;
            }
            let (line, behind) = logical_line(rest);
            rest = behind;
            if let Some((name, value)) = line.split_once('=') {
                pairs.push((name.to_owned(), value.to_owned()));
            }
        }
        Some(Block(pairs))
    }
}

/// A line with its escapes resolved, in which a newline can be escaped too; and what is behind it.
fn logical_line(text: &str) -> (String, &str) {
    let mut line = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' => return (line, &text[at + 1..]),
            '\\' => line.extend(chars.next().map(|(_, c)| c)),
            c => line.push(c),
        }
    }
    (line, "")
}
