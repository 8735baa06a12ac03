//! Groups of users.

use hearth_api::ApiError;
use hearth_api::v1::{self, *};
use serde_json::json;

use super::pages::{below, page};
use super::{
    check_name, check_path, delete_conflict, find, grants, limit_exceeded, refuse_twice, serve, users,
};
use crate::app::App;
use crate::state::{Entity as _, Grants, Group, Tx, User};
use crate::views::timestamp;

/// Groups of one user.
const MOST: usize = 10;

serve! { iam_groups_server::IamGroups as Groups {
    create_group(CreateGroupRequest) -> CreateGroupResponse: create;
    get_group(GetGroupRequest) -> GetGroupResponse: get;
    delete_group(DeleteGroupRequest) -> DeleteGroupResponse: delete;
    list_groups(ListGroupsRequest) -> ListGroupsResponse: list;
    list_groups_for_user(ListGroupsForUserRequest) -> ListGroupsForUserResponse: of_user;
    add_user_to_group(AddUserToGroupRequest) -> AddUserToGroupResponse: add;
    remove_user_from_group(RemoveUserFromGroupRequest) -> RemoveUserFromGroupResponse: remove;
    put_group_policy(PutGroupPolicyRequest) -> PutGroupPolicyResponse: policies::put;
    get_group_policy(GetGroupPolicyRequest) -> GetGroupPolicyResponse: policies::get;
    delete_group_policy(DeleteGroupPolicyRequest) -> DeleteGroupPolicyResponse: policies::delete;
    list_group_policies(ListGroupPoliciesRequest) -> ListGroupPoliciesResponse: policies::list;
    attach_group_policy(AttachGroupPolicyRequest) -> AttachGroupPolicyResponse: policies::attach;
    detach_group_policy(DetachGroupPolicyRequest) -> DetachGroupPolicyResponse: policies::detach;
    list_attached_group_policies(ListAttachedGroupPoliciesRequest) -> ListAttachedGroupPoliciesResponse: policies::attached;
} }

grants::calls!(
    crate::state::Group, group_name: PutGroupPolicyRequest, GetGroupPolicyRequest -> GetGroupPolicyResponse,
    DeleteGroupPolicyRequest, ListGroupPoliciesRequest -> ListGroupPoliciesResponse, AttachGroupPolicyRequest,
    DetachGroupPolicyRequest, ListAttachedGroupPoliciesRequest -> ListAttachedGroupPoliciesResponse,
    PutGroupPolicyResponse, DeleteGroupPolicyResponse, AttachGroupPolicyResponse, DetachGroupPolicyResponse
);

pub(super) fn tell(group: &Group) -> v1::Group {
    v1::Group {
        arn: group.arn(),
        create_date: Some(timestamp(group.created_at)),
        group_id: group.id.clone(),
        group_name: group.name.clone(),
        path: group.path.clone(),
    }
}

async fn create(app: &App, request: CreateGroupRequest) -> Result<CreateGroupResponse, ApiError> {
    check_name("groupName", &request.group_name, 128)?;
    let path = check_path(request.path)?;
    let (account_id, name) = (app.account(), request.group_name);
    let made = app.store.transact(move |tx| {
        refuse_twice::<Group>(tx, &account_id, &name)?;
        let group = Group {
            id: Group::new_id(),
            account_id,
            name,
            path,
            created_at: tx.now(),
            grants: Grants::default(),
        };
        tx.audit(json!({ "group": group.arn() }));
        tx.put(group.clone());
        Ok::<_, ApiError>(group)
    });
    Ok(CreateGroupResponse {
        group: Some(tell(&made.await?)),
    })
}

async fn get(app: &App, request: GetGroupRequest) -> Result<GetGroupResponse, ApiError> {
    let state = app.state();
    let group: &Group = find(&state, &app.account(), &request.group_name)?;
    let members = below(state.by(&User::BY_GROUP, &group.id), "/");
    let (members, is_truncated, marker) =
        page(members, &request.marker, request.max_items, |user| &user.name)?;
    Ok(GetGroupResponse {
        group: Some(tell(group)),
        users: members.into_iter().map(users::tell).collect(),
        is_truncated,
        marker,
    })
}

async fn delete(app: &App, request: DeleteGroupRequest) -> Result<DeleteGroupResponse, ApiError> {
    let account_id = app.account();
    let deleted = app.store.transact(move |tx| {
        let group = find::<Group>(tx, &account_id, &request.group_name)?;
        if tx.any_by(&User::BY_GROUP, &group.id) {
            return Err(delete_conflict("remove users from group"));
        }
        grants::refuse_with_policies(group)?;
        let (id, arn) = (group.id.clone(), group.arn());
        tx.remove::<Group>(&id);
        tx.audit(json!({ "group": arn }));
        Ok(DeleteGroupResponse {})
    });
    deleted.await
}

async fn list(app: &App, request: ListGroupsRequest) -> Result<ListGroupsResponse, ApiError> {
    let state = app.state();
    let groups = below(state.all::<Group>(), &request.path_prefix);
    let (groups, is_truncated, marker) =
        page(groups, &request.marker, request.max_items, |group| &group.name)?;
    Ok(ListGroupsResponse {
        groups: groups.into_iter().map(tell).collect(),
        is_truncated,
        marker,
    })
}

async fn of_user(
    app: &App,
    request: ListGroupsForUserRequest,
) -> Result<ListGroupsForUserResponse, ApiError> {
    let state = app.state();
    let user: &User = find(&state, &app.account(), &request.user_name)?;
    let groups = below(user.groups.iter().filter_map(|id| state.get::<Group>(id)), "/");
    let (groups, is_truncated, marker) =
        page(groups, &request.marker, request.max_items, |group| &group.name)?;
    Ok(ListGroupsForUserResponse {
        groups: groups.into_iter().map(tell).collect(),
        is_truncated,
        marker,
    })
}

async fn add(app: &App, request: AddUserToGroupRequest) -> Result<AddUserToGroupResponse, ApiError> {
    member(app, request.group_name, request.user_name, |user, group| {
        user.groups.insert(group);
        if user.groups.len() > MOST {
            return Err(limit_exceeded("GroupsPerUser", MOST));
        }
        Ok(())
    })
    .await?;
    Ok(AddUserToGroupResponse {})
}

async fn remove(
    app: &App,
    request: RemoveUserFromGroupRequest,
) -> Result<RemoveUserFromGroupResponse, ApiError> {
    member(app, request.group_name, request.user_name, |user, group| {
        user.groups.remove(&group);
        Ok(())
    })
    .await?;
    Ok(RemoveUserFromGroupResponse {})
}

/// Changes the groups of a user. `change` gets the group's id.
async fn member(
    app: &App,
    group: String,
    user: String,
    change: impl FnOnce(&mut User, String) -> Result<(), ApiError> + Send + 'static,
) -> Result<(), ApiError> {
    let account_id = app.account();
    let changed = app.store.transact(move |tx: &mut Tx<'_>| {
        let group = find::<Group>(tx, &account_id, &group)?.clone();
        let mut user = find::<User>(tx, &account_id, &user)?.clone();
        change(&mut user, group.id.clone())?;
        tx.audit(json!({ "group": group.arn(), "user": user.arn() }));
        tx.put(user);
        Ok::<_, ApiError>(())
    });
    changed.await
}
