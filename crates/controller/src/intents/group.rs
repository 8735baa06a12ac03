//! Security groups, as hosts filter by them.

use hearth_api::agent::{Rule, SecurityGroupIntent, rule};

use crate::state::{SecurityGroupRule, State};

pub(super) fn add_rules(state: &State, group: &mut SecurityGroupIntent) {
    for row in state.rules_of(&group.group_id) {
        let rules = match row.is_egress {
            true => &mut group.egress,
            false => &mut group.ingress,
        };
        rules.push(rule(row));
    }
}

pub(super) fn add_members(state: &State, group: &mut SecurityGroupIntent) {
    let members = state.members(&group.group_id);
    group.members = members.map(|address| address.to_string()).collect();
}

fn rule(row: &SecurityGroupRule) -> Rule {
    let number = |n: i64| i32::try_from(n).unwrap_or(-1);
    Rule {
        protocol: number(row.protocol),
        from_port: number(row.from_port),
        to_port: number(row.to_port),
        peer: Some(match &row.referenced_group_id {
            Some(group) => rule::Peer::GroupId(group.clone()),
            None => rule::Peer::Cidr(row.cidr.clone()),
        }),
    }
}
