//! What several calls check alike: ids, tags, ClientTokens.

use std::collections::HashSet;

use hearth_api::v1::{Tag, TagSpecification};
use hearth_api::{ApiError, ErrorCode, Id, Kind};

/// Ids of a batch: well-formed, each once, in the order given.
///
/// # Errors
/// `MissingParameter` without any, `Invalid...Malformed` for a wrong one.
pub(super) fn ids(kind: Kind, given: &[String], parameter: &str) -> Result<Vec<String>, ApiError> {
    if given.is_empty() {
        return Err(ApiError::missing(parameter));
    }
    let mut seen = HashSet::new();
    let mut ids = Vec::with_capacity(given.len());
    for text in given {
        let id = Id::parse(kind, text)?.to_string();
        if seen.insert(id.clone()) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// The one id of a call.
///
/// # Errors
/// `MissingParameter` without one, `Invalid...Malformed` for a wrong one.
pub(super) fn id(kind: Kind, given: &str, parameter: &str) -> Result<Id, ApiError> {
    if given.is_empty() {
        return Err(ApiError::missing(parameter));
    }
    Id::parse(kind, given)
}

/// For Describe calls: checks the ids, and that each is known.
///
/// # Errors
/// `Invalid...Malformed`, `Invalid...NotFound`.
pub(super) fn all_known(
    kind: Kind,
    wanted: &[String],
    is_known: impl Fn(&str) -> bool,
) -> Result<(), ApiError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted = ids(kind, wanted, "Ids")?;
    let missing: Vec<&String> = wanted.iter().filter(|id| !is_known(id)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(kind.not_found(&missing))
    }
}

/// Tags that a resource may have.
pub(super) const MAX_TAGS: usize = 50;

/// # Errors
/// A key or value that EC2 does not admit, a key twice, or too many.
pub(super) fn check_tags(tags: &[Tag]) -> Result<(), ApiError> {
    let mut keys = HashSet::new();
    for tag in tags {
        let Tag { key, value } = tag;
        check_tag_key(key)?;
        super::ssm::check_tag(tag)?;
        if value.chars().count() > 255 {
            return Err(ApiError::invalid_value(
                "Tag.Value",
                value,
                "At most 255 characters are admitted.",
            ));
        }
        if !keys.insert(key) {
            return Err(ApiError::invalid_value("Tag.Key", key, "Name each key once."));
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(too_many_tags());
    }
    Ok(())
}

pub(super) fn check_tag_key(key: &str) -> Result<(), ApiError> {
    if key.is_empty() || key.chars().count() > 127 || key.to_ascii_lowercase().starts_with("aws:") {
        return Err(ApiError::new(
            ErrorCode::InvalidTagKeyMalformed,
            format!(
                "The tag key '{key}' is not valid: 1 to 127 characters are, which do not begin with 'aws:'."
            ),
        ));
    }
    Ok(())
}

/// Of tags that the instance's metadata has, where a key is a segment of a path (EC2 user guide, "View tags for your EC2
/// instances using instance metadata").
///
/// # Errors
/// `InvalidParameterValue` for a key with other characters than letters, digits and `+-=.,_:@`, or a reserved one.
pub(super) fn check_metadata_tags(tags: &[Tag]) -> Result<(), ApiError> {
    let admitted = |key: &str| {
        key.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-=.,_:@".contains(&b))
            && ![".", "..", "_index"].contains(&key)
    };
    match tags.iter().find(|tag| !admitted(&tag.key)) {
        None => Ok(()),
        Some(tag) => Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            format!(
                "'{}' is not a valid tag key. Tag keys must match pattern ([0-9a-zA-Z\\-_+=,.@:]{{1,255}}), and must not \
                 be a reserved name ('.', '..', '_index'), where InstanceMetadataTags is enabled.",
                tag.key
            ),
        )),
    }
}

pub(super) fn too_many_tags() -> ApiError {
    ApiError::new(
        ErrorCode::TagLimitExceeded,
        format!("A resource has at most {MAX_TAGS} tags; remove some first."),
    )
}

/// The tags that a call's specifications have for a kind of resource.
///
/// # Errors
/// A specification for what the call does not make, or bad tags.
pub(super) fn tags_for(
    specifications: &[TagSpecification],
    made: &[Kind],
    kind: Kind,
) -> Result<Vec<Tag>, ApiError> {
    for specification in specifications {
        if !made
            .iter()
            .any(|kind| kind.resource_type() == specification.resource_type)
        {
            let admitted: Vec<_> = made.iter().map(|kind| kind.resource_type()).collect();
            return Err(ApiError::invalid_value(
                "TagSpecification.ResourceType",
                &specification.resource_type,
                format!("This call makes: {}.", admitted.join(", ")),
            ));
        }
    }
    let tags: Vec<Tag> = specifications
        .iter()
        .filter(|s| s.resource_type == kind.resource_type())
        .flat_map(|s| s.tags.iter().cloned())
        .collect();
    check_tags(&tags)?;
    Ok(tags)
}

/// # Errors
/// `InvalidParameterValue` for a token that EC2 does not admit.
pub(super) fn check_client_token(token: &str) -> Result<(), ApiError> {
    if token.len() > 64 || !token.is_ascii() {
        return Err(ApiError::invalid_value(
            "ClientToken",
            token,
            "At most 64 ASCII characters are admitted.",
        ));
    }
    Ok(())
}
