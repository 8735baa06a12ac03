//! Why a document is not a policy.

/// What is wrong with a policy document, in the manner of AWS's `MalformedPolicyDocument`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// AWS says no more than the first sentence.
    pub(crate) fn syntax(detail: impl std::fmt::Display) -> Self {
        Self(format!("Syntax errors in policy. {detail}"))
    }
}
