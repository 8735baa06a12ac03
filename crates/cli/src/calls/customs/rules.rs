//! The four calls that change a group's rules: one rule by `--protocol`, `--port`, `--cidr` and `--source-group`.

use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use super::{Custom, Finish, Request};
use crate::error::CliError;

const PROTOCOL: &str = "protocol";
const PORT: &str = "port";
const CIDR: &str = "cidr";
const SOURCE_GROUP: &str = "source-group";
const GROUP_OWNER: &str = "group-owner";

pub(super) const CUSTOM: Custom = Custom {
    replaces: &[
        "ip_protocol",
        "from_port",
        "to_port",
        "cidr_ip",
        "source_security_group_name",
        "source_security_group_owner_id",
    ],
    flags,
    prepare,
};

fn flags(command: Command) -> Command {
    let flag = |name: &'static str, value: &'static str, help: &'static str| {
        let flag = Arg::new(name).long(name).value_name(value);
        flag.help(help).allow_hyphen_values(true)
    };
    command.args([
        flag(
            PROTOCOL,
            "PROTOCOL",
            "tcp, udp, icmp, a protocol number, or all (-1).",
        )
        .conflicts_with("ip-permissions"),
        flag(
            PORT,
            "PORT",
            "For tcp and udp a port, a range such as 5000-5010, or all. For icmp a type with all its codes, \
             TYPE-CODE, or all.",
        )
        .requires(PROTOCOL),
        flag(CIDR, "CIDR", "The other side: an IPv4 network.").requires(PROTOCOL),
        flag(
            SOURCE_GROUP,
            "GROUP",
            "The other side: the members of a group, by its id or name.",
        )
        .requires(PROTOCOL)
        .conflicts_with(CIDR),
        flag(GROUP_OWNER, "ACCOUNT", "The account that owns the source group.").requires(SOURCE_GROUP),
    ])
}

fn prepare(matches: &ArgMatches, request: &mut Request) -> Result<Option<Finish>, CliError> {
    if let Some(permission) = permission(matches)? {
        request.insert("IpPermissions".into(), json!([permission]));
    }
    Ok(None)
}

/// The permission that the flags say; none without a protocol.
fn permission(matches: &ArgMatches) -> Result<Option<Value>, CliError> {
    let given = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let Some(protocol) = given(PROTOCOL) else {
        return Ok(None);
    };
    let protocol = if protocol == "all" { "-1" } else { protocol };
    let mut permission = json!({ "IpProtocol": protocol });
    if let Some(text) = given(PORT) {
        let (from, to) = ports(protocol, text)?;
        permission["FromPort"] = from.into();
        permission["ToPort"] = to.into();
    }
    if let Some(cidr) = given(CIDR) {
        permission["IpRanges"] = json!([{ "CidrIp": cidr }]);
    }
    if let Some(group) = given(SOURCE_GROUP) {
        let member = if group.starts_with("sg-") {
            "GroupId"
        } else {
            "GroupName"
        };
        let mut pair = json!({ member: group });
        if let Some(owner) = given(GROUP_OWNER) {
            pair["UserId"] = owner.into();
        }
        permission["UserIdGroupPairs"] = json!([pair]);
    }
    Ok(Some(permission))
}

/// `FromPort` and `ToPort` for the `--port` of a protocol: ports, or ICMP's type and code.
fn ports(protocol: &str, text: &str) -> Result<(i32, i32), CliError> {
    let number = |text: &str| {
        text.parse::<i32>().map_err(|_| {
            let problem = format!("'{text}' is no number; a value is 22, 5000-5010, or all");
            CliError::parameter("--port", problem)
        })
    };
    match (text, text.split_once('-')) {
        ("all", _) if ["tcp", "udp", "6", "17"].contains(&protocol) => Ok((0, 65_535)),
        ("all" | "-1", _) => Ok((-1, -1)),
        (_, Some((from, to))) => Ok((number(from)?, number(to)?)),
        (kind, None) if ["icmp", "1"].contains(&protocol) => Ok((number(kind)?, -1)),
        (port, None) => number(port).map(|port| (port, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_range_and_an_icmp_type_has_all_its_codes() {
        for (protocol, port, expected) in [
            ("tcp", "22", (22, 22)),
            ("udp", "5000-5010", (5000, 5010)),
            ("tcp", "all", (0, 65_535)),
            ("6", "all", (0, 65_535)),
            // For hearthd to refuse.
            ("tcp", "-1", (-1, -1)),
            ("icmp", "8", (8, -1)),
            ("1", "8", (8, -1)),
            ("icmp", "3-4", (3, 4)),
            ("icmp", "all", (-1, -1)),
            ("icmp", "-1", (-1, -1)),
            ("-1", "all", (-1, -1)),
        ] {
            assert_eq!(ports(protocol, port).unwrap(), expected, "{protocol} {port}");
        }
        assert!(ports("tcp", "ssh").is_err());
    }
}
