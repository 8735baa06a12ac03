//! ARNs with wildcards.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>

use crate::context::Context;
use crate::malformed::Malformed;
use crate::pattern::{Pattern, Syntax, split_at_colons};

/// `arn:partition:service:region:account:resource`
pub(crate) const SEGMENTS: usize = 6;

/// Each segment is matched by itself. The last one has what colons it likes.
#[derive(Debug, Clone)]
pub(crate) enum ArnPattern {
    /// `*`
    Everything,
    Segments(Vec<Pattern>),
    /// Text that is no ARN.
    Nothing,
}

impl ArnPattern {
    pub fn parse(text: &str, variables: bool) -> Result<Self, Malformed> {
        if text == "*" {
            return Ok(ArnPattern::Everything);
        }
        let syntax = Syntax {
            variables,
            wildcards: true,
            fold: false,
        };
        let segments = split_at_colons(text, SEGMENTS, variables);
        if segments.len() != SEGMENTS {
            return Ok(ArnPattern::Nothing);
        }
        let segments = segments
            .into_iter()
            .map(|segment| Pattern::parse(segment, syntax));
        Ok(ArnPattern::Segments(segments.collect::<Result<_, _>>()?))
    }

    /// As elements `Resource` and `NotResource` have them.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html>
    pub fn parse_resource(text: &str, variables: bool) -> Result<Self, Malformed> {
        let pattern = Self::parse(text, variables)?;
        let ArnPattern::Segments(patterns) = &pattern else {
            return match pattern {
                ArnPattern::Everything => Ok(pattern),
                _ => Err(not_an_arn(text)),
            };
        };
        let [prefix, partition, service, ..] = split_at_colons(text, SEGMENTS, variables)[..] else {
            return Err(not_an_arn(text));
        };
        if prefix != "arn" {
            return Err(not_an_arn(text));
        }
        if partition.is_empty() {
            return Err(Malformed::new(format!(
                "Partition \"\" is not valid for resource \"{text}\"."
            )));
        }
        if service.is_empty() || service.contains(['*', '?']) {
            return Err(Malformed::new(
                "Resource vendor must be fully qualified and cannot contain regexes.",
            ));
        }
        let mut before_the_resource = patterns.iter().take(SEGMENTS - 1);
        if before_the_resource.any(Pattern::has_variables) {
            return Err(Malformed::new(format!(
                "Resource {text} has a variable before its fifth colon. Variables can only be in the last part of an ARN."
            )));
        }
        Ok(pattern)
    }

    pub fn matches(&self, arn: &str, context: &Context) -> bool {
        match self {
            ArnPattern::Everything => true,
            ArnPattern::Nothing => false,
            ArnPattern::Segments(patterns) => {
                let mut segments = arn.splitn(SEGMENTS, ':');
                patterns.iter().all(|pattern| {
                    segments
                        .next()
                        .is_some_and(|segment| pattern.matches(segment, context))
                })
            }
        }
    }

    /// Whether all variables have values.
    pub fn resolves(&self, context: &Context) -> bool {
        match self {
            ArnPattern::Everything | ArnPattern::Nothing => true,
            ArnPattern::Segments(patterns) => patterns.iter().all(|pattern| pattern.resolves(context)),
        }
    }
}

fn not_an_arn(resource: &str) -> Malformed {
    Malformed::new(format!("Resource {resource} must be in ARN format or \"*\"."))
}
