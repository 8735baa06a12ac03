//! GRUB's shell, as far as words go.

use super::variables::{Variables, is_name};

/// Lines, with those that end in a backslash joined to the next.
pub(super) fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        match line.strip_suffix('\\') {
            Some(start) => open.push_str(start),
            None => lines.push(std::mem::take(&mut open) + line),
        }
    }
    lines.push(open);
    lines
}

#[derive(Default)]
struct Splitter {
    commands: Vec<Vec<String>>,
    words: Vec<String>,
    word: Option<String>,
}

impl Splitter {
    fn word(&mut self) -> &mut String {
        self.word.get_or_insert_default()
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self) {
        self.end_word();
        self.commands.push(std::mem::take(&mut self.words));
    }
}

/// Splits a line into commands of words, with quotes, escapes and variables resolved.
pub(super) fn commands(line: &str, variables: &mut Variables) -> Vec<Vec<String>> {
    let mut split = Splitter::default();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' if split.word.is_none() => break,
            ';' => split.end_command(),
            c if c.is_whitespace() => split.end_word(),
            '\'' => split.word().extend(chars.by_ref().take_while(|c| *c != '\'')),
            '"' => {
                let mut text = String::new();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    match c {
                        '\\' => text.extend(chars.next()),
                        c => text.push(c),
                    }
                }
                split.word().push_str(&variables.expand(&text));
            }
            '\\' => split.word().extend(chars.next()),
            '$' => {
                let mut name = String::from('$');
                let braced = chars.peek() == Some(&'{');
                while let Some(c) = chars.next_if(|c| if braced { *c != '}' } else { is_name(*c) }) {
                    name.push(c);
                }
                name.extend(chars.next_if(|_| braced));
                // Outside quotes a value's spaces separate words.
                for (i, part) in variables.expand(&name).split_whitespace().enumerate() {
                    if i > 0 {
                        split.end_word();
                    }
                    split.word().push_str(part);
                }
            }
            c => split.word().push(c),
        }
    }
    split.end_command();
    split.commands
}
