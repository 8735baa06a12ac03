//! What people see of answers: the columns of their tables, without what one rarely looks for.

use std::sync::LazyLock;

use indicatif::BinaryBytes;
use jpx_core::{Context, Runtime};
use serde_json::Value;

use super::table;
use crate::calls::kebab_of_pascal;

const INSTANCES: &str = "{Name: Tags[?Key=='Name'].Value | [0], Instance: InstanceId,
    State: [State.Name, [StateReason][?Code && !starts_with(Code, 'Client.User')].Message | [0]][?@], Type: InstanceType,
    \"Public IP\": PublicIpAddress, \"Private IP\": PrivateIpAddress, Zone: Placement.AvailabilityZone, Image: ImageId}";
const CHANGES: &str = "{Instance: InstanceId, Was: PreviousState.Name, Is: CurrentState.Name}";
const RULES: &str =
    "{Rule: SecurityGroupRuleId, Group: GroupId, Admits: admits([@]), Description: Description}";

/// Operations, the list of rows in their answers, and the columns of a row: JMESPath, with the functions [`admits`] and
/// [`bytes`]. Others have a column for each member.
const SHOWN: &[(&str, &str, &str)] = &[
    ("DescribeInstances", "Reservations[].Instances", INSTANCES),
    ("RunInstances", "Instances", INSTANCES),
    ("StartInstances", "StartingInstances", CHANGES),
    ("StopInstances", "StoppingInstances", CHANGES),
    ("TerminateInstances", "TerminatingInstances", CHANGES),
    (
        "DescribeInstanceStatus",
        "InstanceStatuses",
        "{Instance: InstanceId, Zone: AvailabilityZone, State: InstanceState.Name, \"Instance status\": InstanceStatus.Status,
        \"System status\": SystemStatus.Status, \"Impaired since\": SystemStatus.Details[0].ImpairedSince}",
    ),
    (
        "DescribeImages",
        "Images",
        "{Name: Name, Image: ImageId, State: State, GiB: BlockDeviceMappings[0].Ebs.VolumeSize, \"Boot mode\": BootMode,
        Created: CreationDate, Description: Description}",
    ),
    (
        "DescribeKeyPairs",
        "KeyPairs",
        "{Name: KeyName, Key: KeyPairId, Type: KeyType, Fingerprint: KeyFingerprint, Created: CreateTime}",
    ),
    (
        "DescribeSecurityGroups",
        "SecurityGroups",
        "{Name: GroupName, Group: GroupId, Description: Description, \"Admits in\": admits(IpPermissions),
        \"Admits out\": admits(IpPermissionsEgress)}",
    ),
    ("AuthorizeSecurityGroupIngress", "SecurityGroupRules", RULES),
    ("AuthorizeSecurityGroupEgress", "SecurityGroupRules", RULES),
    (
        "DescribeInstanceTypes",
        "InstanceTypes",
        "{Type: InstanceType, vCPUs: VCpuInfo.DefaultVCpus, \"Memory MiB\": MemoryInfo.SizeInMiB,
        Network: NetworkInfo.NetworkPerformance}",
    ),
    (
        "DescribeAvailabilityZones",
        "AvailabilityZones",
        "{Zone: ZoneName, State: State, Message: Messages[0].Message}",
    ),
    (
        "DescribeVolumes",
        "Volumes",
        "{Name: Tags[?Key=='Name'].Value | [0], Volume: VolumeId, State: State, GiB: Size, Zone: AvailabilityZone,
        Instance: Attachments[0].InstanceId, Device: Attachments[0].Device, Created: CreateTime}",
    ),
    (
        "DescribeSnapshots",
        "Snapshots",
        "{Name: Tags[?Key=='Name'].Value | [0], Snapshot: SnapshotId, State: State, Progress: Progress, GiB: VolumeSize,
        Volume: VolumeId, Description: Description, Started: StartTime}",
    ),
    (
        "ListAccounts",
        "Accounts",
        "{Account: AccountId, Name: AccountName, Since: JoinedTimestamp}",
    ),
    (
        "ListHosts",
        "Hosts",
        "{Host: HostId, Name: Hostname, Zone: AvailabilityZone, State: join(', ', [State, DrainState][?@]),
        Instances: length(InstanceIds), vCPUs: [Claimed, Capacity][].to_string(Vcpus) | join(' of ', @),
        \"Memory MiB\": [Claimed, Capacity][].to_string(MemoryMib) | join(' of ', @),
        \"Disk GiB\": [Claimed, Capacity][].to_string(DiskGib) | join(' of ', @), Joined: EnrollTime}",
    ),
    (
        "DescribeStorage",
        "[@]",
        "{Repository: Repository.Place, Disks: Repository.DiskCount, \"Their size\": bytes(Repository.DiskBytes),
        Chunks: Repository.ChunkCount, References: Repository.ChunkReferences, Uncompressed: bytes(Repository.ChunkBytes),
        Stored: bytes(Repository.StoredBytes), Unneeded: bytes(Repository.UnneededBytes),
        \"Last scrub\": Scrub.[State, Progress] | join(', ', @ || `[]`), Damages: Scrub.DamageCount}",
    ),
    (
        "ListDiskStorage",
        "DiskStorage",
        "{Disk: DiskName, Of: [SnapshotIds, ImageIds][] | join(', ', @), Size: bytes(SizeBytes), Chunks: ChunkCount,
        Stored: bytes(StoredBytes), Shared: bytes(SharedBytes), \"Freed without it\": bytes(FreedBytes), Encrypted: Encrypted,
        Damage: Damage}",
    ),
    (
        "ListHostStorage",
        "HostStorage",
        "{Host: HostId, Name: Hostname, Zone: AvailabilityZone, Volumes: VolumeCount, Promised: bytes(PromisedBytes),
        Capacity: bytes(CapacityBytes), Overcommit: Overcommit, \"Volumes take\": bytes(VolumeBytes),
        \"Instance store takes\": bytes(InstanceStoreBytes),
        \"Bases take\": bytes(BaseBytes), Free: bytes(FreeBytes), Disk: bytes(TotalBytes), Message: StatusMessage}",
    ),
    (
        "ListVolumeStorage",
        "VolumeStorage",
        "{Volume: VolumeId, Owner: OwnerId, Host: HostId, Size: bytes(SizeBytes), Takes: bytes(AllocatedBytes),
        \"Written since\": bytes(WrittenBytes), \"Of its base\": bytes(SharedBytes), Base: BaseId, Message: StatusMessage}",
    ),
    (
        "ListStorageDamages",
        "StorageDamages",
        "{Object: Object, Reason: Reason, Repaired: Repaired, \"Needed by\": join(', ', ResourceIds)}",
    ),
];

/// An operation's answer for people; may end without a line end.
pub(super) fn table(operation: &str, answer: &Value) -> String {
    let shown = SHOWN.iter().find(|(of, ..)| *of == operation);
    let Some((_, list, columns)) = shown else {
        return any(answer);
    };
    let rows = RUNTIME.compile(&format!("{list}[].{columns}"));
    match rows.and_then(|rows| rows.search(answer)) {
        Ok(rows) if rows.as_array().is_some_and(|rows| !rows.is_empty()) => table::of_value(&rows),
        Ok(_) => none(list),
        Err(_) => any(answer),
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
    let name = list.rsplit('.').next().unwrap_or_default();
    format!("No {}.", kebab_of_pascal(name).replace('-', " "))
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = Runtime::strict();
    let of_first = |arguments: &[Value], _: &mut Context<'_>| Ok(admits(arguments.first()));
    runtime.register_function("admits", Box::new(of_first));
    let of_number = |arguments: &[Value], _: &mut Context<'_>| Ok(bytes(arguments.first()));
    runtime.register_function("bytes", Box::new(of_number));
    runtime
});

/// `1.50 GiB`; of no number, nothing.
fn bytes(number: Option<&Value>) -> Value {
    let number = number.and_then(Value::as_u64);
    number.map_or(Value::Null, |number| BinaryBytes(number).to_string().into())
}

/// A line for each peer of permissions or rules: `tcp 22 0.0.0.0/0`.
fn admits(permissions: Option<&Value>) -> Value {
    let permissions = permissions.and_then(Value::as_array).into_iter().flatten();
    let lines = permissions.flat_map(|of| {
        let each = |list: &str, member: &'static str| {
            let peers = of[list].as_array().into_iter().flatten();
            peers.map(move |peer| &peer[member])
        };
        let of_rule = [&of["CidrIpv4"], &of["ReferencedGroupInfo"]["GroupId"]];
        let peers = each("IpRanges", "CidrIp")
            .chain(each("UserIdGroupPairs", "GroupId"))
            .chain(of_rule);
        let traffic = traffic(of);
        peers
            .filter_map(Value::as_str)
            .map(move |peer| format!("{traffic} {peer}"))
    });
    lines.collect()
}

/// `tcp 22`, `icmp 8`, `all`.
fn traffic(of: &Value) -> String {
    let protocol = of["IpProtocol"].as_str().unwrap_or_default();
    match (protocol, of["FromPort"].as_i64(), of["ToPort"].as_i64()) {
        ("-1", ..) => "all".to_owned(),
        (protocol, None | Some(-1), _) | (protocol, _, None) => protocol.to_owned(),
        ("tcp" | "udp", Some(0), Some(65_535)) => protocol.to_owned(),
        ("icmp", Some(kind), Some(-1)) => format!("icmp {kind}"),
        (protocol, Some(from), Some(to)) if from == to => format!("{protocol} {from}"),
        (protocol, Some(from), Some(to)) => format!("{protocol} {from}-{to}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_columns_are_expressions() {
        for (operation, list, columns) in SHOWN {
            let compiled = RUNTIME.compile(&format!("{list}[].{columns}"));
            assert!(compiled.is_ok(), "{operation}: {:?}", compiled.err());
        }
    }

    #[test]
    fn storage_is_told_in_units_for_people() {
        let silent = json!({"HostStorage": [
            {"HostId": "h-1", "PromisedBytes": 1_610_612_736_u64, "CapacityBytes": 0, "VolumeCount": 3,
             "StatusMessage": "its host is not connected"}]});
        let told = table("ListHostStorage", &silent);
        for word in ["h-1", "1.50 GiB", "0 B", "its host is not connected"] {
            assert!(told.contains(word), "{word} in\n{told}");
        }
        let repository = json!({"Place": "/srv/disks", "DiskCount": 2, "StoredBytes": 1024});
        let scrub = json!({"State": "running", "Progress": "42%"});
        for (scrub, expected) in [(scrub, "running, 42%"), (Value::Null, "/srv/disks")] {
            let told = table(
                "DescribeStorage",
                &json!({"Repository": repository, "Scrub": scrub}),
            );
            assert!(told.contains(expected) && told.contains("1.00 KiB"), "{told}");
            assert!(!told.contains("RepositoryStorage"), "{told}");
        }
        let disk =
            json!({"DiskName": "snap-1", "SnapshotIds": ["snap-2"], "ImageIds": ["ami-1"], "FreedBytes": 1});
        let told = table("ListDiskStorage", &json!({"DiskStorage": [disk]}));
        assert!(told.contains("snap-2, ami-1"), "{told}");
    }
}
