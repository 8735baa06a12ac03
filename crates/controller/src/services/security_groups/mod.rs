//! Security groups: the groups themselves, and their rules in `rules`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hearth_api::filter::{Filters, Values};
use hearth_api::page::{paginate, refuse_page_of_ids};
use hearth_api::v1::{
    CreateSecurityGroupRequest, CreateSecurityGroupResponse, DeleteSecurityGroupRequest,
    DeleteSecurityGroupResponse, DescribeSecurityGroupsRequest, DescribeSecurityGroupsResponse,
    RevokeSecurityGroupRulesResponse, SecurityGroup, SecurityGroupRulesRequest, SecurityGroupRulesResponse,
    security_groups_server,
};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use serde_json::json;
use sqlx::SqliteConnection;
use tonic::{Request, Response, Status};

use self::rules::Direction;
use super::{Failure, answer, commit, input, refuse_dry_run};
use crate::app::App;
use crate::store::bootstrap::{DEFAULT_GROUP, allow_all_egress};
use crate::store::security_groups::{self, GroupRow, RuleRow};
use crate::store::{networks, tags};

mod permissions;
mod rules;

const FILTERS: &[&str] = &[
    "description",
    "group-id",
    "group-name",
    "ip-permission.cidr",
    "ip-permission.from-port",
    "ip-permission.group-id",
    "ip-permission.protocol",
    "ip-permission.to-port",
    "owner-id",
    "tag",
    "vpc-id",
];

pub(super) struct SecurityGroups(pub(super) Arc<App>);

#[tonic::async_trait]
impl security_groups_server::SecurityGroups for SecurityGroups {
    async fn create_security_group(
        &self,
        request: Request<CreateSecurityGroupRequest>,
    ) -> Result<Response<CreateSecurityGroupResponse>, Status> {
        answer(
            "CreateSecurityGroup",
            create(&self.0, &request.into_inner()).await,
        )
    }

    async fn describe_security_groups(
        &self,
        request: Request<DescribeSecurityGroupsRequest>,
    ) -> Result<Response<DescribeSecurityGroupsResponse>, Status> {
        answer(
            "DescribeSecurityGroups",
            describe(&self.0, &request.into_inner()).await,
        )
    }

    async fn delete_security_group(
        &self,
        request: Request<DeleteSecurityGroupRequest>,
    ) -> Result<Response<DeleteSecurityGroupResponse>, Status> {
        answer(
            "DeleteSecurityGroup",
            delete(&self.0, &request.into_inner()).await,
        )
    }

    async fn authorize_security_group_ingress(
        &self,
        request: Request<SecurityGroupRulesRequest>,
    ) -> Result<Response<SecurityGroupRulesResponse>, Status> {
        let done = rules::authorize(&self.0, &request.into_inner(), Direction::Ingress).await;
        answer("AuthorizeSecurityGroupIngress", done)
    }

    async fn authorize_security_group_egress(
        &self,
        request: Request<SecurityGroupRulesRequest>,
    ) -> Result<Response<SecurityGroupRulesResponse>, Status> {
        let done = rules::authorize(&self.0, &request.into_inner(), Direction::Egress).await;
        answer("AuthorizeSecurityGroupEgress", done)
    }

    async fn revoke_security_group_ingress(
        &self,
        request: Request<SecurityGroupRulesRequest>,
    ) -> Result<Response<RevokeSecurityGroupRulesResponse>, Status> {
        let done = rules::revoke(&self.0, &request.into_inner(), Direction::Ingress).await;
        answer("RevokeSecurityGroupIngress", done)
    }

    async fn revoke_security_group_egress(
        &self,
        request: Request<SecurityGroupRulesRequest>,
    ) -> Result<Response<RevokeSecurityGroupRulesResponse>, Status> {
        let done = rules::revoke(&self.0, &request.into_inner(), Direction::Egress).await;
        answer("RevokeSecurityGroupEgress", done)
    }
}

/// Characters that EC2 admits in names and descriptions.
fn admitted(text: &str) -> bool {
    let mark = |c: char| " ._-:/()#,@[]+=&;{}!$*".contains(c);
    text.chars().count() <= 255 && text.chars().all(|c| c.is_ascii_alphanumeric() || mark(c))
}

/// A name as names are compared: without trailing spaces, in lower case.
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html>
fn folded(name: &str) -> String {
    name.trim_end_matches(' ').to_ascii_lowercase()
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
    request: &CreateSecurityGroupRequest,
) -> Result<CreateSecurityGroupResponse, Failure> {
    check_names(request)?;
    let made = [Kind::SecurityGroup];
    let given = input::tags_for(&request.tag_specifications, &made, Kind::SecurityGroup)?;
    let mut tx = app.store.write().await?;
    let vpc_id = match request.vpc_id.as_str() {
        "" => networks::default_vpc(tx.connection()).await?.id,
        id => {
            let known = networks::vpcs(tx.connection()).await?;
            input::all_known(
                Kind::Vpc,
                &[id.to_owned()],
                known.iter().map(|vpc| vpc.id.as_str()),
            )?;
            id.to_owned()
        }
    };
    // The only writer: nobody makes a group of this name before this transaction ends.
    let name = request.group_name.trim_end_matches(' ');
    if let Some(GroupRow { name, .. }) = security_groups::by_name(tx.connection(), &vpc_id, name).await? {
        return Err(ApiError::new(
            ErrorCode::InvalidGroupDuplicate,
            format!("The security group '{name}' already exists for VPC '{vpc_id}'"),
        )
        .into());
    }
    let row = GroupRow {
        id: Id::new(Kind::SecurityGroup).to_string(),
        vpc_id,
        name: name.to_owned(),
        description: request.description.clone(),
    };
    security_groups::insert(tx.connection(), &row).await?;
    security_groups::insert_rule(tx.connection(), &allow_all_egress(&row.id)).await?;
    tags::put(
        tx.connection(),
        &row.id,
        Kind::SecurityGroup.resource_type(),
        &given,
    )
    .await?;
    tx.audit("CreateSecurityGroup", &json!({ "group": row.id, "name": name }))
        .await?;
    tx.event("security-group.created", &row.id).await?;
    commit(tx, request.dry_run).await?;
    Ok(CreateSecurityGroupResponse { group_id: row.id })
}

/// The group that a call names by its id, or by its name in the default VPC.
async fn find(c: &mut SqliteConnection, id: &str, name: &str) -> Result<GroupRow, Failure> {
    let (found, called) = match (id, name) {
        ("", "") => return Err(ApiError::missing("GroupId").into()),
        (id, "") => {
            Id::parse(Kind::SecurityGroup, id)?;
            (security_groups::by_id(c, id).await?, id)
        }
        ("", name) => {
            let vpc = networks::default_vpc(c).await?;
            (security_groups::by_name(c, &vpc.id, name).await?, name)
        }
        _ => return Err(ApiError::combination("groupName", "groupId").into()),
    };
    found.ok_or_else(|| Kind::SecurityGroup.not_found(&[called]).into())
}

async fn delete(
    app: &App,
    request: &DeleteSecurityGroupRequest,
) -> Result<DeleteSecurityGroupResponse, Failure> {
    let mut tx = app.store.write().await?;
    let group = find(tx.connection(), &request.group_id, &request.group_name).await?;
    if group.name == DEFAULT_GROUP {
        return Err(ApiError::new(
            ErrorCode::CannotDelete,
            format!(
                "the specified group: \"{}\" name: \"default\" cannot be deleted by a user",
                group.id
            ),
        )
        .into());
    }
    let users = security_groups::users(tx.connection(), &group.id).await?;
    if !users.is_empty() {
        return Err(ApiError::new(
            ErrorCode::DependencyViolation,
            format!(
                "resource {} has a dependent object: {}. Terminate the instances that are in it, and revoke the rules \
                 that name it.",
                group.id,
                users.join(", ")
            ),
        )
        .into());
    }
    for rule in security_groups::rules_of(tx.connection(), std::slice::from_ref(&group.id)).await? {
        tags::remove_all(tx.connection(), &rule.id).await?;
    }
    security_groups::delete(tx.connection(), &group.id).await?;
    tags::remove_all(tx.connection(), &group.id).await?;
    tx.audit(
        "DeleteSecurityGroup",
        &json!({ "group": group.id, "name": group.name }),
    )
    .await?;
    tx.event("security-group.deleted", &group.id).await?;
    commit(tx, request.dry_run).await?;
    Ok(DeleteSecurityGroupResponse {})
}

async fn describe(
    app: &App,
    request: &DescribeSecurityGroupsRequest,
) -> Result<DescribeSecurityGroupsResponse, Failure> {
    refuse_page_of_ids(&request.group_ids, request.page.as_ref(), "groupIds")?;
    refuse_page_of_ids(&request.group_names, request.page.as_ref(), "groupNames")?;
    let filters = Filters::new(&request.filters, FILTERS)?;
    let mut read = app.store.read().await?;
    let groups = security_groups::all(&mut read).await?;
    let mut rules: HashMap<String, Vec<RuleRow>> = HashMap::new();
    for row in security_groups::rules(&mut read).await? {
        rules.entry(row.group_id.clone()).or_default().push(row);
    }
    let default_vpc = networks::default_vpc(&mut read).await?.id;
    let mut tags = tags::of_type(&mut read, Kind::SecurityGroup.resource_type(), None).await?;
    drop(read);
    input::all_known(
        Kind::SecurityGroup,
        &request.group_ids,
        groups.iter().map(|group| group.id.as_str()),
    )?;
    let names: HashSet<String> = request.group_names.iter().map(|name| folded(name)).collect();
    let is_named = |group: &GroupRow| group.vpc_id == default_vpc && names.contains(&folded(&group.name));
    let named: HashSet<String> = groups
        .iter()
        .filter(|g| is_named(g))
        .map(|g| folded(&g.name))
        .collect();
    let unknown: Vec<&String> = request
        .group_names
        .iter()
        .filter(|name| !named.contains(&folded(name)))
        .collect();
    if !unknown.is_empty() {
        return Err(Kind::SecurityGroup.not_found(&unknown).into());
    }
    refuse_dry_run(request.dry_run)?;
    let owner_id = app.cloud().owner_id.as_str();
    let unnamed = request.group_ids.is_empty() && request.group_names.is_empty();
    let mut told = Vec::new();
    for row in groups {
        if !(unnamed || request.group_ids.contains(&row.id) || is_named(&row)) {
            continue;
        }
        let of_group = rules.remove(&row.id).unwrap_or_default();
        let group = SecurityGroup {
            tags: tags.remove(&row.id).unwrap_or_default(),
            group_id: row.id,
            group_name: row.name,
            description: row.description,
            vpc_id: row.vpc_id,
            ip_permissions: permissions::permissions(
                of_group.iter().filter(|rule| !rule.is_egress),
                owner_id,
            ),
            ip_permissions_egress: permissions::permissions(
                of_group.iter().filter(|rule| rule.is_egress),
                owner_id,
            ),
            owner_id: owner_id.to_owned(),
        };
        if filters.matches(&group.tags, |name| values(&group, name)) {
            told.push(group);
        }
    }
    let (security_groups, next_token) = paginate(told, request.page.as_ref(), |group: &SecurityGroup| {
        group.group_id.clone()
    })?;
    Ok(DescribeSecurityGroupsResponse {
        security_groups,
        next_token,
    })
}

fn values<'g>(group: &'g SecurityGroup, name: &str) -> Values<'g> {
    let permissions = || group.ip_permissions.iter();
    match name {
        "description" => vec![group.description.as_str().into()],
        "group-name" => vec![group.group_name.as_str().into()],
        "owner-id" => vec![group.owner_id.as_str().into()],
        "vpc-id" => vec![group.vpc_id.as_str().into()],
        "ip-permission.cidr" => permissions()
            .flat_map(|p| &p.ip_ranges)
            .map(|range| range.cidr_ip.as_str().into())
            .collect(),
        "ip-permission.group-id" => permissions()
            .flat_map(|p| &p.user_id_group_pairs)
            .map(|pair| pair.group_id.as_str().into())
            .collect(),
        "ip-permission.protocol" => permissions().map(|p| p.ip_protocol.as_str().into()).collect(),
        "ip-permission.from-port" => permissions()
            .filter_map(|p| p.from_port)
            .map(|port| port.to_string().into())
            .collect(),
        "ip-permission.to-port" => permissions()
            .filter_map(|p| p.to_port)
            .map(|port| port.to_string().into())
            .collect(),
        _ => vec![group.group_id.as_str().into()],
    }
}
