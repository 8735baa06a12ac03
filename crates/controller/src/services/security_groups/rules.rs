//! Authorize and revoke. Authorize adds all rules of a call or none.

use std::sync::Arc;

use hearth_api::v1::{
    RevokeSecurityGroupRulesResponse, SecurityGroupRulesRequest, SecurityGroupRulesResponse,
};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use serde_json::json;
use sqlx::SqliteConnection;

use super::find;
use super::permissions::{self, Peer, Wanted};
use crate::app::App;
use crate::services::{Failure, commit, input};
use crate::store::security_groups::{self, RuleRow};
use crate::store::{networks, tags};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

/// Rules that a group has per direction.
const MAX_RULES: usize = 60;

pub(super) async fn authorize(
    app: &Arc<App>,
    request: &SecurityGroupRulesRequest,
    direction: Direction,
) -> Result<SecurityGroupRulesResponse, Failure> {
    if !request.security_group_rule_ids.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterCombination,
            "Rule ids are for revoking; give the new rules as IpPermissions.",
        )
        .into());
    }
    let wanted = permissions::normalise(&request.ip_permissions, &app.cloud().owner_id)?;
    let mut tx = app.store.write().await?;
    let group = find(tx.connection(), &request.group_id, &request.group_name).await?;
    let mut rules = existing(tx.connection(), &group.id, direction).await?;
    let mut added: Vec<RuleRow> = Vec::new();
    for wanted in wanted {
        let row = to_row(tx.connection(), &group.id, direction, wanted).await?;
        if added.iter().any(|rule| same(rule, &row)) {
            return Err(twice(&row).into());
        }
        if rules.iter().any(|rule| same(rule, &row)) {
            return Err(duplicate(&row).into());
        }
        security_groups::insert_rule(tx.connection(), &row).await?;
        rules.push(row.clone());
        added.push(row);
    }
    if rules.len() > MAX_RULES {
        return Err(ApiError::new(
            ErrorCode::RulesPerSecurityGroupLimitExceeded,
            format!(
                "The group {} would have {} rules in this direction, and {MAX_RULES} are admitted. Revoke some, or use \
                 a second group.",
                group.id,
                rules.len()
            ),
        )
        .into());
    }
    security_groups::touch_rules(&mut tx, &group.id).await?;
    let told: Vec<_> = added.iter().map(permissions::rule).collect();
    let ids: Vec<&str> = added.iter().map(|row| row.id.as_str()).collect();
    let action = match direction {
        Direction::Ingress => "AuthorizeSecurityGroupIngress",
        Direction::Egress => "AuthorizeSecurityGroupEgress",
    };
    tx.audit(action, &json!({ "group": group.id, "rules": ids }))
        .await?;
    tx.event("security-group.changed", &group.id).await?;
    commit(tx, request.dry_run).await?;
    Ok(SecurityGroupRulesResponse {
        security_group_rules: told,
    })
}

pub(super) async fn revoke(
    app: &Arc<App>,
    request: &SecurityGroupRulesRequest,
    direction: Direction,
) -> Result<RevokeSecurityGroupRulesResponse, Failure> {
    let by_id = !request.security_group_rule_ids.is_empty();
    if by_id && !request.ip_permissions.is_empty() {
        return Err(ApiError::combination("ipPermissions", "securityGroupRuleIds").into());
    }
    let mut tx = app.store.write().await?;
    let group = find(tx.connection(), &request.group_id, &request.group_name).await?;
    let rules = existing(tx.connection(), &group.id, direction).await?;
    let account = app.cloud().owner_id.as_str();
    let (mut revoked, mut unknown): (Vec<RuleRow>, Vec<RuleRow>) = Default::default();
    if by_id {
        for id in input::ids(
            Kind::SecurityGroupRule,
            &request.security_group_rule_ids,
            "SecurityGroupRuleId",
        )? {
            let found = rules.iter().find(|rule| rule.id == id);
            revoked.push(
                found
                    .cloned()
                    .ok_or_else(|| Kind::SecurityGroupRule.not_found(&[&id]))?,
            );
        }
    } else {
        let in_default_vpc = networks::default_vpc(tx.connection()).await?.id == group.vpc_id;
        for wanted in permissions::normalise(&request.ip_permissions, account)? {
            let row = to_row(tx.connection(), &group.id, direction, wanted).await?;
            match rules.iter().find(|rule| same(rule, &row)) {
                Some(found) if revoked.contains(found) => {}
                Some(found) => revoked.push(found.clone()),
                None if in_default_vpc => unknown.push(row),
                None => return Err(absent(&row).into()),
            }
        }
    }
    for rule in &revoked {
        security_groups::delete_rule(tx.connection(), &rule.id).await?;
        tags::remove_all(tx.connection(), &rule.id).await?;
    }
    security_groups::touch_rules(&mut tx, &group.id).await?;
    let ids: Vec<&str> = revoked.iter().map(|row| row.id.as_str()).collect();
    let action = match direction {
        Direction::Ingress => "RevokeSecurityGroupIngress",
        Direction::Egress => "RevokeSecurityGroupEgress",
    };
    tx.audit(action, &json!({ "group": group.id, "rules": ids }))
        .await?;
    tx.event("security-group.changed", &group.id).await?;
    commit(tx, request.dry_run).await?;
    Ok(RevokeSecurityGroupRulesResponse {
        revoked_security_group_rules: revoked.iter().map(permissions::rule).collect(),
        unknown_ip_permissions: permissions::permissions(unknown.iter(), account),
    })
}

async fn existing(
    c: &mut SqliteConnection,
    group_id: &str,
    direction: Direction,
) -> Result<Vec<RuleRow>, Failure> {
    let mut rules = security_groups::rules_of(c, &[group_id.to_owned()]).await?;
    rules.retain(|rule| rule.is_egress == (direction == Direction::Egress));
    Ok(rules)
}

async fn to_row(
    c: &mut SqliteConnection,
    group_id: &str,
    direction: Direction,
    wanted: Wanted,
) -> Result<RuleRow, Failure> {
    let (cidr, referenced) = match wanted.peer {
        Peer::Cidr(cidr) => (cidr.to_string(), None),
        Peer::Group { id, name } => (String::new(), Some(find(c, &id, &name).await?.id)),
    };
    Ok(RuleRow {
        id: Id::new(Kind::SecurityGroupRule).to_string(),
        group_id: group_id.to_owned(),
        is_egress: direction == Direction::Egress,
        protocol: wanted.traffic.protocol,
        from_port: wanted.traffic.from,
        to_port: wanted.traffic.to,
        cidr,
        referenced_group_id: referenced,
        description: wanted.description,
    })
}

/// The description is no part of what a rule is.
fn same(a: &RuleRow, b: &RuleRow) -> bool {
    (a.protocol, a.from_port, a.to_port) == (b.protocol, b.from_port, b.to_port)
        && (&a.cidr, &a.referenced_group_id) == (&b.cidr, &b.referenced_group_id)
}

fn sentence(row: &RuleRow) -> String {
    let rule = permissions::rule(row);
    let peer = row.referenced_group_id.as_deref().unwrap_or(&row.cidr);
    format!(
        "peer: {peer}, {}, from port: {}, to port: {}, ALLOW",
        rule.ip_protocol.to_uppercase(),
        rule.from_port,
        rule.to_port
    )
}

fn absent(row: &RuleRow) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidPermissionNotFound,
        format!(
            "The specified rule ({}) does not exist in this security group.",
            sentence(row)
        ),
    )
}

/// The same rule twice in one call.
fn twice(row: &RuleRow) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidParameterValue,
        format!(
            "The same permission must not appear multiple times ({})",
            sentence(row)
        ),
    )
}

fn duplicate(row: &RuleRow) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidPermissionDuplicate,
        format!("the specified rule \"{}\" already exists", sentence(row)),
    )
}
