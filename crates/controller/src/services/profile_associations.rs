//! Which instance has which instance profile.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html>

use hearth_api::filter::Filters;
use hearth_api::page::{Page, paginate};
use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode, InstanceState, Kind};
use serde_json::json;

use super::{input, serve};
use crate::app::App;
use crate::state::{self, Entity as _, Instance, ProfileAssociation, State, Tx};
use crate::views;

const FILTERS: &[&str] = &["instance-id", "state"];
const ASSOCIATED: &str = "associated";

serve! { profile_associations_server::ProfileAssociations as ProfileAssociations {
    associate_iam_instance_profile(AssociateIamInstanceProfileRequest) -> AssociateIamInstanceProfileResult: associate;
    describe_iam_instance_profile_associations(DescribeIamInstanceProfileAssociationsRequest)
        -> DescribeIamInstanceProfileAssociationsResult: describe;
    disassociate_iam_instance_profile(DisassociateIamInstanceProfileRequest)
        -> DisassociateIamInstanceProfileResult: disassociate;
    replace_iam_instance_profile_association(ReplaceIamInstanceProfileAssociationRequest)
        -> ReplaceIamInstanceProfileAssociationResult: replace;
} }

/// The id of the profile that a request names; `None`: it names none.
///
/// # Errors
/// `InvalidParameterValue`: there is no such profile; `InvalidParameterCombination`: two are named.
pub(super) fn named(
    app: &App,
    state: &State,
    specification: Option<&IamInstanceProfileSpecification>,
) -> Result<Option<String>, ApiError> {
    let Some(IamInstanceProfileSpecification { arn, name }) = specification else {
        return Ok(None);
    };
    let (found, parameter, given) = match (arn.as_str(), name.as_str()) {
        ("", "") => return Ok(None),
        ("", name) => (state.named(&app.account(), name), "iamInstanceProfile.name", name),
        (arn, "") => (state.of_arn(&app.account(), arn), "iamInstanceProfile.arn", arn),
        _ => {
            return Err(ApiError::combination(
                "iamInstanceProfile.arn",
                "iamInstanceProfile.name",
            ));
        }
    };
    let found: Option<&state::InstanceProfile> = found;
    match found {
        Some(profile) => Ok(Some(profile.id.clone())),
        None => Err(ApiError::invalid_value(
            parameter,
            given,
            "Invalid IAM Instance Profile: there is none of this name.",
        )),
    }
}

/// An instance's profile as Describe calls have it; `None` also for one that is gone.
pub(crate) fn tell_profile(state: &State, row: &Instance) -> Option<IamInstanceProfile> {
    let profile: &state::InstanceProfile = state.get(&row.profile.as_ref()?.profile_id)?;
    Some(IamInstanceProfile {
        arn: profile.arn(),
        id: profile.id.clone(),
    })
}

fn tell(state: &State, row: &Instance, as_state: &str) -> Option<IamInstanceProfileAssociation> {
    let association = row.profile.as_ref()?;
    Some(IamInstanceProfileAssociation {
        association_id: association.id.clone(),
        instance_id: row.id.clone(),
        iam_instance_profile: tell_profile(state, row),
        state: as_state.to_owned(),
        timestamp: Some(views::timestamp(association.since)),
    })
}

fn no_association(id: &str) -> ApiError {
    ApiError::new(
        ErrorCode::NoSuchAssociation,
        format!("An invalid association-id of '{id}' was given"),
    )
}

/// The instance of an association.
fn instance_of<'s>(state: &'s State, id: &str) -> Result<&'s Instance, ApiError> {
    if id.is_empty() {
        return Err(ApiError::missing("AssociationId"));
    }
    state
        .first_by(&Instance::BY_ASSOCIATION, id)
        .ok_or_else(|| no_association(id))
}

/// Gives an instance another profile, or none.
fn set(tx: &mut Tx<'_>, row: &Instance, profile: Option<ProfileAssociation>) {
    let detail =
        json!({ "instance": row.id, "profile": profile.as_ref().map(|profile| &profile.profile_id) });
    tx.audit(detail);
    tx.event("instance.modified", &row.id);
    tx.put(Instance {
        profile,
        ..row.clone()
    });
}

async fn associate(
    app: &App,
    request: AssociateIamInstanceProfileRequest,
) -> Result<AssociateIamInstanceProfileResult, ApiError> {
    let id = input::id(Kind::Instance, &request.instance_id, "InstanceId")?;
    let profile = named(app, &app.state(), request.iam_instance_profile.as_ref())?;
    let profile = profile.ok_or_else(|| ApiError::missing("IamInstanceProfile"))?;
    let made = app.store.transact(move |tx| {
        let row = tx.get::<Instance>(&id).cloned();
        let row = row.ok_or_else(|| Kind::Instance.not_found(&[&id]))?;
        if matches!(row.state, InstanceState::ShuttingDown | InstanceState::Terminated) {
            return Err(ApiError::new(
                ErrorCode::IncorrectInstanceState,
                format!(
                    "The instance '{id}' is {} and gets no profile any more.",
                    row.state
                ),
            ));
        }
        if row.profile.is_some() {
            return Err(ApiError::new(
                ErrorCode::IncorrectState,
                format!("There is an existing association for instance {id}"),
            ));
        }
        set(tx, &row, Some(ProfileAssociation::new(&profile, tx.now())));
        Ok(tx.get::<Instance>(&id).and_then(|row| tell(tx, row, ASSOCIATED)))
    });
    Ok(AssociateIamInstanceProfileResult {
        iam_instance_profile_association: made.await?,
    })
}

async fn disassociate(
    app: &App,
    request: DisassociateIamInstanceProfileRequest,
) -> Result<DisassociateIamInstanceProfileResult, ApiError> {
    let ended = app.store.transact(move |tx| {
        let row = instance_of(tx, &request.association_id)?.clone();
        let told = tell(tx, &row, "disassociating");
        set(tx, &row, None);
        Ok::<_, ApiError>(told)
    });
    Ok(DisassociateIamInstanceProfileResult {
        iam_instance_profile_association: ended.await?,
    })
}

async fn replace(
    app: &App,
    request: ReplaceIamInstanceProfileAssociationRequest,
) -> Result<ReplaceIamInstanceProfileAssociationResult, ApiError> {
    let profile = named(app, &app.state(), request.iam_instance_profile.as_ref())?;
    let profile = profile.ok_or_else(|| ApiError::missing("IamInstanceProfile"))?;
    let made = app.store.transact(move |tx| {
        let row = instance_of(tx, &request.association_id)?.clone();
        set(tx, &row, Some(ProfileAssociation::new(&profile, tx.now())));
        let row = tx.get::<Instance>(&row.id);
        Ok::<_, ApiError>(row.and_then(|row| tell(tx, row, ASSOCIATED)))
    });
    Ok(ReplaceIamInstanceProfileAssociationResult {
        iam_instance_profile_association: made.await?,
    })
}

async fn describe(
    app: &App,
    request: DescribeIamInstanceProfileAssociationsRequest,
) -> Result<DescribeIamInstanceProfileAssociationsResult, ApiError> {
    let filters = Filters::new(&request.filters, FILTERS)?;
    let state = app.state();
    let ids = &request.association_ids;
    let named: Vec<&Instance> = ids
        .iter()
        .map(|id| instance_of(&state, id))
        .collect::<Result<_, _>>()?;
    let mut rows = match ids.is_empty() {
        true => state.all::<Instance>().collect(),
        false => named,
    };
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    rows.dedup_by(|a, b| a.id == b.id);
    let tell = |row: &Instance| {
        let told = tell(&state, row, ASSOCIATED)?;
        let passes = filters.matches(&[], |name| {
            vec![match name {
                "state" => ASSOCIATED.into(),
                _ => told.instance_id.as_str().into(),
            }]
        });
        passes.then_some(told)
    };
    let page = Page::new(request.max_results, &request.next_token);
    let (iam_instance_profile_associations, next_token) = paginate(rows, page, |row| row.id.clone(), tell)?;
    Ok(DescribeIamInstanceProfileAssociationsResult {
        iam_instance_profile_associations,
        next_token,
    })
}
