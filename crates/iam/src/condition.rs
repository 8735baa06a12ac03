//! The `Condition` element.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition.html>

use crate::context::Context;
use crate::json::Json;
use crate::malformed::Malformed;
use crate::operator::{Operator, Set};
use crate::pattern::fold;
use crate::values::Values;

/// One operator and one key. All conditions of a statement must hold.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    operator: Operator,
    /// Folded: names of keys are case-insensitive.
    key: String,
    values: Values,
}

impl Condition {
    pub fn parse_all(block: Json, variables: bool) -> Result<Vec<Self>, Malformed> {
        let mut conditions = Vec::new();
        for (name, keys) in block.into_object("Condition")? {
            let operator = Operator::parse(&name).ok_or_else(|| {
                Malformed::syntax(format_args!("The condition operator \"{name}\" is not known."))
            })?;
            for (key, values) in keys.into_object(&name)? {
                if !key.contains(':') {
                    return Err(Malformed::new(
                        "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
                    ));
                }
                let texts = texts(values, &key)?;
                conditions.push(Self {
                    operator,
                    values: Values::parse(operator.test, &texts, variables)?,
                    key: fold(&key),
                });
            }
        }
        Ok(conditions)
    }

    /// Several values of a policy are alternatives. A negated operator excludes all of them.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html>
    pub fn holds(&self, context: &Context) -> bool {
        let Operator {
            set,
            negated,
            if_exists,
            ..
        } = self.operator;
        let found = context.folded(&self.key).unwrap_or_default();
        // An empty string counts as no value for Null and for the set operators. For all others it is a value.
        let null = found.iter().all(String::is_empty);
        if let Values::Absent(wanted) = &self.values {
            return wanted.contains(&null);
        }
        if found.is_empty() && if_exists {
            return true;
        }
        let holds = |value: &String| self.values.any_matches(value, context) != negated;
        match set {
            Some(Set::ForAllValues) => null || found.iter().all(holds),
            Some(Set::ForAnyValue) => !null && found.iter().any(holds),
            None if negated => found.iter().all(holds),
            None => found.iter().any(holds),
        }
    }
}

/// Values are strings. Those that look like numbers or booleans need no quotation marks.
fn texts(values: Json, key: &str) -> Result<Vec<String>, Malformed> {
    let mut texts = Vec::new();
    for value in values.into_list() {
        texts.push(match value {
            Json::Text(text) | Json::Number(text) => text,
            Json::Bool(value) => value.to_string(),
            Json::Null | Json::List(_) | Json::Object(_) => {
                return Err(Malformed::syntax(format_args!(
                    "Values of the condition key \"{key}\" must be strings."
                )));
            }
        });
    }
    if texts.is_empty() {
        return Err(Malformed::syntax(format_args!(
            "The condition key \"{key}\" must have a value."
        )));
    }
    Ok(texts)
}
