//! Patterns of filter values: `*` stands for any text, `?` for one character, and a backslash takes the next character
//! literally.

/// Characters of a filter value: EC2 admits as many.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html>
pub const MAX_LENGTH: usize = 255;

/// Words of 64 bits in a set of positions: one position more than characters.
const WORDS: usize = (MAX_LENGTH + 1).div_ceil(64);

/// Positions within a pattern.
type Positions = [u64; WORDS];

/// A filter value, prepared to be compared with many texts.
#[derive(Debug, Clone)]
pub struct Pattern(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Literal(String),
    Wildcards(Box<Automaton>),
}

/// Position `n` is reached when the first `n` elements besides `*` have taken their characters. All positions that a
/// text can have reached are kept at once, one bit each (Baeza-Yates and Gonnet's Shift-And), so that a text costs a
/// constant number of instructions for each of its characters, whatever the pattern.
#[derive(Debug, Clone)]
struct Automaton {
    /// Positions at which `*` takes any character and stays.
    stay: Positions,
    /// Positions whose next element is `?`.
    any: Positions,
    /// Positions whose next element is `?` or this character; sorted by character.
    literals: Vec<(char, Positions)>,
    end: usize,
}

impl Pattern {
    /// The only text that it matches, where there is only one.
    pub fn literal(&self) -> Option<String> {
        match &self.0 {
            Kind::Literal(text) => Some(text.clone()),
            Kind::Wildcards(_) => None,
        }
    }

    /// `None` for a pattern of more than [`MAX_LENGTH`] characters.
    pub fn new(text: &str) -> Option<Self> {
        if text.chars().count() > MAX_LENGTH {
            return None;
        }
        let mut literal = String::new();
        let mut wild = Automaton {
            stay: Positions::default(),
            any: Positions::default(),
            literals: Vec::new(),
            end: 0,
        };
        let mut is_literal = true;
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            match c {
                '*' => {
                    is_literal = false;
                    insert(&mut wild.stay, wild.end);
                    continue;
                }
                '?' => {
                    is_literal = false;
                    insert(&mut wild.any, wild.end);
                }
                c => {
                    // A backslash at the end has nothing to escape and is itself.
                    let c = if c == '\\' {
                        characters.next().unwrap_or(c)
                    } else {
                        c
                    };
                    literal.push(c);
                    wild.literal(c);
                }
            }
            wild.end += 1;
        }
        if is_literal {
            return Some(Self(Kind::Literal(literal)));
        }
        for (_, positions) in &mut wild.literals {
            for (position, any) in positions.iter_mut().zip(wild.any) {
                *position |= any;
            }
        }
        Some(Self(Kind::Wildcards(Box::new(wild))))
    }

    /// Whether `text` matches as a whole. Takes time in proportion to the length of `text`.
    pub fn matches(&self, text: &str) -> bool {
        match &self.0 {
            Kind::Literal(literal) => literal == text,
            Kind::Wildcards(automaton) => automaton.matches(text),
        }
    }
}

impl Automaton {
    fn literal(&mut self, c: char) {
        let at = match self.literals.binary_search_by_key(&c, |(known, _)| *known) {
            Ok(at) => at,
            Err(at) => {
                self.literals.insert(at, (c, Positions::default()));
                at
            }
        };
        if let Some((_, positions)) = self.literals.get_mut(at) {
            insert(positions, self.end);
        }
    }

    fn matches(&self, text: &str) -> bool {
        let mut reached = Positions::default();
        insert(&mut reached, 0);
        for c in text.chars() {
            let found = self.literals.binary_search_by_key(&c, |(known, _)| *known);
            let takes = found.ok().and_then(|at| self.literals.get(at));
            let takes = takes.map_or(&self.any, |(_, positions)| positions);
            let mut carry = 0;
            let mut alive = 0;
            for ((word, takes), stay) in reached.iter_mut().zip(takes).zip(&self.stay) {
                let went = *word & takes;
                *word = (went << 1) | carry | (*word & stay);
                carry = went >> 63;
                alive |= *word;
            }
            if alive == 0 {
                return false;
            }
        }
        contains(&reached, self.end)
    }
}

fn insert(positions: &mut Positions, n: usize) {
    if let Some(word) = positions.get_mut(n / 64) {
        *word |= 1 << (n % 64);
    }
}

fn contains(positions: &Positions, n: usize) -> bool {
    positions
        .get(n / 64)
        .is_some_and(|word| word & (1 << (n % 64)) != 0)
}
