//! Security groups: the groups themselves, and their rules in `rules`.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use hearth_api::filter::{Filters, Known};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    AuthorizeSecurityGroupEgressRequest, AuthorizeSecurityGroupEgressResult,
    AuthorizeSecurityGroupIngressRequest, AuthorizeSecurityGroupIngressResult, CreateSecurityGroupRequest,
    CreateSecurityGroupResponse, DeleteSecurityGroupRequest, DeleteSecurityGroupResponse,
    DescribeSecurityGroupRulesRequest, DescribeSecurityGroupRulesResult, DescribeSecurityGroupsRequest,
    DescribeSecurityGroupsResponse, ModifySecurityGroupRulesRequest, ModifySecurityGroupRulesResult,
    RevokeSecurityGroupEgressRequest, RevokeSecurityGroupEgressResult, RevokeSecurityGroupIngressRequest,
    RevokeSecurityGroupIngressResult, SecurityGroup, UpdateSecurityGroupRuleDescriptionsEgressRequest,
    UpdateSecurityGroupRuleDescriptionsEgressResult, UpdateSecurityGroupRuleDescriptionsIngressRequest,
    UpdateSecurityGroupRuleDescriptionsIngressResult, security_groups_server,
};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{answer, input};
use crate::app::App;
use crate::state::noun::{keep_tags, tell_tags};
use crate::state::{self, NetworkInterface, Scope, SecurityGroupRule, State, Tx, Vpc, folded};
use crate::store::bootstrap::{DEFAULT_GROUP, allow_all_egress};

mod named;
mod permissions;
pub(super) mod resources;
mod rules;

pub(super) use rules::MAX_RULES;

pub(super) const FILTERS: Known<SecurityGroup> = known! {
    tags: |item| &item.tags;
    "description" => description,
    "egress.ip-permission.cidr" => ip_permissions_egress.ip_ranges.cidr_ip,
    "egress.ip-permission.from-port" => ip_permissions_egress.from_port,
    "egress.ip-permission.group-id" => ip_permissions_egress.user_id_group_pairs.group_id,
    "egress.ip-permission.group-name" => ip_permissions_egress.user_id_group_pairs.group_name,
    "egress.ip-permission.ipv6-cidr" => ip_permissions_egress.ipv6_ranges.cidr_ipv6,
    "egress.ip-permission.prefix-list-id" => ip_permissions_egress.prefix_list_ids.prefix_list_id,
    "egress.ip-permission.protocol" => ip_permissions_egress.ip_protocol,
    "egress.ip-permission.to-port" => ip_permissions_egress.to_port,
    "egress.ip-permission.user-id" => ip_permissions_egress.user_id_group_pairs.user_id,
    "group-id" => group_id,
    "group-name" => group_name,
    "ip-permission.cidr" => ip_permissions.ip_ranges.cidr_ip,
    "ip-permission.from-port" => ip_permissions.from_port,
    "ip-permission.group-id" => ip_permissions.user_id_group_pairs.group_id,
    "ip-permission.group-name" => ip_permissions.user_id_group_pairs.group_name,
    "ip-permission.ipv6-cidr" => ip_permissions.ipv6_ranges.cidr_ipv6,
    "ip-permission.prefix-list-id" => ip_permissions.prefix_list_ids.prefix_list_id,
    "ip-permission.protocol" => ip_permissions.ip_protocol,
    "ip-permission.to-port" => ip_permissions.to_port,
    "ip-permission.user-id" => ip_permissions.user_id_group_pairs.user_id,
    "owner-id" => owner_id,
    "vpc-id" => vpc_id,
};

pub(super) struct SecurityGroups(pub(super) Arc<App>);

#[tonic::async_trait]
impl security_groups_server::SecurityGroups for SecurityGroups {
    async fn create_security_group(
        &self,
        request: Request<CreateSecurityGroupRequest>,
    ) -> Result<Response<CreateSecurityGroupResponse>, Status> {
        answer(create(&self.0, request.into_inner()).await)
    }

    async fn describe_security_groups(
        &self,
        request: Request<DescribeSecurityGroupsRequest>,
    ) -> Result<Response<DescribeSecurityGroupsResponse>, Status> {
        answer(describe(&self.0, &request.into_inner()))
    }

    async fn delete_security_group(
        &self,
        request: Request<DeleteSecurityGroupRequest>,
    ) -> Result<Response<DeleteSecurityGroupResponse>, Status> {
        answer(delete(&self.0, request.into_inner()).await)
    }

    async fn authorize_security_group_ingress(
        &self,
        request: Request<AuthorizeSecurityGroupIngressRequest>,
    ) -> Result<Response<AuthorizeSecurityGroupIngressResult>, Status> {
        let done = match request.into_inner().try_into() {
            Ok(named) => rules::authorize(&self.0, named).await,
            Err(error) => Err(error),
        };
        answer(done.map(|added| AuthorizeSecurityGroupIngressResult {
            r#return: true,
            security_group_rules: added.iter().map(permissions::rule).collect(),
        }))
    }

    async fn authorize_security_group_egress(
        &self,
        request: Request<AuthorizeSecurityGroupEgressRequest>,
    ) -> Result<Response<AuthorizeSecurityGroupEgressResult>, Status> {
        let done = match request.into_inner().try_into() {
            Ok(named) => rules::authorize(&self.0, named).await,
            Err(error) => Err(error),
        };
        answer(done.map(|added| AuthorizeSecurityGroupEgressResult {
            r#return: true,
            security_group_rules: added.iter().map(permissions::rule).collect(),
        }))
    }

    async fn revoke_security_group_ingress(
        &self,
        request: Request<RevokeSecurityGroupIngressRequest>,
    ) -> Result<Response<RevokeSecurityGroupIngressResult>, Status> {
        let done = rules::revoke(&self.0, request.into_inner().into()).await;
        answer(done.map(|(revoked, unknown)| RevokeSecurityGroupIngressResult {
            r#return: true,
            revoked_security_group_rules: revoked.iter().map(permissions::revoked).collect(),
            unknown_ip_permissions: unknown,
        }))
    }

    async fn revoke_security_group_egress(
        &self,
        request: Request<RevokeSecurityGroupEgressRequest>,
    ) -> Result<Response<RevokeSecurityGroupEgressResult>, Status> {
        let done = rules::revoke(&self.0, request.into_inner().into()).await;
        answer(done.map(|(revoked, unknown)| RevokeSecurityGroupEgressResult {
            r#return: true,
            revoked_security_group_rules: revoked.iter().map(permissions::revoked).collect(),
            unknown_ip_permissions: unknown,
        }))
    }

    async fn describe_security_group_rules(
        &self,
        request: Request<DescribeSecurityGroupRulesRequest>,
    ) -> Result<Response<DescribeSecurityGroupRulesResult>, Status> {
        answer(resources::describe(&self.0, &request.into_inner()))
    }

    async fn modify_security_group_rules(
        &self,
        request: Request<ModifySecurityGroupRulesRequest>,
    ) -> Result<Response<ModifySecurityGroupRulesResult>, Status> {
        let done = resources::modify(&self.0, request.into_inner()).await;
        answer(done.map(|()| ModifySecurityGroupRulesResult { r#return: true }))
    }

    async fn update_security_group_rule_descriptions_ingress(
        &self,
        request: Request<UpdateSecurityGroupRuleDescriptionsIngressRequest>,
    ) -> Result<Response<UpdateSecurityGroupRuleDescriptionsIngressResult>, Status> {
        let done = resources::describe_anew(&self.0, request.into_inner().into()).await;
        answer(done.map(|()| UpdateSecurityGroupRuleDescriptionsIngressResult { r#return: true }))
    }

    async fn update_security_group_rule_descriptions_egress(
        &self,
        request: Request<UpdateSecurityGroupRuleDescriptionsEgressRequest>,
    ) -> Result<Response<UpdateSecurityGroupRuleDescriptionsEgressResult>, Status> {
        let done = resources::describe_anew(&self.0, request.into_inner().into()).await;
        answer(done.map(|()| UpdateSecurityGroupRuleDescriptionsEgressResult { r#return: true }))
    }
}

/// Characters that EC2 admits in names and descriptions.
fn admitted(text: &str) -> bool {
    let mark = |c: char| " ._-:/()#,@[]+=&;{}!$*".contains(c);
    text.chars().count() <= 255 && text.chars().all(|c| c.is_ascii_alphanumeric() || mark(c))
}

fn check_names(request: &CreateSecurityGroupRequest) -> Result<(), ApiError> {
    let name = request.group_name.trim_end_matches(' ');
    if name.is_empty() {
        return Err(ApiError::missing("GroupName"));
    }
    if request.description.is_empty() {
        return Err(ApiError::missing("GroupDescription"));
    }
    if folded(name) == DEFAULT_GROUP {
        return Err(ApiError::new(
            ErrorCode::InvalidGroupReserved,
            "The security group 'default' is reserved. Choose another name.",
        ));
    }
    if folded(name).starts_with("sg-") {
        return Err(ApiError::invalid_value(
            "GroupName",
            name,
            "A name does not begin with 'sg-'.",
        ));
    }
    for (parameter, text) in [("GroupName", name), ("GroupDescription", &request.description)] {
        if !admitted(text) {
            let expected =
                "Expecting up to 255 characters from a-z, A-Z, 0-9, spaces, and ._-:/()#,@[]+=&;{}!$*";
            return Err(ApiError::invalid_value(parameter, text, expected));
        }
    }
    Ok(())
}

async fn create(
    app: &App,
    request: CreateSecurityGroupRequest,
) -> Result<CreateSecurityGroupResponse, ApiError> {
    check_names(&request)?;
    let made = [Kind::SecurityGroup];
    let tags = input::tags_for(&request.tag_specifications, &made, Kind::SecurityGroup)?;
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let vpc_id = vpc(tx, &scope, &request.vpc_id)?;
            let name = request.group_name.trim_end_matches(' ');
            if let Some(group) = tx.group_named(&vpc_id, name) {
                return Err(ApiError::new(
                    ErrorCode::InvalidGroupDuplicate,
                    format!(
                        "The security group '{}' already exists for VPC '{vpc_id}'",
                        group.name
                    ),
                ));
            }
            let group = state::SecurityGroup {
                id: Id::new(Kind::SecurityGroup).to_string(),
                account_id: scope.account_id().to_owned(),
                region: scope.region().to_owned(),
                vpc_id,
                name: name.to_owned(),
                description: request.description.clone(),
                created_at: tx.now(),
                tags: keep_tags(&tags),
            };
            tx.put(allow_all_egress(&group, tx.now()));
            tx.audit(json!({ "group": group.id, "name": name }));
            tx.event("security-group.created", &group.id);
            tx.put(group.clone());
            Ok(CreateSecurityGroupResponse {
                security_group_arn: arn(&group),
                group_id: group.id,
                tags: tell_tags(&group.tags),
            })
        })
        .await
}

/// The VPC that a call names, or the default one.
fn vpc(state: &State, scope: &Scope, id: &str) -> Result<String, ApiError> {
    let found = match id {
        "" => state.default_vpc(scope).ok_or_else(|| {
            ApiError::new(
                ErrorCode::VpcIdNotSpecified,
                "No default VPC for this user. Name a VPC, or make one: CreateDefaultVpc.",
            )
        })?,
        id => {
            let named = state.get::<Vpc>(&Id::parse(Kind::Vpc, id)?);
            named.ok_or_else(|| Kind::Vpc.not_found(&[id]))?
        }
    };
    Ok(found.id.clone())
}

/// The group that a call names by its id, or by its name in the default VPC.
fn find<'s>(
    state: &'s State,
    scope: &Scope,
    id: &str,
    name: &str,
) -> Result<&'s state::SecurityGroup, ApiError> {
    let (found, called) = match (id, name) {
        ("", "") => return Err(ApiError::missing("GroupId")),
        (id, "") => {
            Id::parse(Kind::SecurityGroup, id)?;
            (state.get(id), id)
        }
        ("", name) => {
            let vpc = state.default_vpc(scope);
            (vpc.and_then(|vpc| state.group_named(&vpc.id, name)), name)
        }
        _ => return Err(ApiError::combination("groupName", "groupId")),
    };
    found.ok_or_else(|| Kind::SecurityGroup.not_found(&[called]))
}

async fn delete(
    app: &App,
    request: DeleteSecurityGroupRequest,
) -> Result<DeleteSecurityGroupResponse, ApiError> {
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let group = find(tx, &scope, &request.group_id, &request.group_name)?.clone();
            if group.name == DEFAULT_GROUP {
                return Err(ApiError::new(
                    ErrorCode::CannotDelete,
                    format!(
                        "the specified group: \"{}\" name: \"default\" cannot be deleted by a user",
                        group.id
                    ),
                ));
            }
            let users = users(tx, &group.id);
            if !users.is_empty() {
                let users: Vec<_> = users.into_iter().collect();
                return Err(ApiError::new(
                    ErrorCode::DependencyViolation,
                    format!(
                        "resource {} has a dependent object: {}. Terminate the instances that are in it, and revoke \
                         the rules that name it.",
                        group.id,
                        users.join(", ")
                    ),
                ));
            }
            remove(tx, &group);
            Ok(DeleteSecurityGroupResponse {
                group_id: group.id,
                r#return: true,
            })
        })
        .await
}

/// What uses a group: interfaces, and other groups' rules.
fn users(state: &State, id: &str) -> BTreeSet<String> {
    let interfaces = state.by(&NetworkInterface::BY_GROUP, id).map(|n| n.id.clone());
    let rules = state
        .by(&SecurityGroupRule::BY_REFERENCED, id)
        .filter(|rule| rule.group_id != id)
        .map(|rule| rule.group_id.clone());
    interfaces.chain(rules).collect()
}

fn remove(tx: &mut Tx<'_>, group: &state::SecurityGroup) {
    tx.remove::<state::SecurityGroup>(&group.id);
    tx.audit(json!({ "group": group.id, "name": group.name }));
    tx.event("security-group.deleted", &group.id);
}

fn describe(
    app: &App,
    request: &DescribeSecurityGroupsRequest,
) -> Result<DescribeSecurityGroupsResponse, ApiError> {
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(&request.group_ids, page, "groupIds")?;
    refuse_page_of_ids(&request.group_names, page, "groupNames")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::SecurityGroup, &request.group_ids, |id| {
        state.get::<state::SecurityGroup>(id).is_some()
    })?;
    let default_vpc = state.default_vpc(&app.scope()).map_or("", |vpc| &vpc.id);
    let unknown: Vec<&String> = request
        .group_names
        .iter()
        .filter(|name| state.group_named(default_vpc, name).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(Kind::SecurityGroup.not_found(&unknown));
    }
    let names: HashSet<String> = request.group_names.iter().map(|name| folded(name)).collect();
    let is_wanted = |group: &state::SecurityGroup| {
        let unnamed = request.group_ids.is_empty() && names.is_empty();
        let is_named = group.vpc_id == default_vpc && names.contains(&folded(&group.name));
        unnamed || is_named || request.group_ids.contains(&group.id)
    };
    let groups = state
        .all::<state::SecurityGroup>()
        .filter(|group| is_wanted(group));
    let (security_groups, next_token) = paginate(
        groups,
        page,
        |group| group.id.clone(),
        |group| {
            let told = tell(&state, group);
            filters.matches(&told).then_some(told)
        },
    )?;
    Ok(DescribeSecurityGroupsResponse {
        security_groups,
        next_token,
    })
}

fn arn(group: &state::SecurityGroup) -> String {
    format!(
        "arn:aws:ec2:{}:{}:security-group/{}",
        group.region, group.account_id, group.id
    )
}

fn tell(state: &State, group: &state::SecurityGroup) -> SecurityGroup {
    let rules = state.rules_of(&group.id);
    let direction = |egress: bool| {
        let rules = rules.iter().copied().filter(|rule| rule.is_egress == egress);
        permissions::permissions(rules, &group.account_id)
    };
    SecurityGroup {
        group_id: group.id.clone(),
        group_name: group.name.clone(),
        description: group.description.clone(),
        vpc_id: group.vpc_id.clone(),
        ip_permissions: direction(false),
        ip_permissions_egress: direction(true),
        security_group_arn: arn(group),
        owner_id: group.account_id.clone(),
        tags: tell_tags(&group.tags),
    }
}
