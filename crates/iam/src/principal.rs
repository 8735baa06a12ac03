//! Who asks, and how trust policies name them.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html>

use crate::arn::SEGMENTS;
use crate::json::Json;
use crate::malformed::Malformed;

/// Who asks, as trust policies name them.
#[derive(Debug, Clone, Copy)]
pub enum Principal<'a> {
    /// The ARN of the user.
    User(&'a str),
    /// A session of a role: the ARN of the role, and that of the session.
    AssumedRole { role_arn: &'a str, session_arn: &'a str },
    /// The ARN of the account's root.
    Root(&'a str),
    /// Such as `ec2.amazonaws.com`.
    Service(&'a str),
}

/// A principal in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// `*`
    Everyone,
    /// By its root's ARN, or by its number.
    Account(String),
    /// A user, a role, a session of a role, or a federated user.
    Arn(String),
    Service(String),
    /// Of an identity provider. No [`Principal`] is one.
    Federated,
}

/// How a policy names a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    Itself,
    /// Only the account.
    Account,
}

impl Named {
    /// Of the elements `Principal` and `NotPrincipal`.
    pub fn parse_all(element: Json) -> Result<Vec<Self>, Malformed> {
        let types = match element {
            Json::Text(text) if text == "*" => return Ok(vec![Named::Everyone]),
            Json::Object(types) => types,
            _ => return Err(Malformed::new("Invalid principal in policy.")),
        };
        let mut named = Vec::new();
        for (kind, names) in types {
            for name in names.into_texts(&kind)? {
                let principal = Self::parse(&kind, &name).ok_or_else(|| {
                    Malformed::new(format!("Invalid principal in policy: \"{kind}\":\"{name}\""))
                })?;
                named.push(principal);
            }
        }
        if named.is_empty() {
            return Err(Malformed::new(
                "Missing required field Principal cannot be empty!",
            ));
        }
        Ok(named)
    }

    /// No part of a name can be a wildcard.
    fn parse(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "AWS" if name == "*" => Some(Named::Everyone),
            _ if name.is_empty() || name.contains(['*', '?']) => None,
            "AWS" if is_account(name) => Some(Named::Account(name.to_owned())),
            "AWS" => Self::parse_arn(name),
            "Service" => Some(Named::Service(name.to_owned())),
            "Federated" => Some(Named::Federated),
            _ => None,
        }
    }

    fn parse_arn(arn: &str) -> Option<Self> {
        let mut segments = arn.splitn(SEGMENTS, ':');
        let (prefix, _partition, service) = (segments.next()?, segments.next()?, segments.next()?);
        let (region, account, resource) = (segments.next()?, segments.next()?, segments.next()?);
        if prefix != "arn" || !region.is_empty() || !is_account(account) {
            return None;
        }
        match (service, resource.split_once('/')) {
            ("iam", None) if resource == "root" => Some(Named::Account(account.to_owned())),
            ("iam", Some(("user" | "role", name)))
            | ("sts", Some(("assumed-role" | "federated-user", name)))
                if !name.is_empty() =>
            {
                Some(Named::Arn(arn.to_owned()))
            }
            _ => None,
        }
    }

    pub fn names(&self, principal: &Principal<'_>) -> Option<Naming> {
        let itself = |is: bool| is.then_some(Naming::Itself);
        match (self, principal) {
            (Named::Everyone, _) => Some(Naming::Itself),
            (Named::Account(account), Principal::Root(arn)) => itself(account_of(arn) == Some(account)),
            (
                Named::Account(account),
                Principal::User(arn) | Principal::AssumedRole { session_arn: arn, .. },
            ) => (account_of(arn) == Some(account)).then_some(Naming::Account),
            (Named::Arn(named), Principal::User(arn)) => itself(named == arn),
            (
                Named::Arn(named),
                Principal::AssumedRole {
                    role_arn,
                    session_arn,
                },
            ) => itself(named == role_arn || named == session_arn),
            (Named::Service(named), Principal::Service(service)) => itself(named == service),
            _ => None,
        }
    }

    /// Whether `NotPrincipal` excepts a principal. The name of its account, or that of its role, is not enough.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notprincipal.html>
    pub fn excepts(&self, principal: &Principal<'_>) -> bool {
        match (self, principal) {
            (Named::Arn(named), Principal::AssumedRole { session_arn, .. }) => named == session_arn,
            _ => self.names(principal) == Some(Naming::Itself),
        }
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4)
}
