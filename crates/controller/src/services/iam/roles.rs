//! Roles.

use hearth_api::ApiError;
use hearth_api::v1::{self, *};
use hearth_iam::Kind;
use serde_json::json;

use super::pages::{below, page};
use super::{add_tags, check_name, check_path, delete_conflict, find, grants, invalid, refuse_twice, serve};
use crate::app::App;
use crate::state::noun::tell_tags;
use crate::state::{Entity as _, Grants, InstanceProfile, Role, Tags};
use crate::views::timestamp;

/// Seconds of a session.
const SESSIONS: std::ops::RangeInclusive<i32> = 3600..=43_200;

serve! { iam_roles_server::IamRoles as Roles {
    create_role(CreateRoleRequest) -> CreateRoleResponse: create;
    get_role(GetRoleRequest) -> GetRoleResponse: get;
    update_role(UpdateRoleRequest) -> UpdateRoleResponse: update;
    delete_role(DeleteRoleRequest) -> DeleteRoleResponse: delete;
    list_roles(ListRolesRequest) -> ListRolesResponse: list;
    update_assume_role_policy(UpdateAssumeRolePolicyRequest) -> UpdateAssumeRolePolicyResponse: trust;
    tag_role(TagRoleRequest) -> TagRoleResponse: tag;
    untag_role(UntagRoleRequest) -> UntagRoleResponse: untag;
    list_role_tags(ListRoleTagsRequest) -> ListRoleTagsResponse: tags;
    put_role_policy(PutRolePolicyRequest) -> PutRolePolicyResponse: policies::put;
    get_role_policy(GetRolePolicyRequest) -> GetRolePolicyResponse: policies::get;
    delete_role_policy(DeleteRolePolicyRequest) -> DeleteRolePolicyResponse: policies::delete;
    list_role_policies(ListRolePoliciesRequest) -> ListRolePoliciesResponse: policies::list;
    attach_role_policy(AttachRolePolicyRequest) -> AttachRolePolicyResponse: policies::attach;
    detach_role_policy(DetachRolePolicyRequest) -> DetachRolePolicyResponse: policies::detach;
    list_attached_role_policies(ListAttachedRolePoliciesRequest) -> ListAttachedRolePoliciesResponse: policies::attached;
} }

grants::calls!(
    crate::state::Role, role_name: PutRolePolicyRequest, GetRolePolicyRequest -> GetRolePolicyResponse,
    DeleteRolePolicyRequest, ListRolePoliciesRequest -> ListRolePoliciesResponse, AttachRolePolicyRequest,
    DetachRolePolicyRequest, ListAttachedRolePoliciesRequest -> ListAttachedRolePoliciesResponse,
    PutRolePolicyResponse, DeleteRolePolicyResponse, AttachRolePolicyResponse, DetachRolePolicyResponse
);

pub(super) fn tell(role: &Role) -> v1::Role {
    v1::Role {
        arn: role.arn(),
        assume_role_policy_document: role.trust.clone(),
        create_date: Some(timestamp(role.created_at)),
        description: role.description.clone(),
        max_session_duration: role.max_session,
        path: role.path.clone(),
        role_id: role.id.clone(),
        role_name: role.name.clone(),
        tags: tell_tags(&role.tags),
    }
}

fn check_session(seconds: i32) -> Result<i32, ApiError> {
    if SESSIONS.contains(&seconds) {
        return Ok(seconds);
    }
    Err(invalid(
        "maxSessionDuration",
        "Member must have value from 3600 to 43200",
    ))
}

async fn create(app: &App, request: CreateRoleRequest) -> Result<CreateRoleResponse, ApiError> {
    check_name("roleName", &request.role_name, 64)?;
    let path = check_path(request.path)?;
    grants::check_document(Kind::Trust, &request.assume_role_policy_document)?;
    let max_session = match request.max_session_duration {
        0 => *SESSIONS.start(),
        given => check_session(given)?,
    };
    let mut tags = Tags::new();
    add_tags(&mut tags, &request.tags)?;
    let account_id = app.account();
    let made = app.store.transact(move |tx| {
        refuse_twice::<Role>(tx, &account_id, &request.role_name)?;
        let role = Role {
            id: Role::new_id(),
            account_id,
            name: request.role_name,
            path,
            description: request.description,
            trust: request.assume_role_policy_document,
            max_session,
            created_at: tx.now(),
            grants: Grants::default(),
            tags,
        };
        tx.audit(json!({ "role": role.arn() }));
        tx.put(role.clone());
        Ok::<_, ApiError>(role)
    });
    Ok(CreateRoleResponse {
        role: Some(tell(&made.await?)),
    })
}

async fn get(app: &App, request: GetRoleRequest) -> Result<GetRoleResponse, ApiError> {
    let state = app.state();
    Ok(GetRoleResponse {
        role: Some(tell(find(&state, &app.account(), &request.role_name)?)),
    })
}

async fn update(app: &App, request: UpdateRoleRequest) -> Result<UpdateRoleResponse, ApiError> {
    let max_session = request.max_session_duration.map(check_session).transpose()?;
    grants::change::<Role, _>(app, request.role_name, move |role| {
        role.max_session = max_session.unwrap_or(role.max_session);
        if let Some(description) = request.description {
            role.description = description;
        }
        Ok(())
    })
    .await?;
    Ok(UpdateRoleResponse {})
}

async fn delete(app: &App, request: DeleteRoleRequest) -> Result<DeleteRoleResponse, ApiError> {
    let account_id = app.account();
    let deleted = app.store.transact(move |tx| {
        let role = find::<Role>(tx, &account_id, &request.role_name)?;
        if tx.any_by(&InstanceProfile::BY_ROLE, &role.id) {
            return Err(delete_conflict("remove roles from instance profile"));
        }
        grants::refuse_with_policies(role)?;
        let (id, arn) = (role.id.clone(), role.arn());
        tx.remove::<Role>(&id);
        tx.audit(json!({ "role": arn }));
        Ok(DeleteRoleResponse {})
    });
    deleted.await
}

async fn list(app: &App, request: ListRolesRequest) -> Result<ListRolesResponse, ApiError> {
    let state = app.state();
    let roles = below(state.all::<Role>(), &request.path_prefix);
    let (roles, is_truncated, marker) = page(roles, &request.marker, request.max_items, |role| &role.name)?;
    Ok(ListRolesResponse {
        roles: roles.into_iter().map(tell).collect(),
        is_truncated,
        marker,
    })
}

async fn trust(
    app: &App,
    request: UpdateAssumeRolePolicyRequest,
) -> Result<UpdateAssumeRolePolicyResponse, ApiError> {
    grants::check_document(Kind::Trust, &request.policy_document)?;
    grants::change::<Role, _>(app, request.role_name, move |role| {
        role.trust = request.policy_document;
        Ok(())
    })
    .await?;
    Ok(UpdateAssumeRolePolicyResponse {})
}

async fn tag(app: &App, request: TagRoleRequest) -> Result<TagRoleResponse, ApiError> {
    grants::change::<Role, _>(app, request.role_name, move |role| {
        add_tags(&mut role.tags, &request.tags)
    })
    .await?;
    Ok(TagRoleResponse {})
}

async fn untag(app: &App, request: UntagRoleRequest) -> Result<UntagRoleResponse, ApiError> {
    let keys = request.tag_keys;
    grants::change::<Role, _>(app, request.role_name, move |role| {
        role.tags.retain(|key, _| !keys.contains(key));
        Ok(())
    })
    .await?;
    Ok(UntagRoleResponse {})
}

async fn tags(app: &App, request: ListRoleTagsRequest) -> Result<ListRoleTagsResponse, ApiError> {
    let state = app.state();
    let tags = tell_tags(&find::<Role>(&state, &app.account(), &request.role_name)?.tags);
    let (tags, is_truncated, marker) = page(tags, &request.marker, request.max_items, |tag| &tag.key)?;
    Ok(ListRoleTagsResponse {
        tags,
        is_truncated,
        marker,
    })
}
