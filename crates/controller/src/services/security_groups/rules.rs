//! Authorize and revoke. Authorize adds all rules of a call or none.

use hearth_api::v1::{IpPermission, Tag};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use serde_json::json;

use super::find;
use super::named::{Direction, Named};
use super::permissions::{self, Peer, Wanted};
use crate::app::App;
use crate::services::input;
use crate::state::noun::keep_tags;
use crate::state::{SecurityGroup, SecurityGroupRule as Rule, State, Tags, Tx};
use crate::store::now;

/// Rules that a group has per direction.
pub const MAX_RULES: usize = 60;

pub(super) async fn authorize(app: &App, request: Named) -> Result<Vec<Rule>, ApiError> {
    let scope = app.scope();
    let wanted = permissions::normalise(&request.permissions, scope.account_id())?;
    app.store
        .transact(move |tx| {
            let group = find(tx, &scope, &request.group_id, &request.group_name)?.clone();
            let added = add(tx, &group, request.direction, &request.tags, wanted)?;
            changed(tx, &group.id, &added);
            Ok(added)
        })
        .await
}

/// Adds rules to a group, and answers them.
fn add(
    tx: &mut Tx<'_>,
    group: &SecurityGroup,
    direction: Direction,
    tags: &[Tag],
    wanted: Vec<Wanted>,
) -> Result<Vec<Rule>, ApiError> {
    let before = existing(tx, &group.id, direction);
    let mut added: Vec<Rule> = Vec::new();
    for wanted in wanted {
        let rule = Rule {
            tags: keep_tags(tags),
            ..to_rule(tx, group, direction, wanted)?
        };
        if added.iter().any(|other| same(other, &rule)) {
            return Err(twice(&rule));
        }
        if before.iter().any(|other| same(other, &rule)) {
            return Err(duplicate(&rule));
        }
        tx.put(rule.clone());
        added.push(rule);
    }
    let count = before.len() + added.len();
    if count > MAX_RULES {
        return Err(ApiError::new(
            ErrorCode::RulesPerSecurityGroupLimitExceeded,
            format!(
                "The group {} would have {count} rules in this direction, and {MAX_RULES} are admitted. Revoke some, or \
                 use a second group.",
                group.id
            ),
        ));
    }
    Ok(added)
}

/// The rules of a group changed.
pub(super) fn changed(tx: &mut Tx<'_>, group_id: &str, rules: &[Rule]) {
    let ids: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
    tx.audit(json!({ "group": group_id, "rules": ids }));
    tx.event("security-group.changed", group_id);
}

/// Answers the rules that were removed, and what was named and not there.
pub(super) async fn revoke(app: &App, request: Named) -> Result<(Vec<Rule>, Vec<IpPermission>), ApiError> {
    let by_id = !request.rule_ids.is_empty();
    if by_id && !request.permissions.is_empty() {
        return Err(ApiError::combination("ipPermissions", "securityGroupRuleIds"));
    }
    let scope = app.scope();
    let (asked, mut unknown) = permissions::apart(request.permissions)?;
    app.store
        .transact(move |tx| {
            let group = find(tx, &scope, &request.group_id, &request.group_name)?.clone();
            let revoked = if by_id {
                named(tx, &group, request.direction, &request.rule_ids)?
            } else if asked.is_empty() && !unknown.is_empty() {
                Vec::new()
            } else {
                let wanted = permissions::normalise(&asked, scope.account_id())?;
                let (revoked, absent) = described(tx, &group, request.direction, wanted)?;
                unknown.extend(permissions::permissions(absent.iter(), scope.account_id()));
                revoked
            };
            tx.remove_all::<Rule>(revoked.iter().map(|rule| rule.id.clone()));
            changed(tx, &group.id, &revoked);
            Ok((revoked, unknown))
        })
        .await
}

/// The rules of a group that ids name.
pub(super) fn named(
    state: &State,
    group: &SecurityGroup,
    direction: Direction,
    ids: &[String],
) -> Result<Vec<Rule>, ApiError> {
    let rules = existing(state, &group.id, direction);
    let ids = input::ids(Kind::SecurityGroupRule, ids, "SecurityGroupRuleId")?;
    ids.iter()
        .map(|id| {
            let found = rules.iter().find(|rule| rule.id == *id).cloned();
            found.ok_or_else(|| Kind::SecurityGroupRule.not_found(&[id]))
        })
        .collect()
}

/// The rules of a group that permissions describe, and those that are not there. In a VPC that is not the default one
/// these are an error.
fn described(
    state: &State,
    group: &SecurityGroup,
    direction: Direction,
    wanted: Vec<Wanted>,
) -> Result<(Vec<Rule>, Vec<Rule>), ApiError> {
    let rules = existing(state, &group.id, direction);
    let in_default_vpc = state
        .default_vpc(&group.scope())
        .is_some_and(|vpc| vpc.id == group.vpc_id);
    let (mut revoked, mut unknown): (Vec<Rule>, Vec<Rule>) = Default::default();
    for wanted in wanted {
        let rule = to_rule(state, group, direction, wanted)?;
        match rules.iter().find(|other| same(other, &rule)) {
            Some(found) if revoked.contains(found) => {}
            Some(found) => revoked.push(found.clone()),
            None if in_default_vpc => unknown.push(rule),
            None => return Err(absent(&rule)),
        }
    }
    Ok((revoked, unknown))
}

pub(super) fn existing(state: &State, group_id: &str, direction: Direction) -> Vec<Rule> {
    let mut rules = state.rules_of(group_id);
    rules.retain(|rule| rule.is_egress == (direction == Direction::Egress));
    rules.into_iter().cloned().collect()
}

pub(super) fn to_rule(
    state: &State,
    group: &SecurityGroup,
    direction: Direction,
    wanted: Wanted,
) -> Result<Rule, ApiError> {
    let (cidr, referenced) = match wanted.peer {
        Peer::Cidr(cidr) => (cidr.to_string(), None),
        Peer::Group { id, name } => {
            let named = find(state, &group.scope(), &id, &name)?;
            (String::new(), Some(named.id.clone()))
        }
    };
    Ok(Rule {
        id: Id::new(Kind::SecurityGroupRule).to_string(),
        account_id: group.account_id.clone(),
        region: group.region.clone(),
        group_id: group.id.clone(),
        is_egress: direction == Direction::Egress,
        protocol: wanted.traffic.protocol,
        from_port: wanted.traffic.from,
        to_port: wanted.traffic.to,
        cidr,
        referenced_group_id: referenced,
        description: wanted.description,
        created_at: now(),
        tags: Tags::new(),
    })
}

/// The description is no part of what a rule is.
pub(super) fn same(a: &Rule, b: &Rule) -> bool {
    (a.protocol, a.from_port, a.to_port) == (b.protocol, b.from_port, b.to_port)
        && (&a.cidr, &a.referenced_group_id) == (&b.cidr, &b.referenced_group_id)
}

fn sentence(row: &Rule) -> String {
    let rule = permissions::rule(row);
    let peer = row.referenced_group_id.as_deref().unwrap_or(&row.cidr);
    format!(
        "peer: {peer}, {}, from port: {}, to port: {}, ALLOW",
        rule.ip_protocol.to_uppercase(),
        rule.from_port,
        rule.to_port
    )
}

pub(super) fn absent(row: &Rule) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidPermissionNotFound,
        format!(
            "The specified rule ({}) does not exist in this security group.",
            sentence(row)
        ),
    )
}

/// The same rule twice in one call.
fn twice(row: &Rule) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidParameterValue,
        format!(
            "The same permission must not appear multiple times ({})",
            sentence(row)
        ),
    )
}

pub(super) fn duplicate(row: &Rule) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidPermissionDuplicate,
        format!("the specified rule \"{}\" already exists", sentence(row)),
    )
}
