//! Users.

use hearth_api::ApiError;
use hearth_api::v1::{self, *};
use serde_json::json;

use super::pages::{below, page};
use super::{
    access_keys, add_tags, check_name, check_path, delete_conflict, find, find_user, grants, refuse_twice,
    serve,
};
use crate::app::App;
use crate::state::noun::tell_tags;
use crate::state::{AccessKey, Entity as _, Grants, Tags, User};
use crate::views::timestamp;

serve! { iam_users_server::IamUsers as Users {
    create_user(CreateUserRequest) -> CreateUserResponse: create;
    get_user(GetUserRequest) -> GetUserResponse: get;
    update_user(UpdateUserRequest) -> UpdateUserResponse: update;
    delete_user(DeleteUserRequest) -> DeleteUserResponse: delete;
    list_users(ListUsersRequest) -> ListUsersResponse: list;
    tag_user(TagUserRequest) -> TagUserResponse: tag;
    untag_user(UntagUserRequest) -> UntagUserResponse: untag;
    list_user_tags(ListUserTagsRequest) -> ListUserTagsResponse: tags;
    create_access_key(CreateAccessKeyRequest) -> CreateAccessKeyResponse: access_keys::create;
    list_access_keys(ListAccessKeysRequest) -> ListAccessKeysResponse: access_keys::list;
    update_access_key(UpdateAccessKeyRequest) -> UpdateAccessKeyResponse: access_keys::update;
    delete_access_key(DeleteAccessKeyRequest) -> DeleteAccessKeyResponse: access_keys::delete;
    put_user_policy(PutUserPolicyRequest) -> PutUserPolicyResponse: policies::put;
    get_user_policy(GetUserPolicyRequest) -> GetUserPolicyResponse: policies::get;
    delete_user_policy(DeleteUserPolicyRequest) -> DeleteUserPolicyResponse: policies::delete;
    list_user_policies(ListUserPoliciesRequest) -> ListUserPoliciesResponse: policies::list;
    attach_user_policy(AttachUserPolicyRequest) -> AttachUserPolicyResponse: policies::attach;
    detach_user_policy(DetachUserPolicyRequest) -> DetachUserPolicyResponse: policies::detach;
    list_attached_user_policies(ListAttachedUserPoliciesRequest) -> ListAttachedUserPoliciesResponse: policies::attached;
} }

grants::calls!(
    crate::state::User, user_name: PutUserPolicyRequest, GetUserPolicyRequest -> GetUserPolicyResponse,
    DeleteUserPolicyRequest, ListUserPoliciesRequest -> ListUserPoliciesResponse, AttachUserPolicyRequest,
    DetachUserPolicyRequest, ListAttachedUserPoliciesRequest -> ListAttachedUserPoliciesResponse,
    PutUserPolicyResponse, DeleteUserPolicyResponse, AttachUserPolicyResponse, DetachUserPolicyResponse
);

pub(super) fn tell(user: &User) -> v1::User {
    v1::User {
        arn: user.arn(),
        create_date: Some(timestamp(user.created_at)),
        path: user.path.clone(),
        tags: tell_tags(&user.tags),
        user_id: user.id.clone(),
        user_name: user.name.clone(),
    }
}

async fn create(app: &App, request: CreateUserRequest) -> Result<CreateUserResponse, ApiError> {
    check_name("userName", &request.user_name, 64)?;
    let path = check_path(request.path)?;
    let mut tags = Tags::new();
    add_tags(&mut tags, &request.tags)?;
    let (account_id, name) = (app.account(), request.user_name);
    let user = app.store.transact(move |tx| {
        refuse_twice::<User>(tx, &account_id, &name)?;
        let user = User {
            id: User::new_id(),
            account_id,
            name,
            path,
            created_at: tx.now(),
            grants: Grants::default(),
            groups: Default::default(),
            tags,
        };
        tx.audit(json!({ "user": user.arn() }));
        tx.put(user.clone());
        Ok::<_, ApiError>(user)
    });
    Ok(CreateUserResponse {
        user: Some(tell(&user.await?)),
    })
}

/// Without a name: the caller, who may be the root user.
async fn get(app: &App, request: GetUserRequest) -> Result<GetUserResponse, ApiError> {
    use crate::iam::Identity;
    let state = app.state();
    if request.user_name.is_empty()
        && let root @ Identity::Root { .. } = Identity::current(&state, &app.account())?
    {
        let user = v1::User {
            arn: root.arn(),
            create_date: Some(timestamp(0)),
            user_id: root.id(),
            ..Default::default()
        };
        return Ok(GetUserResponse { user: Some(user) });
    }
    let user = find_user(app, &state, &request.user_name)?;
    Ok(GetUserResponse {
        user: Some(tell(user)),
    })
}

async fn update(app: &App, request: UpdateUserRequest) -> Result<UpdateUserResponse, ApiError> {
    let new_path = match request.new_path.as_str() {
        "" => None,
        _ => Some(check_path(request.new_path)?),
    };
    let new_name = request.new_user_name;
    if !new_name.is_empty() {
        check_name("newUserName", &new_name, 64)?;
    }
    let account_id = app.account();
    let updated = app.store.transact(move |tx| {
        let mut user = find::<User>(tx, &account_id, &request.user_name)?.clone();
        if !new_name.is_empty() {
            if !new_name.eq_ignore_ascii_case(&user.name) {
                refuse_twice::<User>(tx, &account_id, &new_name)?;
            }
            user.name = new_name;
        }
        user.path = new_path.unwrap_or(user.path);
        tx.audit(json!({ "user": request.user_name, "arn": user.arn() }));
        tx.put(user);
        Ok::<_, ApiError>(UpdateUserResponse {})
    });
    updated.await
}

async fn delete(app: &App, request: DeleteUserRequest) -> Result<DeleteUserResponse, ApiError> {
    let account_id = app.account();
    let deleted = app.store.transact(move |tx| {
        let user = find::<User>(tx, &account_id, &request.user_name)?;
        grants::refuse_with_policies(user)?;
        if !user.groups.is_empty() {
            return Err(delete_conflict("remove the user from its groups"));
        }
        if tx.any_by(&AccessKey::BY_USER, &user.id) {
            return Err(delete_conflict("delete access keys"));
        }
        let (id, arn) = (user.id.clone(), user.arn());
        tx.remove::<User>(&id);
        tx.audit(json!({ "user": arn }));
        Ok(DeleteUserResponse {})
    });
    deleted.await
}

async fn list(app: &App, request: ListUsersRequest) -> Result<ListUsersResponse, ApiError> {
    let state = app.state();
    let users = below(state.all::<User>(), &request.path_prefix);
    let (users, is_truncated, marker) = page(users, &request.marker, request.max_items, |user| &user.name)?;
    Ok(ListUsersResponse {
        users: users.into_iter().map(tell).collect(),
        is_truncated,
        marker,
    })
}

async fn tag(app: &App, request: TagUserRequest) -> Result<TagUserResponse, ApiError> {
    grants::change::<User, _>(app, request.user_name, move |user| {
        add_tags(&mut user.tags, &request.tags)
    })
    .await?;
    Ok(TagUserResponse {})
}

async fn untag(app: &App, request: UntagUserRequest) -> Result<UntagUserResponse, ApiError> {
    let keys = request.tag_keys;
    grants::change::<User, _>(app, request.user_name, move |user| {
        user.tags.retain(|key, _| !keys.contains(key));
        Ok(())
    })
    .await?;
    Ok(UntagUserResponse {})
}

async fn tags(app: &App, request: ListUserTagsRequest) -> Result<ListUserTagsResponse, ApiError> {
    let state = app.state();
    let tags = tell_tags(&find::<User>(&state, &app.account(), &request.user_name)?.tags);
    let (tags, is_truncated, marker) = page(tags, &request.marker, request.max_items, |tag| &tag.key)?;
    Ok(ListUserTagsResponse {
        tags,
        is_truncated,
        marker,
    })
}
