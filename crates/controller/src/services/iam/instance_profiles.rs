//! Instance profiles.

use hearth_api::ApiError;
use hearth_api::v1::{self, *};
use serde_json::json;

use super::pages::{below, page};
use super::{
    add_tags, check_name, check_path, delete_conflict, find, limit_exceeded, refuse_twice, roles, serve,
};
use crate::app::App;
use crate::state::noun::tell_tags;
use crate::state::{Entity as _, InstanceProfile, Role, State, Tags};
use crate::views::timestamp;

serve! { iam_instance_profiles_server::IamInstanceProfiles as InstanceProfiles {
    create_instance_profile(CreateInstanceProfileRequest) -> CreateInstanceProfileResponse: create;
    get_instance_profile(GetInstanceProfileRequest) -> GetInstanceProfileResponse: get;
    delete_instance_profile(DeleteInstanceProfileRequest) -> DeleteInstanceProfileResponse: delete;
    list_instance_profiles(ListInstanceProfilesRequest) -> ListInstanceProfilesResponse: list;
    add_role_to_instance_profile(AddRoleToInstanceProfileRequest) -> AddRoleToInstanceProfileResponse: add;
    remove_role_from_instance_profile(RemoveRoleFromInstanceProfileRequest) -> RemoveRoleFromInstanceProfileResponse: remove;
    list_instance_profiles_for_role(ListInstanceProfilesForRoleRequest) -> ListInstanceProfilesForRoleResponse: of_role;
} }

fn tell(state: &State, profile: &InstanceProfile) -> v1::InstanceProfile {
    let role = profile.role_id.as_deref().and_then(|id| state.get::<Role>(id));
    v1::InstanceProfile {
        arn: profile.arn(),
        create_date: Some(timestamp(profile.created_at)),
        instance_profile_id: profile.id.clone(),
        instance_profile_name: profile.name.clone(),
        path: profile.path.clone(),
        roles: role.map(roles::tell).into_iter().collect(),
        tags: tell_tags(&profile.tags),
    }
}

async fn create(
    app: &App,
    request: CreateInstanceProfileRequest,
) -> Result<CreateInstanceProfileResponse, ApiError> {
    check_name("instanceProfileName", &request.instance_profile_name, 128)?;
    let path = check_path(request.path)?;
    let mut tags = Tags::new();
    add_tags(&mut tags, &request.tags)?;
    let (account_id, name) = (app.account(), request.instance_profile_name);
    let made = app.store.transact(move |tx| {
        refuse_twice::<InstanceProfile>(tx, &account_id, &name)?;
        let profile = InstanceProfile {
            id: InstanceProfile::new_id(),
            account_id,
            name,
            path,
            role_id: None,
            created_at: tx.now(),
            tags,
        };
        tx.audit(json!({ "instance_profile": profile.arn() }));
        tx.put(profile.clone());
        Ok::<_, ApiError>(tell(tx, &profile))
    });
    Ok(CreateInstanceProfileResponse {
        instance_profile: Some(made.await?),
    })
}

async fn get(app: &App, request: GetInstanceProfileRequest) -> Result<GetInstanceProfileResponse, ApiError> {
    let state = app.state();
    let profile = find(&state, &app.account(), &request.instance_profile_name)?;
    Ok(GetInstanceProfileResponse {
        instance_profile: Some(tell(&state, profile)),
    })
}

async fn delete(
    app: &App,
    request: DeleteInstanceProfileRequest,
) -> Result<DeleteInstanceProfileResponse, ApiError> {
    let account_id = app.account();
    let deleted = app.store.transact(move |tx| {
        let profile = find::<InstanceProfile>(tx, &account_id, &request.instance_profile_name)?;
        if profile.role_id.is_some() {
            return Err(delete_conflict("remove roles from instance profile"));
        }
        let (id, arn) = (profile.id.clone(), profile.arn());
        tx.remove::<InstanceProfile>(&id);
        tx.audit(json!({ "instance_profile": arn }));
        Ok(DeleteInstanceProfileResponse {})
    });
    deleted.await
}

async fn list(
    app: &App,
    request: ListInstanceProfilesRequest,
) -> Result<ListInstanceProfilesResponse, ApiError> {
    let state = app.state();
    let profiles = below(state.all::<InstanceProfile>(), &request.path_prefix);
    let (profiles, is_truncated, marker) = page(profiles, &request.marker, request.max_items, |profile| {
        &profile.name
    })?;
    Ok(ListInstanceProfilesResponse {
        instance_profiles: profiles
            .into_iter()
            .map(|profile| tell(&state, profile))
            .collect(),
        is_truncated,
        marker,
    })
}

async fn of_role(
    app: &App,
    request: ListInstanceProfilesForRoleRequest,
) -> Result<ListInstanceProfilesForRoleResponse, ApiError> {
    let state = app.state();
    let role: &Role = find(&state, &app.account(), &request.role_name)?;
    let profiles = below(state.by(&InstanceProfile::BY_ROLE, &role.id), "/");
    let (profiles, is_truncated, marker) = page(profiles, &request.marker, request.max_items, |profile| {
        &profile.name
    })?;
    Ok(ListInstanceProfilesForRoleResponse {
        instance_profiles: profiles
            .into_iter()
            .map(|profile| tell(&state, profile))
            .collect(),
        is_truncated,
        marker,
    })
}

async fn add(
    app: &App,
    request: AddRoleToInstanceProfileRequest,
) -> Result<AddRoleToInstanceProfileResponse, ApiError> {
    put(
        app,
        request.instance_profile_name,
        request.role_name,
        |profile, role| {
            if profile.role_id.is_some() {
                return Err(limit_exceeded("InstanceSessionsPerInstanceProfile", 1));
            }
            profile.role_id = Some(role.id.clone());
            Ok(())
        },
    )
    .await?;
    Ok(AddRoleToInstanceProfileResponse {})
}

async fn remove(
    app: &App,
    request: RemoveRoleFromInstanceProfileRequest,
) -> Result<RemoveRoleFromInstanceProfileResponse, ApiError> {
    put(
        app,
        request.instance_profile_name,
        request.role_name,
        |profile, role| {
            if profile.role_id.as_ref() != Some(&role.id) {
                return Err(super::no_such(format!(
                    "Cannot find role {} in instance profile {}.",
                    role.name, profile.name
                )));
            }
            profile.role_id = None;
            Ok(())
        },
    )
    .await?;
    Ok(RemoveRoleFromInstanceProfileResponse {})
}

async fn put(
    app: &App,
    profile: String,
    role: String,
    change: impl FnOnce(&mut InstanceProfile, &Role) -> Result<(), ApiError> + Send + 'static,
) -> Result<(), ApiError> {
    let account_id = app.account();
    let changed = app.store.transact(move |tx| {
        let mut profile = find::<InstanceProfile>(tx, &account_id, &profile)?.clone();
        let role = find::<Role>(tx, &account_id, &role)?;
        change(&mut profile, role)?;
        let detail = json!({ "instance_profile": profile.arn(), "role": role.arn() });
        tx.audit(detail);
        tx.put(profile);
        Ok::<_, ApiError>(())
    });
    changed.await
}
