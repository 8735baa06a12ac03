//! GRUB's scripting language: from text to statements (GRUB manual, "Writing full configuration files directly").
//!
//! It resembles a POSIX shell, but has no `&&`, `||`, `case` nor redirection, and a block is an argument.

use std::rc::Rc;

/// Blocks within blocks.
const MAX_DEPTH: usize = 32;
/// Words, separators and braces of one file: they take more memory than the text.
const MAX_TOKENS: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// Text in quotes: an argument even if it is empty.
    Quoted(String),
    /// `$name` outside of quotes: white space in its value separates arguments.
    Variable(String),
    QuotedVariable(String),
    /// `$"..."`: translated.
    Translated,
}

/// Pieces that make up one argument, or several.
pub(super) type Word = Vec<Piece>;
pub(super) type Block = Rc<Vec<Statement>>;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Command {
        line: usize,
        words: Vec<Word>,
        block: Option<Block>,
    },
    If {
        line: usize,
        condition: Block,
        then: Block,
        otherwise: Option<Block>,
    },
    For {
        line: usize,
        name: String,
        words: Vec<Word>,
        body: Block,
    },
    While {
        line: usize,
        until: bool,
        condition: Block,
        body: Block,
    },
    Function {
        name: String,
        body: Block,
    },
}

/// What is wrong, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) what: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Newline,
    Semicolon,
    Open,
    Close,
    /// The second is the word's text if it has neither quotes, escapes nor variables.
    Word(Word, Option<String>),
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<Block, SyntaxError> {
    let tokens = Lexer::new(text).tokens()?;
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
    };
    let mut script = Vec::new();
    loop {
        parser.newlines();
        if parser.peek().is_none() {
            return Ok(Rc::new(script));
        }
        script.push(parser.statement(true)?);
        if parser.peek().is_some() && !parser.delimiter() {
            return Err(parser.unexpected());
        }
    }
}

struct Lexer<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        Lexer {
            rest: text.chars().peekable(),
            line: 1,
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.next();
        if c == Some('\n') {
            self.line += 1;
        }
        c
    }

    fn error<T>(&self, what: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError {
            line: self.line,
            what: what.into(),
        })
    }

    fn tokens(mut self) -> Result<Vec<(usize, Token)>, SyntaxError> {
        let mut tokens = Vec::new();
        while let Some(&c) = self.rest.peek() {
            let line = self.line;
            if tokens.len() == MAX_TOKENS {
                return self.error(format!("more than {MAX_TOKENS} words"));
            }
            let token = match c {
                ' ' | '\t' => {
                    self.next();
                    continue;
                }
                '#' => {
                    self.comment()?;
                    continue;
                }
                '\n' => Token::Newline,
                ';' => Token::Semicolon,
                '{' => Token::Open,
                '}' => Token::Close,
                '|' | '&' | '<' | '>' => return self.error(format!("the operator {c}")),
                '\\' => {
                    // A line that ends in a backslash goes on.
                    let mut ahead = self.rest.clone();
                    ahead.next();
                    if ahead.next() == Some('\n') {
                        self.next();
                        self.next();
                        continue;
                    }
                    tokens.push((line, self.word()?));
                    continue;
                }
                _ => {
                    tokens.push((line, self.word()?));
                    continue;
                }
            };
            self.next();
            tokens.push((line, token));
        }
        Ok(tokens)
    }

    /// GRUB takes a comment whose first word has a quote or an escape for something else.
    fn comment(&mut self) -> Result<(), SyntaxError> {
        let mut first_word = true;
        while let Some(c) = self.rest.next_if(|c| *c != '\n') {
            match c {
                ' ' | '\t' | ';' | '{' | '}' | '|' | '&' | '$' | '<' | '>' => first_word = false,
                '\'' | '"' | '\\' if first_word => return self.error("a comment that begins with quotes"),
                _ => {}
            }
        }
        Ok(())
    }

    fn word(&mut self) -> Result<Token, SyntaxError> {
        let mut word = Word::new();
        let mut text = String::new();
        let mut plain = true;
        let flush = |word: &mut Word, text: &mut String| {
            if !text.is_empty() {
                word.push(Piece::Text(std::mem::take(text)));
            }
        };
        while let Some(&c) = self.rest.peek() {
            match c {
                ' ' | '\t' | '\n' | ';' | '{' | '}' | '|' | '&' | '<' | '>' => break,
                '\'' => {
                    plain = false;
                    flush(&mut word, &mut text);
                    self.next();
                    word.push(Piece::Quoted(self.until_quote()?));
                }
                '"' => {
                    plain = false;
                    flush(&mut word, &mut text);
                    self.next();
                    self.double_quoted(&mut word)?;
                }
                '$' => {
                    plain = false;
                    flush(&mut word, &mut text);
                    self.next();
                    if self.rest.peek() == Some(&'"') {
                        self.next();
                        self.double_quoted(&mut Word::new())?;
                        word.push(Piece::Translated);
                    } else {
                        word.push(Piece::Variable(self.variable()?));
                    }
                }
                '\\' => {
                    plain = false;
                    self.next();
                    match self.next() {
                        Some('\n') => {}
                        Some(c) => text.push(c),
                        None => return self.error("a backslash at the end"),
                    }
                }
                '*' | '?' if word.is_empty() && text.starts_with(['/', '(']) => {
                    return self.error("a pattern for files");
                }
                c => {
                    self.next();
                    text.push(c);
                }
            }
        }
        let plain = plain.then(|| text.clone());
        flush(&mut word, &mut text);
        if plain.as_deref() == Some("[[") || plain.as_deref() == Some("]]") {
            return self.error("[[");
        }
        Ok(Token::Word(word, plain))
    }

    fn until_quote(&mut self) -> Result<String, SyntaxError> {
        let mut text = String::new();
        loop {
            match self.next() {
                Some('\'') => return Ok(text),
                Some(c) => text.push(c),
                None => return self.error("a quote without its end"),
            }
        }
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), SyntaxError> {
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') => {
                    word.push(Piece::Quoted(text));
                    return Ok(());
                }
                Some('\\') => match self.next() {
                    Some(c @ ('$' | '\\' | '"')) => text.push(c),
                    Some('\n') => {}
                    Some(c) => text.extend(['\\', c]),
                    None => return self.error("a quote without its end"),
                },
                Some('$') => {
                    word.push(Piece::Quoted(std::mem::take(&mut text)));
                    word.push(Piece::QuotedVariable(self.variable()?));
                }
                Some(c) => text.push(c),
                None => return self.error("a quote without its end"),
            }
        }
    }

    /// A name behind a dollar sign, with braces or without.
    fn variable(&mut self) -> Result<String, SyntaxError> {
        let braced = self.rest.next_if_eq(&'{').is_some();
        let mut name = String::new();
        match self.rest.peek() {
            Some(c @ ('?' | '#' | '*' | '@')) => {
                name.push(*c);
                self.next();
            }
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            Some(c) if c.is_ascii_alphabetic() || *c == '_' => {
                while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
            _ => return self.error("a dollar sign without a name"),
        }
        if braced && self.rest.next_if_eq(&'}').is_none() {
            return self.error("a brace without its end");
        }
        Ok(name)
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
}

const RESERVED: &[&str] = &[
    "case", "do", "done", "elif", "else", "esac", "fi", "for", "if", "in", "select", "then", "until",
    "while", "function",
];

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn line(&self) -> usize {
        let last = self.tokens.last();
        self.tokens.get(self.at).or(last).map_or(1, |(line, _)| *line)
    }

    fn unexpected(&self) -> SyntaxError {
        let what = match self.peek() {
            None => "the file ends within a command".to_owned(),
            Some(Token::Word(_, Some(text))) => format!("{text} where it is not expected"),
            Some(_) => "a syntax error".to_owned(),
        };
        SyntaxError {
            line: self.line(),
            what,
        }
    }

    fn newlines(&mut self) -> bool {
        let begin = self.at;
        while self.peek() == Some(&Token::Newline) {
            self.at += 1;
        }
        self.at > begin
    }

    /// A newline or semicolon, and the newlines behind it.
    fn delimiter(&mut self) -> bool {
        if self.peek() == Some(&Token::Semicolon) {
            self.at += 1;
            self.newlines();
            return true;
        }
        self.newlines()
    }

    /// The unquoted text of the next word.
    fn plain(&self) -> Option<&str> {
        match self.peek() {
            Some(Token::Word(_, Some(text))) => Some(text),
            _ => None,
        }
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), SyntaxError> {
        if self.plain() != Some(keyword) {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    fn name(&mut self) -> Result<String, SyntaxError> {
        let is_name = |text: &&str| {
            text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !text.starts_with(|c: char| c.is_ascii_digit())
        };
        let name = self.plain().filter(is_name).map(str::to_owned);
        let name = name.ok_or_else(|| self.unexpected())?;
        self.at += 1;
        Ok(name)
    }

    fn statement(&mut self, top: bool) -> Result<Statement, SyntaxError> {
        let line = self.line();
        match self.plain() {
            Some("function") if top => {
                self.at += 1;
                let name = self.name()?;
                self.newlines();
                let body = self.block()?;
                Ok(Statement::Function { name, body })
            }
            Some("if") => {
                self.at += 1;
                let clause = self.if_clause(line)?;
                Ok(clause)
            }
            Some("for") => {
                self.at += 1;
                let name = self.name()?;
                self.keyword("in")?;
                let words = self.words();
                if !self.delimiter() {
                    return Err(self.unexpected());
                }
                self.keyword("do")?;
                let body = self.commands(&["done"])?;
                self.keyword("done")?;
                Ok(Statement::For {
                    line,
                    name,
                    words,
                    body,
                })
            }
            Some(keyword @ ("while" | "until")) => {
                let until = keyword == "until";
                self.at += 1;
                let condition = self.commands(&["do"])?;
                self.keyword("do")?;
                let body = self.commands(&["done"])?;
                self.keyword("done")?;
                Ok(Statement::While {
                    line,
                    until,
                    condition,
                    body,
                })
            }
            Some(word) if RESERVED.contains(&word) => Err(self.unexpected()),
            _ => {
                let words = self.words();
                if words.is_empty() {
                    return Err(self.unexpected());
                }
                let block = match self.peek() {
                    Some(Token::Open) => Some(self.block()?),
                    _ => None,
                };
                Ok(Statement::Command { line, words, block })
            }
        }
    }

    fn words(&mut self) -> Vec<Word> {
        let mut words = Vec::new();
        while let Some((_, Token::Word(word, _))) = self.tokens.get(self.at) {
            words.push(word.clone());
            self.at += 1;
        }
        words
    }

    fn if_clause(&mut self, line: usize) -> Result<Statement, SyntaxError> {
        self.deeper()?;
        let condition = self.commands(&["then"])?;
        self.keyword("then")?;
        let then = self.commands(&["else", "elif", "fi"])?;
        let otherwise = match self.plain() {
            Some("elif") => {
                let line = self.line();
                self.at += 1;
                // It takes the `fi` that ends all.
                let clause = self.if_clause(line)?;
                self.depth -= 1;
                return Ok(Statement::If {
                    line,
                    condition,
                    then,
                    otherwise: Some(Rc::new(vec![clause])),
                });
            }
            Some("else") => {
                self.at += 1;
                Some(self.commands(&["fi"])?)
            }
            _ => None,
        };
        self.keyword("fi")?;
        self.depth -= 1;
        Ok(Statement::If {
            line,
            condition,
            then,
            otherwise,
        })
    }

    fn deeper(&mut self) -> Result<(), SyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SyntaxError {
                line: self.line(),
                what: format!("more than {MAX_DEPTH} blocks within each other"),
            });
        }
        Ok(())
    }

    fn block(&mut self) -> Result<Block, SyntaxError> {
        if self.peek() != Some(&Token::Open) {
            return Err(self.unexpected());
        }
        self.at += 1;
        let body = self.commands(&[])?;
        if self.peek() != Some(&Token::Close) {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(body)
    }

    /// Commands up to one of the keywords, or to a closing brace. At least one.
    fn commands(&mut self, ends: &[&str]) -> Result<Block, SyntaxError> {
        self.deeper()?;
        let mut commands = Vec::new();
        self.newlines();
        loop {
            let ended = match self.peek() {
                Some(Token::Close) => ends.is_empty(),
                _ => self.plain().is_some_and(|word| ends.contains(&word)),
            };
            if ended && !commands.is_empty() {
                break;
            }
            commands.push(self.statement(false)?);
            if !self.delimiter() {
                // The last command before a closing brace needs none.
                break;
            }
        }
        self.depth -= 1;
        Ok(Rc::new(commands))
    }
}
