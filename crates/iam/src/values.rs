//! Values of conditions, by the type that their operator compares.

use std::cmp::Ordering;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::arn::ArnPattern;
use crate::context::Context;
use crate::malformed::Malformed;
use crate::operator::{Comparison, Test};
use crate::pattern::{Pattern, Syntax, fold};

/// What a policy compares a key with. One of the values is enough.
#[derive(Debug, Clone)]
pub(crate) enum Values {
    Texts(Vec<Pattern>),
    /// Both sides are folded.
    TextsOfAnyCase(Vec<Pattern>),
    Numbers(Comparison, Vec<Number>),
    Dates(Comparison, Vec<Timestamp>),
    Bools(Vec<Pattern>),
    Bytes(Vec<Vec<u8>>),
    Networks(Vec<IpNet>),
    Arns(Vec<ArnPattern>),
    /// Whether the key has to be absent.
    Absent(Vec<bool>),
}

impl Values {
    /// Variables are for strings, ARNs and booleans.
    pub fn parse(test: Test, texts: &[String], variables: bool) -> Result<Self, Malformed> {
        let syntax = Syntax {
            variables,
            ..Syntax::default()
        };
        let all = |syntax| each(texts, |text| Pattern::parse(text, syntax));
        Ok(match test {
            Test::StringEquals => Values::Texts(all(syntax)?),
            Test::StringLike => Values::Texts(all(Syntax {
                wildcards: true,
                ..syntax
            })?),
            Test::StringEqualsIgnoreCase => Values::TextsOfAnyCase(all(Syntax { fold: true, ..syntax })?),
            Test::Numeric(comparison) => Values::Numbers(comparison, typed(texts, "a number", number)?),
            Test::Date(comparison) => Values::Dates(comparison, typed(texts, "a date", date)?),
            Test::Bool => Values::Bools(each(texts, |text| {
                let pattern = Pattern::parse(text, Syntax { fold: true, ..syntax })?;
                if boolean(text).is_none() && !pattern.has_variables() {
                    return Err(mistyped(text, "true or false"));
                }
                Ok(pattern)
            })?),
            Test::Binary => Values::Bytes(typed(texts, "base64", bytes)?),
            Test::IpAddress => Values::Networks(typed(texts, "an IP address or a CIDR block", network)?),
            Test::Arn => Values::Arns(each(texts, |text| ArnPattern::parse(text, variables))?),
            Test::Null => Values::Absent(typed(texts, "true or false", boolean)?),
        })
    }

    /// Whether a value of the request matches one of these. A value of another type matches none.
    pub fn any_matches(&self, value: &str, context: &Context) -> bool {
        match self {
            Values::Texts(patterns) => patterns.iter().any(|pattern| pattern.matches(value, context)),
            Values::TextsOfAnyCase(patterns) | Values::Bools(patterns) => {
                let value = fold(value);
                patterns.iter().any(|pattern| pattern.matches(&value, context))
            }
            Values::Numbers(comparison, wanted) => number(value).is_some_and(|found| {
                wanted.iter().any(|wanted| {
                    found
                        .compare(wanted)
                        .is_some_and(|ordering| comparison.holds(ordering))
                })
            }),
            Values::Dates(comparison, wanted) => date(value)
                .is_some_and(|found| wanted.iter().any(|wanted| comparison.holds(found.cmp(wanted)))),
            Values::Bytes(wanted) => bytes(value).is_some_and(|found| wanted.contains(&found)),
            Values::Networks(networks) => value
                .parse::<IpAddr>()
                .is_ok_and(|address| networks.iter().any(|network| network.contains(&address))),
            Values::Arns(patterns) => patterns.iter().any(|pattern| pattern.matches(value, context)),
            // Tests the key, not its values.
            Values::Absent(_) => false,
        }
    }
}

fn each<T>(texts: &[String], parse: impl Fn(&str) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
    texts.iter().map(|text| parse(text)).collect()
}

fn typed<T>(texts: &[String], what: &str, parse: fn(&str) -> Option<T>) -> Result<Vec<T>, Malformed> {
    each(texts, |text| parse(text).ok_or_else(|| mistyped(text, what)))
}

fn mistyped(text: &str, what: &str) -> Malformed {
    Malformed::syntax(format_args!("The condition value \"{text}\" is not {what}."))
}

/// An integer or a decimal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number {
    /// Integers are compared exactly.
    integer: Option<i128>,
    decimal: f64,
}

impl Number {
    fn compare(&self, other: &Number) -> Option<Ordering> {
        match (self.integer, other.integer) {
            (Some(this), Some(other)) => Some(this.cmp(&other)),
            _ => self.decimal.partial_cmp(&other.decimal),
        }
    }
}

fn number(text: &str) -> Option<Number> {
    let decimal = text.parse().ok().filter(|decimal: &f64| decimal.is_finite())?;
    Some(Number {
        integer: text.parse().ok(),
        decimal,
    })
}

fn boolean(text: &str) -> Option<bool> {
    match fold(text).as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// An address is a network of one.
fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse().ok(),
    }
}

/// ISO 8601 in the forms of <https://www.w3.org/TR/NOTE-datetime>, or seconds of the epoch. Four digits are a year. A time
/// without a zone is UTC.
fn date(text: &str) -> Option<Timestamp> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && text.len() != 4 {
        return Timestamp::from_second(text.parse().ok()?).ok();
    }
    let day = match text.len() {
        4 => format!("{text}-01-01"),
        7 => format!("{text}-01"),
        _ => text.to_owned(),
    };
    if let Ok(timestamp) = day.parse() {
        return Some(timestamp);
    }
    let time = match day.parse::<DateTime>() {
        Ok(time) => time,
        Err(_) => day
            .parse::<Date>()
            .ok()?
            .to_datetime(jiff::civil::Time::midnight()),
    };
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_iso_8601_or_seconds() {
        let second = |text: &str| date(text).map(Timestamp::as_second);
        let same = [
            "2020-01-01T00:00:00Z",
            "2020-01-01T01:00:00+01:00",
            "2020-01-01T00:00Z",
            "2020-01-01T01:00+01:00",
            "2020-01-01T00:00:00.000Z",
            "2020-01-01T00:00:00",
            "2020-01-01",
            "2020-01",
            "2020",
            "1577836800",
        ];
        for text in same {
            assert_eq!(second(text), Some(1_577_836_800), "{text}");
        }
        assert_eq!(second("-1"), Some(-1));
        for text in [
            "",
            "-",
            "yesterday",
            "2020-13-01",
            "2020-01-01*",
            "99999999999999999999",
        ] {
            assert_eq!(second(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_integers_or_decimals() {
        let compare = |a: &str, b: &str| number(a).unwrap().compare(&number(b).unwrap()).unwrap();
        assert!(compare("10", "9").is_gt());
        assert!(compare("1.50", "1.5").is_eq());
        assert!(compare("-1", "0.5").is_lt());
        assert!(compare("9007199254740993", "9007199254740992").is_gt());
        for text in ["", "ten", "inf", "NaN", "1e999", "1,5", " 1"] {
            assert!(number(text).is_none(), "{text}");
        }
    }
}
