//! The four calls that change a group's rules: one rule by `--protocol`, `--port`, `--cidr` and `--source-group`.

use clap::{ArgMatches, Args, FromArgMatches as _};
use serde_json::{Value, json};

use super::{Custom, Finish, Request};
use crate::error::CliError;

pub(super) const CUSTOM: Custom = Custom {
    replaces: &[
        "ip_protocol",
        "from_port",
        "to_port",
        "cidr_ip",
        "source_security_group_name",
        "source_security_group_owner_id",
    ],
    flags: Rule::augment_args,
    prepare,
};

#[derive(Args)]
struct Rule {
    /// tcp, udp, icmp, a protocol number, or all (-1).
    #[arg(long, allow_hyphen_values = true, conflicts_with = "ip-permissions")]
    protocol: Option<String>,
    /// For tcp and udp a port, a range such as 5000-5010, or all. For icmp a type with all its codes, TYPE-CODE, or all.
    #[arg(long, allow_hyphen_values = true, requires = "protocol")]
    port: Option<String>,
    /// The other side: an IPv4 network.
    #[arg(long, requires = "protocol")]
    cidr: Option<String>,
    /// The other side: the members of a group, by its id or name.
    #[arg(long, value_name = "GROUP", requires = "protocol", conflicts_with = "cidr")]
    source_group: Option<String>,
    /// The account that owns the source group.
    #[arg(long, value_name = "ACCOUNT", requires = "source_group")]
    group_owner: Option<String>,
}

fn prepare(matches: &ArgMatches, request: &mut Request) -> Result<Option<Finish>, CliError> {
    if let Some(permission) = Rule::from_arg_matches(matches)?.permission()? {
        request.insert("IpPermissions".into(), json!([permission]));
    }
    Ok(None)
}

impl Rule {
    /// None without a protocol.
    fn permission(self) -> Result<Option<Value>, CliError> {
        let protocol = match self.protocol.as_deref() {
            None => return Ok(None),
            Some("all") => "-1",
            Some(protocol) => protocol,
        };
        let mut permission = json!({ "IpProtocol": protocol });
        if let Some(text) = self.port {
            let (from, to) = ports(protocol, &text)?;
            permission["FromPort"] = from.into();
            permission["ToPort"] = to.into();
        }
        if let Some(cidr) = self.cidr {
            permission["IpRanges"] = json!([{ "CidrIp": cidr }]);
        }
        if let Some(group) = self.source_group {
            let is_id = group.starts_with("sg-");
            let member = if is_id { "GroupId" } else { "GroupName" };
            permission["UserIdGroupPairs"] = json!([{ member: group, "UserId": self.group_owner }]);
        }
        Ok(Some(permission))
    }
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
