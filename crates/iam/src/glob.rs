//! Wildcards: `*` is any text, `?` is any one character.

/// A pattern, split at its `*`.
///
/// Each piece is searched once, from where the last one ended. Without `?` that takes time linear in the text; a piece
/// with `?` takes at most its own length times that of the text.
#[derive(Debug, Clone)]
pub(crate) struct Glob {
    first: Piece,
    /// What follows each `*`.
    rest: Vec<Piece>,
}

/// Text between two `*`.
#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    /// `None` is a `?`.
    Wild(Vec<Option<char>>),
}

impl Glob {
    pub fn new() -> Self {
        let first = Piece::Text(String::new());
        Self {
            first,
            rest: Vec::new(),
        }
    }

    pub fn push(&mut self, character: char) {
        match self.last() {
            Piece::Text(text) => text.push(character),
            Piece::Wild(characters) => characters.push(Some(character)),
        }
    }

    /// A `?`.
    pub fn push_one(&mut self) {
        let last = self.last();
        if let Piece::Text(text) = last {
            *last = Piece::Wild(text.chars().map(Some).collect());
        }
        if let Piece::Wild(characters) = last {
            characters.push(None);
        }
    }

    /// A `*`.
    pub fn push_any(&mut self) {
        self.rest.push(Piece::Text(String::new()));
    }

    fn last(&mut self) -> &mut Piece {
        self.rest.last_mut().unwrap_or(&mut self.first)
    }

    pub fn matches(&self, text: &str) -> bool {
        let Some(text) = self.first.strip_from_start(text) else {
            return false;
        };
        let Some((last, middle)) = self.rest.split_last() else {
            return text.is_empty();
        };
        let Some(mut text) = last.strip_from_end(text) else {
            return false;
        };
        // The leftmost place leaves the most text to the pieces that follow.
        middle.iter().all(|piece| match piece.find(text) {
            Some(after) => {
                text = after;
                true
            }
            None => false,
        })
    }
}

impl Piece {
    fn strip_from_start<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Piece::Text(piece) => text.strip_prefix(piece.as_str()),
            Piece::Wild(piece) => {
                let mut characters = text.chars();
                let fits = piece
                    .iter()
                    .all(|wanted| characters.next().is_some_and(|found| fits(*wanted, found)));
                fits.then_some(characters.as_str())
            }
        }
    }

    fn strip_from_end<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Piece::Text(piece) => text.strip_suffix(piece.as_str()),
            Piece::Wild(piece) => {
                let mut characters = text.chars();
                let fits = piece
                    .iter()
                    .rev()
                    .all(|wanted| characters.next_back().is_some_and(|found| fits(*wanted, found)));
                fits.then_some(characters.as_str())
            }
        }
    }

    /// The text after the leftmost place where the piece is.
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Piece::Text(piece) => {
                let start = text.find(piece.as_str())?;
                text.get(start + piece.len()..)
            }
            Piece::Wild(piece) => {
                let mut characters = text.chars();
                // A place nearer to the end than the piece is long cannot fit.
                let places = (text.chars().count() + 1).checked_sub(piece.len())?;
                for _ in 0..places {
                    if let Some(after) = self.strip_from_start(characters.as_str()) {
                        return Some(after);
                    }
                    characters.next();
                }
                None
            }
        }
    }
}

fn fits(wanted: Option<char>, found: char) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(pattern: &str) -> Glob {
        let mut glob = Glob::new();
        for character in pattern.chars() {
            match character {
                '*' => glob.push_any(),
                '?' => glob.push_one(),
                other => glob.push(other),
            }
        }
        glob
    }

    /// The definition, in exponential time.
    fn reference(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((&'*', rest)), None) => reference(rest, text),
            (Some((&'*', rest)), Some((_, shorter))) => reference(rest, text) || reference(pattern, shorter),
            (Some((wanted, rest)), Some((found, shorter))) => {
                (*wanted == '?' || wanted == found) && reference(rest, shorter)
            }
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn a_glob_matches_what_its_definition_matches(pattern in "[aä*?]{0,8}", text in "[aäb]{0,10}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(
                glob(&pattern).matches(&text),
                reference(&characters(&pattern), &characters(&text))
            );
        }
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let text = "a".repeat(4096);
        let begin = std::time::Instant::now();
        assert!(!glob(&"*a".repeat(2000)).matches(&format!("{text}b")));
        assert!(!glob(&format!("{}b*", "*?a".repeat(1000))).matches(&text));
        assert!(!glob(&format!("*{}b*", "a?".repeat(1000))).matches(&text));
        // Backtracking takes years.
        assert!(begin.elapsed() < std::time::Duration::from_secs(10));
    }
}
