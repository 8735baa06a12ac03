//! IAM's calls: users, groups, roles, instance profiles, policies.
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_Operations.html>

use hearth_api::v1::Tag;
use hearth_api::{ApiError, ErrorCode};

use super::{input, serve};
use crate::app::App;
use crate::iam::Identity;
use crate::state::{Entity, State, Tags, User};

mod access_keys;
mod grants;
mod groups;
mod instance_profiles;
mod pages;
mod policies;
mod roles;
mod users;

pub(super) use access_keys::MOST as MOST_KEYS;
pub(super) use grants::MOST_ATTACHED;
pub(super) use groups::{Groups, MOST as MOST_GROUPS};
pub(super) use instance_profiles::InstanceProfiles;
pub(super) use policies::Policies;
pub(super) use roles::Roles;
pub(super) use users::Users;

/// A name that a request gives. `most` is its length in characters.
///
/// # Errors
/// `ValidationError`.
fn check_name(parameter: &str, name: &str, most: usize) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(invalid(parameter, "Member must not be null"));
    }
    if name.len() > most {
        return Err(invalid(
            parameter,
            &format!("Member must have length less than or equal to {most}"),
        ));
    }
    if !is_name(name) {
        let pattern = "Member must satisfy regular expression pattern: [\\w+=,.@-]+";
        return Err(invalid(parameter, pattern));
    }
    Ok(())
}

/// Whether a text has the characters of names, of sessions too.
pub(super) fn is_name(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c))
}

/// The path that a request gives, or `/`.
///
/// # Errors
/// `ValidationError`.
fn check_path(path: String) -> Result<String, ApiError> {
    let is_path =
        path.starts_with('/') && path.ends_with('/') && path.bytes().all(|b| (0x21..0x7f).contains(&b));
    match path {
        empty if empty.is_empty() => Ok("/".to_owned()),
        path if is_path && !path.contains("//") => Ok(path),
        _ => Err(invalid(
            "path",
            "It must begin and end with / and contain only alphanumeric characters and/or / characters.",
        )),
    }
}

/// `ValidationError`, in IAM's and STS's sentence.
pub(super) fn invalid(parameter: &str, why: &str) -> ApiError {
    let message =
        format!("1 validation error detected: Value at '{parameter}' failed to satisfy constraint: {why}");
    ApiError::new(ErrorCode::ValidationError, message)
}

/// # Errors
/// `NoSuchEntity`.
fn find<'s, E: Entity>(state: &'s State, account_id: &str, name: &str) -> Result<&'s E, ApiError> {
    state
        .named(account_id, name)
        .ok_or_else(|| no_such(format!("The {} with name {name} cannot be found.", E::NOUN)))
}

fn no_such(message: String) -> ApiError {
    ApiError::new(ErrorCode::NoSuchEntity, message)
}

/// The user that a request names, or the calling one.
///
/// # Errors
/// `NoSuchEntity`; `ValidationError` when none is named and the caller is no user.
fn find_user<'s>(app: &App, state: &'s State, name: &str) -> Result<&'s User, ApiError> {
    if !name.is_empty() {
        return find(state, &app.account(), name);
    }
    match Identity::current(state, &app.account())? {
        Identity::User(user) => Ok(user),
        _ => Err(ApiError::new(
            ErrorCode::ValidationError,
            "Must specify userName when calling with non-User credentials",
        )),
    }
}

/// # Errors
/// `EntityAlreadyExists`, or `LimitExceeded`: there are as many as there may be.
fn refuse_twice<E: Entity>(state: &State, account_id: &str, name: &str) -> Result<(), ApiError> {
    if state.named::<E>(account_id, name).is_none() {
        let (quota, most) = E::QUOTA;
        return match state.count_of::<E>(account_id) < most {
            true => Ok(()),
            false => Err(limit_exceeded(quota, most)),
        };
    }
    let mut noun = E::NOUN.to_owned();
    noun[..1].make_ascii_uppercase();
    Err(ApiError::new(
        ErrorCode::EntityAlreadyExists,
        format!("{noun} with name {name} already exists."),
    ))
}

fn delete_conflict(first: &str) -> ApiError {
    ApiError::new(
        ErrorCode::DeleteConflict,
        format!("Cannot delete entity, must {first} first."),
    )
}

fn limit_exceeded(quota: &str, most: usize) -> ApiError {
    ApiError::new(
        ErrorCode::LimitExceeded,
        format!("Cannot exceed quota for {quota}: {most}"),
    )
}

/// Tags that a request adds to others.
///
/// # Errors
/// `ValidationError` for a wrong one, `LimitExceeded` for too many.
fn add_tags(tags: &mut Tags, added: &[Tag]) -> Result<(), ApiError> {
    input::check_tags(added).map_err(|error| invalid("tags", &error.message))?;
    tags.extend(crate::state::noun::keep_tags(added));
    if tags.len() > input::MAX_TAGS {
        return Err(limit_exceeded("TagsPerEntity", input::MAX_TAGS));
    }
    Ok(())
}
