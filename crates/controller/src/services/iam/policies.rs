//! Managed policies: an account's own, and those that every account has.

use hearth_api::v1::{self, *};
use hearth_api::{ApiError, ErrorCode};
use hearth_iam::Kind;
use serde_json::json;

use super::pages::{below, page};
use super::{
    add_tags, check_name, check_path, grants, invalid, limit_exceeded, no_such, refuse_twice, serve,
};
use crate::app::App;
use crate::iam::managed::{self, Managed};
use crate::state::noun::tell_tags;
use crate::state::{self, Bearer, Entity as _, Group, Role, State, Tags, Tx, User};
use crate::views::timestamp;

/// Versions of one policy.
const MOST_VERSIONS: usize = 5;
/// The one version of policies that nobody changes.
const ONLY: &str = "v1";

serve! { iam_policies_server::IamPolicies as Policies {
    create_policy(CreatePolicyRequest) -> CreatePolicyResponse: create;
    get_policy(GetPolicyRequest) -> GetPolicyResponse: get;
    delete_policy(DeletePolicyRequest) -> DeletePolicyResponse: delete;
    list_policies(ListPoliciesRequest) -> ListPoliciesResponse: list;
    create_policy_version(CreatePolicyVersionRequest) -> CreatePolicyVersionResponse: create_version;
    get_policy_version(GetPolicyVersionRequest) -> GetPolicyVersionResponse: version;
    list_policy_versions(ListPolicyVersionsRequest) -> ListPolicyVersionsResponse: versions;
    delete_policy_version(DeletePolicyVersionRequest) -> DeletePolicyVersionResponse: delete_version;
    set_default_policy_version(SetDefaultPolicyVersionRequest) -> SetDefaultPolicyVersionResponse: set_default;
    list_entities_for_policy(ListEntitiesForPolicyRequest) -> ListEntitiesForPolicyResponse: entities;
} }

fn attachments(state: &State, arn: &str) -> i32 {
    let count = grants::bearers::<User>(state, arn).count()
        + grants::bearers::<Group>(state, arn).count()
        + grants::bearers::<Role>(state, arn).count();
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn tell(state: &State, policy: &state::Policy) -> Policy {
    Policy {
        attachment_count: attachments(state, &policy.arn()),
        arn: policy.arn(),
        create_date: Some(timestamp(policy.created_at)),
        default_version_id: name_of(policy.default_version),
        description: policy.description.clone(),
        is_attachable: true,
        path: policy.path.clone(),
        policy_id: policy.id.clone(),
        policy_name: policy.name.clone(),
        tags: tell_tags(&policy.tags),
        update_date: Some(timestamp(policy.updated_at)),
    }
}

fn tell_managed(state: &State, policy: &Managed) -> Policy {
    Policy {
        attachment_count: attachments(state, &policy.arn()),
        arn: policy.arn(),
        create_date: Some(timestamp(0)),
        default_version_id: ONLY.to_owned(),
        description: policy.description.to_owned(),
        is_attachable: true,
        path: "/".to_owned(),
        policy_id: policy.id.to_owned(),
        policy_name: policy.name.to_owned(),
        tags: Vec::new(),
        update_date: Some(timestamp(0)),
    }
}

fn name_of(version: u32) -> String {
    format!("v{version}")
}

fn tell_version(policy: &state::Policy, version: &state::PolicyVersion) -> PolicyVersion {
    PolicyVersion {
        create_date: Some(timestamp(version.created_at)),
        document: version.document.clone(),
        is_default_version: version.number == policy.default_version,
        version_id: name_of(version.number),
    }
}

fn not_found(arn: &str) -> ApiError {
    no_such(format!("Policy {arn} was not found."))
}

fn no_version(arn: &str, version: &str) -> ApiError {
    no_such(format!(
        "Policy {arn} version {version} does not exist or is not attachable."
    ))
}

async fn create(app: &App, request: CreatePolicyRequest) -> Result<CreatePolicyResponse, ApiError> {
    check_name("policyName", &request.policy_name, 128)?;
    let path = check_path(request.path)?;
    grants::check_document(Kind::Identity, &request.policy_document)?;
    let mut tags = Tags::new();
    add_tags(&mut tags, &request.tags)?;
    let account_id = app.account();
    let made = app.store.transact(move |tx| {
        let name = request.policy_name;
        if tx.named::<state::Policy>(&account_id, &name).is_some() {
            return Err(ApiError::new(
                ErrorCode::EntityAlreadyExists,
                format!("A policy called {name} already exists. Duplicate names are not allowed."),
            ));
        }
        let policy = state::Policy {
            id: state::Policy::new_id(),
            account_id,
            name,
            path,
            description: request.description,
            versions: vec![state::PolicyVersion {
                number: 1,
                document: request.policy_document,
                created_at: tx.now(),
            }],
            default_version: 1,
            counted: 1,
            created_at: tx.now(),
            updated_at: tx.now(),
            tags,
        };
        refuse_twice::<state::Policy>(tx, &policy.account_id, &policy.name)?;
        tx.audit(json!({ "policy": policy.arn() }));
        tx.put(policy.clone());
        Ok(tell(tx, &policy))
    });
    Ok(CreatePolicyResponse {
        policy: Some(made.await?),
    })
}

async fn get(app: &App, request: GetPolicyRequest) -> Result<GetPolicyResponse, ApiError> {
    let state = app.state();
    let arn = &request.policy_arn;
    let told = match managed::of_arn(arn) {
        Some(policy) => tell_managed(&state, policy),
        None => {
            let policy = state.of_arn(&app.account(), arn);
            tell(&state, policy.ok_or_else(|| not_found(arn))?)
        }
    };
    Ok(GetPolicyResponse { policy: Some(told) })
}

async fn delete(app: &App, request: DeletePolicyRequest) -> Result<DeletePolicyResponse, ApiError> {
    change(app, request.policy_arn, |tx, policy| {
        let conflict = |message: &str| Err(ApiError::new(ErrorCode::DeleteConflict, message));
        if attachments(tx, &policy.arn()) > 0 {
            return conflict("Cannot delete a policy attached to entities.");
        }
        if policy.versions.len() > 1 {
            return conflict(
                "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. \
                 The default version is deleted with the policy.",
            );
        }
        tx.remove::<state::Policy>(&policy.id);
        Ok(())
    })
    .await?;
    Ok(DeletePolicyResponse {})
}

async fn list(app: &App, request: ListPoliciesRequest) -> Result<ListPoliciesResponse, ApiError> {
    let (own, every) = match request.scope.as_str() {
        "" | "All" => (true, true),
        "AWS" => (false, true),
        "Local" => (true, false),
        _ => {
            return Err(invalid(
                "scope",
                "Member must satisfy enum value set: [All, AWS, Local]",
            ));
        }
    };
    let state = app.state();
    let mut told: Vec<Policy> = Vec::new();
    if own {
        let own = below(state.all::<state::Policy>(), &request.path_prefix);
        told.extend(own.into_iter().map(|policy| tell(&state, policy)));
    }
    if every && "/".starts_with(&request.path_prefix) {
        told.extend(managed::ALL.iter().map(|policy| tell_managed(&state, policy)));
    }
    told.retain(|policy| !request.only_attached || policy.attachment_count > 0);
    told.sort_by(|a, b| a.arn.cmp(&b.arn));
    let (policies, is_truncated, marker) =
        page(told, &request.marker, request.max_items, |policy| &policy.arn)?;
    Ok(ListPoliciesResponse {
        policies,
        is_truncated,
        marker,
    })
}

async fn create_version(
    app: &App,
    request: CreatePolicyVersionRequest,
) -> Result<CreatePolicyVersionResponse, ApiError> {
    grants::check_document(Kind::Identity, &request.policy_document)?;
    let made = change(app, request.policy_arn, move |tx, mut policy| {
        if policy.versions.len() >= MOST_VERSIONS {
            return Err(limit_exceeded("VersionsPerPolicy", MOST_VERSIONS));
        }
        policy.counted += 1;
        let version = state::PolicyVersion {
            number: policy.counted,
            document: request.policy_document,
            created_at: tx.now(),
        };
        if request.set_as_default {
            policy.default_version = version.number;
        }
        let told = PolicyVersion {
            // As IAM's answer to this call.
            document: String::new(),
            ..tell_version(&policy, &version)
        };
        policy.versions.push(version);
        policy.updated_at = tx.now();
        tx.put(policy);
        Ok(told)
    });
    Ok(CreatePolicyVersionResponse {
        policy_version: Some(made.await?),
    })
}

async fn version(app: &App, request: GetPolicyVersionRequest) -> Result<GetPolicyVersionResponse, ApiError> {
    let (arn, wanted) = (&request.policy_arn, &request.version_id);
    let found = all_versions(app, arn)?
        .into_iter()
        .find(|version| version.version_id == *wanted);
    Ok(GetPolicyVersionResponse {
        policy_version: Some(found.ok_or_else(|| no_version(arn, wanted))?),
    })
}

/// The newest first.
fn all_versions(app: &App, arn: &str) -> Result<Vec<v1::PolicyVersion>, ApiError> {
    if let Some(policy) = managed::of_arn(arn) {
        return Ok(vec![PolicyVersion {
            create_date: Some(timestamp(0)),
            document: policy.document.to_owned(),
            is_default_version: true,
            version_id: ONLY.to_owned(),
        }]);
    }
    let state = app.state();
    let policy: &state::Policy = state.of_arn(&app.account(), arn).ok_or_else(|| not_found(arn))?;
    let newest = policy.versions.iter().rev();
    Ok(newest.map(|version| tell_version(policy, version)).collect())
}

/// There are so few that a page has them all.
async fn versions(
    app: &App,
    request: ListPolicyVersionsRequest,
) -> Result<ListPolicyVersionsResponse, ApiError> {
    let mut versions = all_versions(app, &request.policy_arn)?;
    versions.iter_mut().for_each(|version| version.document.clear());
    Ok(ListPolicyVersionsResponse {
        versions,
        is_truncated: false,
        marker: String::new(),
    })
}

async fn delete_version(
    app: &App,
    request: DeletePolicyVersionRequest,
) -> Result<DeletePolicyVersionResponse, ApiError> {
    let version = request.version_id;
    change(app, request.policy_arn, move |tx, mut policy| {
        let number = number_of(&policy, &version)?;
        if number == policy.default_version {
            return Err(ApiError::new(
                ErrorCode::DeleteConflict,
                "Cannot delete the default version of a policy.",
            ));
        }
        policy.versions.retain(|version| version.number != number);
        tx.put(policy);
        Ok(())
    })
    .await?;
    Ok(DeletePolicyVersionResponse {})
}

async fn set_default(
    app: &App,
    request: SetDefaultPolicyVersionRequest,
) -> Result<SetDefaultPolicyVersionResponse, ApiError> {
    let version = request.version_id;
    change(app, request.policy_arn, move |tx, mut policy| {
        policy.default_version = number_of(&policy, &version)?;
        policy.updated_at = tx.now();
        tx.put(policy);
        Ok(())
    })
    .await?;
    Ok(SetDefaultPolicyVersionResponse {})
}

fn number_of(policy: &state::Policy, version: &str) -> Result<u32, ApiError> {
    let found = policy
        .versions
        .iter()
        .find(|found| name_of(found.number) == version);
    found
        .map(|version| version.number)
        .ok_or_else(|| no_version(&policy.arn(), version))
}

/// Changes a policy of the account in a transaction, which has an audit row.
async fn change<T: Send + 'static>(
    app: &App,
    arn: String,
    change: impl FnOnce(&mut Tx<'_>, state::Policy) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if managed::of_arn(&arn).is_some() {
        let message = format!("The policy {arn} is every account's, and nobody changes it.");
        return Err(ApiError::new(ErrorCode::AccessDenied, message));
    }
    let account_id = app.account();
    let changed = app.store.transact(move |tx| {
        let policy = tx.of_arn::<state::Policy>(&account_id, &arn).cloned();
        let policy = policy.ok_or_else(|| not_found(&arn))?;
        tx.audit(json!({ "policy": arn }));
        change(tx, policy)
    });
    changed.await
}

async fn entities(
    app: &App,
    request: ListEntitiesForPolicyRequest,
) -> Result<ListEntitiesForPolicyResponse, ApiError> {
    let arn = &request.policy_arn;
    let wanted = request.entity_filter.as_str();
    if !["", "User", "Role", "Group"].contains(&wanted) {
        return Err(invalid(
            "entityFilter",
            "Member must satisfy enum value set: [User, Role, Group]",
        ));
    }
    let state = app.state();
    if managed::of_arn(arn).is_none() && state.of_arn::<state::Policy>(&app.account(), arn).is_none() {
        return Err(not_found(arn));
    }
    // Users, groups and roles in one list, so that pages go through it.
    let mut all = Vec::new();
    all.extend(with::<Group>(&state, arn, &request, "Group"));
    all.extend(with::<Role>(&state, arn, &request, "Role"));
    all.extend(with::<User>(&state, arn, &request, "User"));
    let (all, is_truncated, marker) = page(all, &request.marker, request.max_items, |(key, ..)| key)?;
    let mut told = ListEntitiesForPolicyResponse {
        is_truncated,
        marker,
        ..Default::default()
    };
    for (_, kind, id, name) in all {
        match kind {
            "Group" => told.policy_groups.push(PolicyGroup {
                group_id: id,
                group_name: name,
            }),
            "Role" => told.policy_roles.push(PolicyRole {
                role_id: id,
                role_name: name,
            }),
            _ => told.policy_users.push(PolicyUser {
                user_id: id,
                user_name: name,
            }),
        }
    }
    Ok(told)
}

/// Those of a kind that have a policy: a key to page by, the kind, the id and the name.
fn with<B: Bearer>(
    state: &State,
    arn: &str,
    request: &ListEntitiesForPolicyRequest,
    kind: &'static str,
) -> Vec<(String, &'static str, String, String)> {
    if !["", kind].contains(&request.entity_filter.as_str()) {
        return Vec::new();
    }
    let bearers = below(grants::bearers::<B>(state, arn), &request.path_prefix).into_iter();
    bearers
        .map(|bearer| {
            let (id, name) = (bearer.id().to_owned(), bearer.name().to_owned());
            (format!("{kind}/{name}"), kind, id, name)
        })
        .collect()
}
