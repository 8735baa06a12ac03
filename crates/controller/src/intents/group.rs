//! Security groups, as hosts filter by them.

use hearth_api::agent::{Rule, SecurityGroupIntent, rule};

use crate::state::{SecurityGroupRule, State};

/// A group with its rules and members.
pub(super) fn whole_group(state: &State, id: &str) -> SecurityGroupIntent {
    let mut group = named_group(state, id);
    for row in state.rules_of(id) {
        let rules = match row.is_egress {
            true => &mut group.egress,
            false => &mut group.ingress,
        };
        rules.push(rule(row));
    }
    group
}

/// A group with its members alone.
pub(super) fn named_group(state: &State, id: &str) -> SecurityGroupIntent {
    SecurityGroupIntent {
        group_id: id.to_owned(),
        members: state.members(id).map(|address| address.to_string()).collect(),
        ..SecurityGroupIntent::default()
    }
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
