//! The command `test`, also spelled `[` (GRUB manual, "test").

use std::rc::Rc;

use super::values::{Args, Value};
use crate::fs::{FsError, Kind};

/// Parentheses within each other.
const MAX_DEPTH: usize = 16;

/// True, false, or why neither is certain.
pub(super) type Truth = Result<bool, Rc<str>>;

/// What a path names, the outer error ending the evaluation and the inner one telling why it is not known.
pub(super) type Look<'a> = dyn FnMut(&str) -> Result<Result<Option<Kind>, Rc<str>>, FsError> + 'a;

/// Evaluates the arguments behind the command's name.
pub(super) fn test(args: &Args, look: &mut Look<'_>) -> Result<Truth, FsError> {
    if let Some(why) = &args.uncertain {
        return Ok(Err(Rc::clone(why)));
    }
    let mut values = &args.values[..];
    if let Some((last, rest)) = values.split_last()
        && last.text() == Ok("]")
    {
        values = rest;
    }
    let mut test = Test { values, at: 0, look };
    test.expression(0)
}

struct Test<'a, 'b> {
    values: &'a [Value],
    at: usize,
    look: &'a mut Look<'b>,
}

fn and(a: Truth, b: Truth) -> Truth {
    match (a, b) {
        (Ok(false), _) | (_, Ok(false)) => Ok(false),
        (Ok(true), other) | (other, Ok(true)) => other,
        (unknown, _) => unknown,
    }
}

fn or(a: Truth, b: Truth) -> Truth {
    and(a.map(|a| !a), b.map(|b| !b)).map(|c| !c)
}

impl Test<'_, '_> {
    fn get(&self, ahead: usize) -> Option<&Value> {
        self.values.get(self.at + ahead)
    }

    fn text(&self, ahead: usize) -> Option<&str> {
        self.get(ahead).and_then(|value| value.text().ok())
    }

    fn expression(&mut self, depth: usize) -> Result<Truth, FsError> {
        if depth > MAX_DEPTH {
            return Ok(Err(Rc::from("a test with too many parentheses")));
        }
        let (mut either, mut all, mut invert) = (Ok(false), Ok(true), false);
        while self.at < self.values.len() {
            let value = match self.primary()? {
                Some(value) => value,
                None => match self.text(0) {
                    Some(")") => {
                        self.at += 1;
                        break;
                    }
                    Some("(") => {
                        self.at += 1;
                        self.expression(depth + 1)?
                    }
                    Some("!") => {
                        self.at += 1;
                        invert = !invert;
                        continue;
                    }
                    Some("-a") => {
                        self.at += 1;
                        continue;
                    }
                    Some("-o") => {
                        self.at += 1;
                        either = or(either, all);
                        all = Ok(true);
                        continue;
                    }
                    Some(text) => {
                        let truth = !text.is_empty();
                        self.at += 1;
                        Ok(truth)
                    }
                    // It may be an operator as well as a string.
                    None => return Ok(self.unknown(0)),
                },
            };
            all = and(all, if invert { value.map(|value| !value) } else { value });
            invert = false;
        }
        Ok(or(either, all))
    }

    fn unknown(&self, ahead: usize) -> Truth {
        match self.get(ahead) {
            Some(Value::Unknown(why)) => Err(Rc::clone(why)),
            _ => Err(Rc::from("a test")),
        }
    }

    /// A test with two or one operands, if there is one here.
    fn primary(&mut self) -> Result<Option<Truth>, FsError> {
        if self.get(2).is_some() {
            let Some(operator) = self.text(1).map(str::to_owned) else {
                return Ok(Some(self.skip(1)));
            };
            if let Some(truth) = self.binary(&operator) {
                self.at += 3;
                return Ok(Some(truth));
            }
        }
        if self.get(1).is_none() {
            return Ok(None);
        }
        let truth = match self.text(0) {
            Some(test @ ("-d" | "-e" | "-f" | "-s")) => {
                let test = test.to_owned();
                self.file(&test)?
            }
            Some("-n") => self.operand(1).map(|text| !text.is_empty()),
            Some("-z") => self.operand(1).map(str::is_empty),
            _ => return Ok(None),
        };
        self.at += 2;
        Ok(Some(truth))
    }

    /// Nothing behind an argument that may be an operator is certain.
    fn skip(&mut self, ahead: usize) -> Truth {
        let truth = self.unknown(ahead);
        self.at = self.values.len();
        truth
    }

    fn operand(&self, ahead: usize) -> Result<&str, Rc<str>> {
        match self.get(ahead) {
            Some(value) => value.text().map_err(Rc::clone),
            None => Ok(""),
        }
    }

    fn binary(&self, operator: &str) -> Option<Truth> {
        let operands = || Ok((self.operand(0)?, self.operand(2)?));
        let strings = |holds: fn(&str, &str) -> bool| operands().map(|(a, b)| holds(a, b));
        let numbers = |holds: fn(i64, i64) -> bool| {
            operands().and_then(|(a, b)| match (number(a), number(b)) {
                (Some(a), Some(b)) => Ok(holds(a, b)),
                _ => Err(Rc::from(format!("a comparison of {a} and {b} as numbers"))),
            })
        };
        Some(match operator {
            "=" | "==" => strings(|a, b| a == b),
            "!=" => strings(|a, b| a != b),
            "<" => strings(|a, b| a < b),
            "<=" => strings(|a, b| a <= b),
            ">" => strings(|a, b| a > b),
            ">=" => strings(|a, b| a >= b),
            "-eq" => numbers(|a, b| a == b),
            "-ne" => numbers(|a, b| a != b),
            "-lt" => numbers(|a, b| a < b),
            "-le" => numbers(|a, b| a <= b),
            "-gt" => numbers(|a, b| a > b),
            "-ge" => numbers(|a, b| a >= b),
            "-pgt" | "-plt" => Err(Rc::from(format!("the test {operator}"))),
            _ if operator.starts_with("-nt") || operator.starts_with("-ot") => {
                Err(Rc::from(format!("the test {operator}")))
            }
            _ => return None,
        })
    }

    fn file(&mut self, test: &str) -> Result<Truth, FsError> {
        let path = match self.operand(1) {
            Ok(path) => path.to_owned(),
            Err(why) => return Ok(Err(why)),
        };
        let kind = (self.look)(&path)?;
        Ok(kind.map(|kind| match (test, kind) {
            ("-d", kind) => kind == Some(Kind::Directory),
            ("-e", kind) => kind.is_some(),
            ("-f", kind) => matches!(kind, Some(Kind::File(_))),
            (_, kind) => matches!(kind, Some(Kind::File(len)) if len > 0),
        }))
    }
}

/// Decimal digits with a sign. What `strtoul` makes of other text depends on GRUB's version.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits == "0" || !digits.starts_with('0');
    if plain && digits.chars().all(|c| c.is_ascii_digit()) {
        return text.parse().ok();
    }
    None
}
