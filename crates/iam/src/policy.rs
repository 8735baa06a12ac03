//! Policy documents.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>

use std::collections::HashSet;

use crate::json::Json;
use crate::malformed::Malformed;
use crate::statement::Statement;

/// Characters that count: all but white space.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>
const LARGEST_DOCUMENT: usize = 10_240;

/// Bytes with white space: what the parameter `PolicyDocument` of IAM's calls may have.
const LARGEST_TEXT: usize = 131_072;

/// Bytes of a key policy.
/// <https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html#key-policy-limit>
const LARGEST_KEY_POLICY: usize = 32_768;

/// A document that was parsed and checked.
#[derive(Debug, Clone)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// What a policy is attached to, and thereby what its statements have to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// To users, groups and roles: statements name resources, and no principal.
    Identity,
    /// To roles: statements name who is trusted, and no resource.
    Trust,
    /// To keys of KMS: statements name resources, and who may use them.
    Key,
}

impl Policy {
    /// # Errors
    /// [`Malformed`], with a sentence in the manner of AWS's `MalformedPolicyDocument`.
    pub fn parse(kind: Kind, json: &str) -> Result<Policy, Malformed> {
        check_size(kind, json)?;
        let mut members = Json::parse(json)?.into_object("A policy")?;
        let variables = match members.remove("Version") {
            Some(version) => supports_variables(&version.into_text("Version")?)?,
            None => false,
        };
        if let Some(id) = members.remove("Id") {
            id.into_text("Id")?;
        }
        let elements = members
            .remove("Statement")
            .map(Json::into_list)
            .unwrap_or_default();
        if let Some(name) = members.keys().next() {
            return Err(Malformed::syntax(format_args!(
                "A policy has no element \"{name}\"."
            )));
        }
        if elements.is_empty() {
            return Err(Malformed::syntax("A policy must have a statement."));
        }
        let (mut statements, mut sids) = (Vec::new(), HashSet::new());
        for element in elements {
            let (statement, sid) = Statement::parse(kind, element, variables)?;
            statements.push(statement);
            let Some(sid) = sid.filter(|sid| !sid.is_empty()) else {
                continue;
            };
            if kind == Kind::Identity && !sid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(Malformed::new(
                    "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression \
                     [0-9A-Za-z]*",
                ));
            }
            if !sids.insert(sid) {
                return Err(Malformed::new(
                    "Statement IDs (SID) in a single policy must be unique.",
                ));
            }
        }
        Ok(Policy { statements })
    }

    pub(crate) fn statements(&self) -> &[Statement] {
        &self.statements
    }
}

fn check_size(kind: Kind, json: &str) -> Result<(), Malformed> {
    let characters = || {
        json.chars()
            .filter(|character| !character.is_whitespace())
            .count()
    };
    match kind {
        Kind::Key if json.len() > LARGEST_KEY_POLICY => Err(Malformed::new(format!(
            "Key policies have at most {LARGEST_KEY_POLICY} bytes."
        ))),
        Kind::Identity | Kind::Trust if json.len() > LARGEST_TEXT || characters() > LARGEST_DOCUMENT => {
            Err(Malformed::new(format!(
                "Policy documents have at most {LARGEST_DOCUMENT} characters without white space."
            )))
        }
        _ => Ok(()),
    }
}

/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_version.html>
fn supports_variables(version: &str) -> Result<bool, Malformed> {
    match version {
        "2012-10-17" => Ok(true),
        "2008-10-17" => Ok(false),
        other => Err(Malformed::new(format!(
            "The policy version \"{other}\" is not valid. It must be 2012-10-17 or 2008-10-17."
        ))),
    }
}
