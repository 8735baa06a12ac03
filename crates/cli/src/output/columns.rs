//! What people see of answers: the columns of their tables, without what one rarely looks for.

use serde_json::Value;

use super::table;
use crate::calls::kebab_of_pascal;

/// How an operation's answer becomes a table.
struct Shown {
    operations: &'static [&'static str],
    /// Names of lists: that of the answer, then those in its items.
    rows: &'static [&'static str],
    columns: &'static [(&'static str, Cell)],
}

/// Where a cell's text comes from.
enum Cell {
    /// A JSON pointer (RFC 6901) into the row.
    At(&'static str),
    Of(fn(&Value) -> String),
}

use Cell::{At, Of};

const INSTANCES: &[(&str, Cell)] = &[
    ("Name", Of(name)),
    ("Instance", At("/InstanceId")),
    ("State", Of(state_and_reason)),
    ("Type", At("/InstanceType")),
    ("Public IP", At("/PublicIpAddress")),
    ("Private IP", At("/PrivateIpAddress")),
    ("Zone", At("/Placement/AvailabilityZone")),
    ("Image", At("/ImageId")),
];
const STATE_CHANGES: &[(&str, Cell)] = &[
    ("Instance", At("/InstanceId")),
    ("Was", At("/PreviousState/Name")),
    ("Is", At("/CurrentState/Name")),
];
const RULES: &[(&str, Cell)] = &[
    ("Rule", At("/SecurityGroupRuleId")),
    ("Group", At("/GroupId")),
    ("Admits", Of(rule)),
    ("Description", At("/Description")),
];

/// Others have a column for each member.
const SHOWN: &[Shown] = &[
    Shown {
        operations: &["DescribeInstances"],
        rows: &["Reservations", "Instances"],
        columns: INSTANCES,
    },
    Shown {
        operations: &["RunInstances"],
        rows: &["Instances"],
        columns: INSTANCES,
    },
    Shown {
        operations: &["StartInstances"],
        rows: &["StartingInstances"],
        columns: STATE_CHANGES,
    },
    Shown {
        operations: &["StopInstances"],
        rows: &["StoppingInstances"],
        columns: STATE_CHANGES,
    },
    Shown {
        operations: &["TerminateInstances"],
        rows: &["TerminatingInstances"],
        columns: STATE_CHANGES,
    },
    Shown {
        operations: &["DescribeInstanceStatus"],
        rows: &["InstanceStatuses"],
        columns: &[
            ("Instance", At("/InstanceId")),
            ("Zone", At("/AvailabilityZone")),
            ("State", At("/InstanceState/Name")),
            ("Instance status", At("/InstanceStatus/Status")),
            ("System status", At("/SystemStatus/Status")),
            (
                "Impaired since",
                Of(|status| time(status, "/SystemStatus/Details/0/ImpairedSince")),
            ),
        ],
    },
    Shown {
        operations: &["DescribeImages"],
        rows: &["Images"],
        columns: &[
            ("Name", At("/Name")),
            ("Image", At("/ImageId")),
            ("State", At("/State")),
            ("GiB", At("/BlockDeviceMappings/0/Ebs/VolumeSize")),
            ("Boot mode", At("/BootMode")),
            ("Created", Of(|image| time(image, "/CreationDate"))),
            ("Description", At("/Description")),
        ],
    },
    Shown {
        operations: &["DescribeKeyPairs"],
        rows: &["KeyPairs"],
        columns: &[
            ("Name", At("/KeyName")),
            ("Key", At("/KeyPairId")),
            ("Type", At("/KeyType")),
            ("Fingerprint", At("/KeyFingerprint")),
            ("Created", Of(|pair| time(pair, "/CreateTime"))),
        ],
    },
    Shown {
        operations: &["DescribeSecurityGroups"],
        rows: &["SecurityGroups"],
        columns: &[
            ("Name", At("/GroupName")),
            ("Group", At("/GroupId")),
            ("Description", At("/Description")),
            ("Admits in", Of(|group| permissions(group, "/IpPermissions"))),
            (
                "Admits out",
                Of(|group| permissions(group, "/IpPermissionsEgress")),
            ),
        ],
    },
    Shown {
        operations: &["AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress"],
        rows: &["SecurityGroupRules"],
        columns: RULES,
    },
    Shown {
        operations: &["DescribeInstanceTypes"],
        rows: &["InstanceTypes"],
        columns: &[
            ("Type", At("/InstanceType")),
            ("vCPUs", At("/VCpuInfo/DefaultVCpus")),
            ("Memory MiB", At("/MemoryInfo/SizeInMiB")),
            ("Network", At("/NetworkInfo/NetworkPerformance")),
        ],
    },
    Shown {
        operations: &["DescribeAvailabilityZones"],
        rows: &["AvailabilityZones"],
        columns: &[
            ("Zone", At("/ZoneName")),
            ("State", At("/State")),
            ("Message", At("/Messages/0/Message")),
        ],
    },
    Shown {
        operations: &["DescribeVolumes"],
        rows: &["Volumes"],
        columns: &[
            ("Name", Of(name)),
            ("Volume", At("/VolumeId")),
            ("State", At("/State")),
            ("GiB", At("/Size")),
            ("Zone", At("/AvailabilityZone")),
            ("Instance", At("/Attachments/0/InstanceId")),
            ("Device", At("/Attachments/0/Device")),
            ("Created", Of(|volume| time(volume, "/CreateTime"))),
        ],
    },
    Shown {
        operations: &["ListHosts"],
        rows: &["Hosts"],
        columns: &[
            ("Host", At("/HostId")),
            ("Name", At("/Hostname")),
            ("Zone", At("/AvailabilityZone")),
            ("State", Of(host_state)),
            (
                "Instances",
                Of(|host| host["InstanceIds"].as_array().map_or(0, Vec::len).to_string()),
            ),
            ("vCPUs", Of(|host| claimed(host, "Vcpus"))),
            ("Memory MiB", Of(|host| claimed(host, "MemoryMib"))),
            ("Disk GiB", Of(|host| claimed(host, "DiskGib"))),
            ("Joined", Of(|host| time(host, "/EnrollTime"))),
        ],
    },
];

/// An operation's answer for people; may end without a line end.
pub(super) fn table(operation: &str, answer: &Value) -> String {
    let shown = SHOWN.iter().find(|shown| shown.operations.contains(&operation));
    let Some(Shown { rows, columns, .. }) = shown else {
        return any(answer);
    };
    let found = rows.iter().fold(vec![answer], |within, list| {
        let items = within.into_iter().filter_map(|item| item[*list].as_array());
        items.flatten().collect()
    });
    match rows.last() {
        Some(list) if found.is_empty() => none(list),
        _ => {
            let row = |row| columns.iter().map(|(_, cell)| cell.text(row)).collect();
            table::of_rows(columns.iter().map(|(head, _)| *head), found.into_iter().map(row))
        }
    }
}

/// Most answers are one list, and perhaps a token.
fn any(answer: &Value) -> String {
    let members = answer.as_object().into_iter().flatten();
    let mut members = members.filter(|(name, _)| *name != "NextToken");
    match (members.next(), members.next()) {
        (Some((name, Value::Array(items))), None) if items.is_empty() => none(name),
        (Some((_, list @ Value::Array(_))), None) => table::of_value(list),
        _ => table::of_value(answer),
    }
}

fn none(list: &str) -> String {
    format!("No {}.", kebab_of_pascal(list).replace('-', " "))
}

impl Cell {
    fn text(&self, row: &Value) -> String {
        match self {
            At(pointer) => text(row, pointer),
            Of(text) => text(row),
        }
    }
}

/// What is at a pointer; empty for nothing.
fn text(of: &Value, pointer: &str) -> String {
    match of.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A time without seconds' fractions and the `T`.
fn time(of: &Value, pointer: &str) -> String {
    let time = text(of, pointer);
    time.get(..19).unwrap_or(&time).replace('T', " ")
}

/// The `Name` tag.
fn name(of: &Value) -> String {
    let tags = of["Tags"].as_array().into_iter().flatten();
    let mut names = tags.filter(|tag| tag["Key"] == "Name");
    names.next().map(|tag| text(tag, "/Value")).unwrap_or_default()
}

/// The state; with the reason where nobody asked for it.
fn state_and_reason(instance: &Value) -> String {
    let state = text(instance, "/State/Name");
    match text(instance, "/StateReason/Code").as_str() {
        "" => state,
        code if code.starts_with("Client.User") => state,
        _ => format!("{state}\n{}", text(instance, "/StateReason/Message")),
    }
}

fn host_state(host: &Value) -> String {
    let parts = [text(host, "/State"), text(host, "/DrainState")];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

/// How much of a resource of a host instances claim.
fn claimed(host: &Value, resource: &str) -> String {
    format!("{} of {}", host["Claimed"][resource], host["Capacity"][resource])
}

/// A line for each peer of each permission.
fn permissions(group: &Value, pointer: &str) -> String {
    let permissions = group.pointer(pointer).and_then(Value::as_array);
    let lines = permissions.into_iter().flatten().flat_map(|permission| {
        let traffic = traffic(permission);
        let peers = |list: &str, member: &str| -> Vec<String> {
            let peers = permission[list].as_array().into_iter().flatten();
            peers.map(|peer| text(peer, member)).collect()
        };
        let peers = [
            peers("IpRanges", "/CidrIp"),
            peers("UserIdGroupPairs", "/GroupId"),
        ]
        .concat();
        peers.into_iter().map(move |peer| format!("{traffic} {peer}"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn rule(rule: &Value) -> String {
    let peers = [
        text(rule, "/CidrIpv4"),
        text(rule, "/ReferencedGroupInfo/GroupId"),
    ];
    format!("{} {}", traffic(rule), peers.concat())
}

/// `tcp 22`, `icmp 8`, `all`.
fn traffic(of: &Value) -> String {
    let protocol = text(of, "/IpProtocol");
    let ports = (of["FromPort"].as_i64(), of["ToPort"].as_i64());
    match (protocol.as_str(), ports) {
        ("-1", _) => "all".to_owned(),
        (protocol, (None, _) | (_, None) | (Some(-1), _)) => protocol.to_owned(),
        ("tcp" | "udp", (Some(0), Some(65_535))) => protocol,
        ("icmp", (Some(kind), Some(-1))) => format!("icmp {kind}"),
        (protocol, (Some(from), Some(to))) if from == to => format!("{protocol} {from}"),
        (protocol, (Some(from), Some(to))) => format!("{protocol} {from}-{to}"),
    }
}
