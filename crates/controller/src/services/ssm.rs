//! Public parameters of Systems Manager: names of AMIs that stay while the AMIs change.
//! <https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-public-parameters-ami.html>
//!
//! An image has its names by a tag: who may tag an image may name it, the names are told with it, and they go with it. An account
//! finds its own names, and those of the operator's images that are shared with it: no other tenant names images for it.

use std::collections::BTreeSet;

use hearth_api::page::{Page, paginate};
use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};

use super::serve;
use crate::app::App;
use crate::state::{self, Scope, State};
use crate::views::timestamp;

/// Where all names are.
const ROOT: &str = "/aws/service/";
/// Parameters of one answer.
const MOST: i32 = 10;
/// In front of a name where RunInstances has an AMI's id.
const RESOLVE: &str = "resolve:ssm:";

serve! { ssm_server::Ssm as Ssm {
    get_parameter(GetParameterRequest) -> GetParameterResult: get;
    get_parameters(GetParametersRequest) -> GetParametersResult: get_several;
    get_parameters_by_path(GetParametersByPathRequest) -> GetParametersByPathResult: get_below;
} }

/// # Errors
/// `InvalidParameterValue`: the tag that names images does not.
pub(super) fn check_tag(tag: &Tag) -> Result<(), ApiError> {
    let is_name = |name: &str| {
        let rest = name.strip_prefix(ROOT).unwrap_or_default();
        let is_part = |part: &str| {
            let admitted = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            !part.is_empty() && part.bytes().all(admitted)
        };
        rest.split('/').all(is_part)
    };
    if tag.key != state::Image::PARAMETER_TAG || tag.value.split_whitespace().all(is_name) {
        return Ok(());
    }
    let expected = format!(
        "The tag {} has names such as {ROOT}debian/12/image_id, separated by spaces: letters, digits and _.-/.",
        tag.key
    );
    Err(ApiError::invalid_value("Tag.Value", &tag.value, expected))
}

/// The name of a parameter without what else a request may say: its ARN, and which of its versions.
pub(crate) fn name_of(given: &str) -> &str {
    split(given).0
}

fn split(given: &str) -> (&str, Option<&str>) {
    let name = match given.strip_prefix("arn:") {
        Some(arn) => arn.split_once(":parameter").map_or(given, |(_, name)| name),
        None => given,
    };
    match name.split_once(':') {
        Some((name, version)) => (name, Some(version)),
        None => (name, None),
    }
}

/// The accounts whose names an account finds.
fn namers<'a>(app: &'a App, scope: &'a Scope) -> BTreeSet<&'a str> {
    [scope.account_id(), &app.cloud.owner_id].into()
}

/// # Errors
/// `ParameterNotFound`, `ParameterVersionNotFound`.
fn find(app: &App, state: &State, scope: &Scope, given: &str) -> Result<Parameter, ApiError> {
    let (name, version) = split(given);
    let images = state.images_of_parameter(&namers(app, scope), scope.region(), name);
    if images.is_empty() {
        let message = format!("No AMI has the parameter '{name}'.");
        return Err(ApiError::new(ErrorCode::ParameterNotFound, message));
    }
    let number = match version {
        None => Some(images.len()),
        Some(version) => version.parse().ok(),
    };
    let found = number.and_then(|number| Some((number, *images.get(number.checked_sub(1)?)?)));
    let Some((number, image)) = found else {
        let message = format!("The parameter '{name}' has the versions 1 to {}.", images.len());
        return Err(ApiError::new(ErrorCode::ParameterVersionNotFound, message));
    };
    Ok(Parameter {
        name: name.to_owned(),
        r#type: "String".to_owned(),
        value: image.id.clone(),
        version: i64::try_from(number).unwrap_or(i64::MAX),
        selector: version.map_or_else(String::new, |version| format!(":{version}")),
        last_modified_date: Some(timestamp(image.created_at)),
        arn: arn(scope.region(), name),
        data_type: "text".to_owned(),
    })
}

/// Public parameters are no account's.
pub(crate) fn arn(region: &str, name: &str) -> String {
    let slash = if name.starts_with('/') { "" } else { "/" };
    format!("arn:aws:ssm:{region}::parameter{slash}{name}")
}

/// The parameter that stands for an AMI in a launch, if one does.
pub(crate) fn resolved(image_id: &str) -> Option<&str> {
    image_id.strip_prefix(RESOLVE)
}

/// The AMI of a launch, whatever it is named by.
///
/// # Errors
/// `InvalidParameterValue`: there is no such parameter.
pub(crate) fn image_id(app: &App, state: &State, scope: &Scope, given: &str) -> Result<String, ApiError> {
    let Some(name) = resolved(given) else {
        return Ok(given.to_owned());
    };
    let parameter = find(app, state, scope, name);
    let parameter = parameter.map_err(|error| ApiError::invalid_value("ImageId", given, error.message))?;
    Ok(parameter.value)
}

async fn get(app: &App, request: GetParameterRequest) -> Result<GetParameterResult, ApiError> {
    let parameter = find(app, &app.state(), &app.scope(), &request.name)?;
    Ok(GetParameterResult {
        parameter: Some(parameter),
    })
}

async fn get_several(app: &App, request: GetParametersRequest) -> Result<GetParametersResult, ApiError> {
    let state = app.state();
    let scope = app.scope();
    let mut answer = GetParametersResult::default();
    for name in request.names.into_iter().collect::<BTreeSet<_>>() {
        match find(app, &state, &scope, &name) {
            Ok(parameter) => answer.parameters.push(parameter),
            Err(_) => answer.invalid_parameters.push(name),
        }
    }
    Ok(answer)
}

async fn get_below(
    app: &App,
    request: GetParametersByPathRequest,
) -> Result<GetParametersByPathResult, ApiError> {
    if !request.path.starts_with('/') {
        let message = "The parameter path must begin with a slash (/).";
        return Err(ApiError::new(ErrorCode::ValidationException, message));
    }
    let state = app.state();
    let path = format!("{}/", request.path.trim_end_matches('/'));
    let is_below = |name: &&str| {
        let rest = name.strip_prefix(&path);
        rest.is_some_and(|rest| request.recursive || !rest.contains('/'))
    };
    let images = state.by(&state::Image::BY_STATE, state::AVAILABLE);
    let scope = app.scope();
    let namers = namers(app, &scope);
    let own = images.filter(|image| namers.contains(image.account_id.as_str()));
    let names: BTreeSet<&str> = own.flat_map(state::Image::parameters).filter(is_below).collect();
    let page = Page::of_at_most(MOST, request.max_results, &request.next_token);
    let tell = |name: &str| find(app, &state, &scope, name).ok();
    let (parameters, next_token) = paginate(names, page, |name| (*name).to_owned(), tell)?;
    Ok(GetParametersByPathResult {
        parameters,
        next_token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_paths_below_aws_service() {
        let check = |value: &str| {
            let key = state::Image::PARAMETER_TAG.to_owned();
            let value = value.to_owned();
            check_tag(&Tag { key, value }).is_ok()
        };
        for value in ["", "/aws/service/a", "/aws/service/a/b_c.d-e  /aws/service/f"] {
            assert!(check(value), "{value}");
        }
        for value in [
            "a",
            "/a",
            "/aws/service/",
            "/aws/service",
            "/aws/service/a/",
            "/aws/service//a",
            "/aws/service/a:1",
            "/aws/service/a /b",
            "/aws/service/ä",
        ] {
            assert!(!check(value), "{value}");
        }
    }

    #[test]
    fn parameters_are_named_in_several_ways() {
        for (given, name, version) in [
            ("/aws/service/a", "/aws/service/a", None),
            ("/aws/service/a:3", "/aws/service/a", Some("3")),
            (
                "arn:aws:ssm:local-1::parameter/aws/service/a",
                "/aws/service/a",
                None,
            ),
            (
                "arn:aws:ssm:local-1::parameter/aws/service/a:2",
                "/aws/service/a",
                Some("2"),
            ),
            ("arn:nothing", "arn", Some("nothing")),
            ("", "", None),
        ] {
            assert_eq!(split(given), (name, version), "{given}");
        }
    }
}
