//! JMESPath, as jmespath.py has it.

use jpx_core::Expression;
use serde_json::Value;

use crate::error::CliError;

/// # Errors
/// The expression of `--query` is none.
pub(crate) fn compile(expression: &str) -> Result<Expression<'static>, CliError> {
    let bad = |e| CliError::Usage(format!("Bad value for --query {expression}: {e}"));
    jpx_core::compile(&with_words_quoted(expression)).map_err(bad)
}

/// # Errors
/// A function of the expression does not take what it is given.
pub(crate) fn search(expression: &Expression<'_>, value: &Value) -> Result<Value, CliError> {
    let bad = |e| CliError::Usage(format!("Bad value for --query: {e}"));
    expression.search(value).map_err(bad)
}

/// Literals that are no JSON are strings (JEP 12): `` `running` `` is `` `"running"` ``.
fn with_words_quoted(expression: &str) -> String {
    let mut quoted = String::new();
    let mut rest = expression;
    while let Some(start) = rest.find(['`', '"', '\'']) {
        let Some((length, delimiter)) = delimited(&rest[start..]) else {
            break;
        };
        let (before, from) = rest.split_at(start);
        let (literal, after) = from.split_at(length);
        let inner = &literal[1..length - 1];
        let is_word = delimiter == b'`' && serde_json::from_str::<Value>(&inner.replace("\\`", "`")).is_err();
        quoted.push_str(before);
        match is_word {
            true => quoted.push_str(&format!("`\"{}\"`", inner.trim_start())),
            false => quoted.push_str(literal),
        }
        rest = after;
    }
    quoted + rest
}

/// How long the part between delimiters is that a text begins with, with the delimiters; `None` if it does not end.
fn delimited(text: &str) -> Option<(usize, u8)> {
    let mut bytes = text.bytes().enumerate();
    let (_, delimiter) = bytes.next()?;
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            byte if byte == delimiter => return Some((at + 1, delimiter)),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_jmespath_py_has_it() {
        let value =
            json!({ "A": [{ "N": "one", "S": "running" }, { "N": "two", "S": "it`s" }], "t": "2026-01-02" });
        for (expression, expected) in [
            ("A[?S==`running`].N", json!(["one"])),
            ("A[?S=='running'].N", json!(["one"])),
            (r#"A[?S==`"running"`].N"#, json!(["one"])),
            (r"A[?S==`it\`s`].N", json!(["two"])),
            ("length(A) > `1`", json!(true)),
            ("t >= `2026-01-01`", json!(true)),
            ("'`running`'", json!("`running`")),
            ("` a`", json!("a")),
            ("`[1, 2]`", json!([1, 2])),
        ] {
            let found = search(&compile(expression).unwrap(), &value).unwrap();
            assert_eq!(found, expected, "{expression}");
        }
        let hash = search(&compile("A[0].{S: S, N: N}").unwrap(), &value).unwrap();
        assert_eq!(hash.to_string(), r#"{"S":"running","N":"one"}"#);
        for expression in ["a[[", "`unclosed", "'", "`\"`"] {
            assert!(compile(expression).is_err(), "{expression}");
        }
    }
}
