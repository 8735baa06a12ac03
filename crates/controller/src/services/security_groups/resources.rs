//! Rules as resources of their own: described, modified, and given other descriptions. They keep their ids.

use hearth_api::filter::{Filters, Known};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DescribeSecurityGroupRulesRequest, DescribeSecurityGroupRulesResult, IpPermission, IpRange,
    ModifySecurityGroupRulesRequest, SecurityGroupRule, SecurityGroupRuleDescription,
    SecurityGroupRuleRequest, UpdateSecurityGroupRuleDescriptionsEgressRequest,
    UpdateSecurityGroupRuleDescriptionsIngressRequest, UserIdGroupPair,
};
use hearth_api::{ApiError, Kind};

use super::named::Direction;
use super::{find, permissions, rules};
use crate::app::App;
use crate::services::input;
use crate::state::{SecurityGroupRule as Rule, Tx};

pub(in crate::services) const FILTERS: Known<SecurityGroupRule> = known! {
    tags: |item| &item.tags;
    "group-id" => group_id,
    "security-group-rule-id" => security_group_rule_id,
};

pub(super) fn describe(
    app: &App,
    request: &DescribeSecurityGroupRulesRequest,
) -> Result<DescribeSecurityGroupRulesResult, ApiError> {
    let ids = &request.security_group_rule_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "securityGroupRuleIds")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::SecurityGroupRule, ids, |id| state.get::<Rule>(id).is_some())?;
    let wanted = state
        .all::<Rule>()
        .filter(|rule| ids.is_empty() || ids.contains(&rule.id));
    let tell = |rule: &Rule| {
        let told = permissions::rule(rule);
        filters.matches(&told).then_some(told)
    };
    let (security_group_rules, next_token) = paginate(wanted, page, |rule| rule.id.clone(), tell)?;
    Ok(DescribeSecurityGroupRulesResult {
        security_group_rules,
        next_token,
    })
}

/// All rules of a call become what it says, or none does.
pub(super) async fn modify(app: &App, request: ModifySecurityGroupRulesRequest) -> Result<(), ApiError> {
    if request.security_group_rules.is_empty() {
        return Err(ApiError::missing("SecurityGroupRule"));
    }
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let group = find(tx, &scope, &request.group_id, "")?.clone();
            let mut modified = Vec::new();
            for update in &request.security_group_rules {
                let id = input::id(
                    Kind::SecurityGroupRule,
                    &update.security_group_rule_id,
                    "SecurityGroupRuleId",
                )?;
                let before = tx
                    .get::<Rule>(&id)
                    .filter(|rule| rule.group_id == group.id)
                    .cloned();
                let before = before.ok_or_else(|| Kind::SecurityGroupRule.not_found(&[&id]))?;
                let asked = update.security_group_rule.clone().unwrap_or_default();
                let mut wanted = permissions::normalise(&[permission(asked)], scope.account_id())?;
                let (Some(wanted), true) = (wanted.pop(), wanted.is_empty()) else {
                    return Err(ApiError::combination("cidrIpv4", "referencedGroupId"));
                };
                let direction = Direction::of(&before);
                let rule = Rule {
                    id: before.id.clone(),
                    created_at: before.created_at,
                    tags: before.tags.clone(),
                    ..rules::to_rule(tx, &group, direction, wanted)?
                };
                let others = rules::existing(tx, &group.id, direction);
                if others
                    .iter()
                    .any(|other| other.id != rule.id && rules::same(other, &rule))
                {
                    return Err(rules::duplicate(&rule));
                }
                tx.put(rule.clone());
                modified.push(rule);
            }
            rules::changed(tx, &group.id, &modified);
            Ok(())
        })
        .await
}

/// The permission that a rule with one peer is.
fn permission(rule: SecurityGroupRuleRequest) -> IpPermission {
    let named = |text: String| (!text.is_empty()).then_some(text);
    let description = rule.description;
    IpPermission {
        ip_protocol: rule.ip_protocol,
        from_port: rule.from_port,
        to_port: rule.to_port,
        ip_ranges: named(rule.cidr_ipv4)
            .map(|cidr_ip| IpRange {
                cidr_ip,
                description: description.clone(),
            })
            .into_iter()
            .collect(),
        user_id_group_pairs: named(rule.referenced_group_id)
            .map(|group_id| UserIdGroupPair {
                group_id,
                description: description.clone(),
                ..UserIdGroupPair::default()
            })
            .into_iter()
            .collect(),
        ..IpPermission::default()
    }
}

/// New descriptions of rules that are there.
#[derive(Debug)]
pub(super) struct Descriptions {
    direction: Direction,
    group_id: String,
    group_name: String,
    permissions: Vec<IpPermission>,
    by_id: Vec<SecurityGroupRuleDescription>,
}

impl From<UpdateSecurityGroupRuleDescriptionsIngressRequest> for Descriptions {
    fn from(request: UpdateSecurityGroupRuleDescriptionsIngressRequest) -> Self {
        Self {
            direction: Direction::Ingress,
            group_id: request.group_id,
            group_name: request.group_name,
            permissions: request.ip_permissions,
            by_id: request.security_group_rule_descriptions,
        }
    }
}

impl From<UpdateSecurityGroupRuleDescriptionsEgressRequest> for Descriptions {
    fn from(request: UpdateSecurityGroupRuleDescriptionsEgressRequest) -> Self {
        Self {
            direction: Direction::Egress,
            group_id: request.group_id,
            group_name: request.group_name,
            permissions: request.ip_permissions,
            by_id: request.security_group_rule_descriptions,
        }
    }
}

pub(super) async fn describe_anew(app: &App, request: Descriptions) -> Result<(), ApiError> {
    match (request.permissions.is_empty(), request.by_id.is_empty()) {
        (true, true) => return Err(ApiError::missing("IpPermissions")),
        (false, false) => {
            return Err(ApiError::combination(
                "ipPermissions",
                "securityGroupRuleDescriptions",
            ));
        }
        _ => {}
    }
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let group = find(tx, &scope, &request.group_id, &request.group_name)?.clone();
            let changed = renamed(tx, scope.account_id(), &group, &request)?;
            for rule in &changed {
                tx.put(rule.clone());
            }
            rules::changed(tx, &group.id, &changed);
            Ok(())
        })
        .await
}

/// The rules that a request names, with their new descriptions.
fn renamed(
    tx: &Tx<'_>,
    account_id: &str,
    group: &crate::state::SecurityGroup,
    request: &Descriptions,
) -> Result<Vec<Rule>, ApiError> {
    let mut changed = Vec::new();
    for given in &request.by_id {
        let ids = [given.security_group_rule_id.clone()];
        permissions::check_description(&given.description)?;
        for rule in rules::named(tx, group, request.direction, &ids)? {
            changed.push(Rule {
                description: given.description.clone(),
                ..rule
            });
        }
    }
    if request.permissions.is_empty() {
        return Ok(changed);
    }
    let there = rules::existing(tx, &group.id, request.direction);
    for wanted in permissions::normalise(&request.permissions, account_id)? {
        let rule = rules::to_rule(tx, group, request.direction, wanted)?;
        match there.iter().find(|other| rules::same(other, &rule)) {
            Some(found) => changed.push(Rule {
                description: rule.description,
                ..found.clone()
            }),
            None => return Err(rules::absent(&rule)),
        }
    }
    Ok(changed)
}
