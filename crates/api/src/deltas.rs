//! How an agent applies changes of its intents. Both ends of the protocol share it: the control plane's tests hold what it
//! sends against all intents sent anew.

use crate::agent::{
    InstanceIntent, Intents, IntentsDelta, MembersDelta, SecurityGroupIntent, SnapshotIntent, SubnetIntent,
    VolumeIntent, VpcDelta, VpcIntent,
};

/// The delta builds on other intents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the changes are of other intents than those that are known")]
pub struct Mismatch;

/// Makes the intents of `delta.after` those of `delta.sequence`.
///
/// # Errors
/// They are others. Nothing is changed then.
pub fn apply(intents: &mut Intents, delta: IntentsDelta) -> Result<(), Mismatch> {
    if (&delta.epoch, delta.after) != (&intents.epoch, intents.sequence) {
        return Err(Mismatch);
    }
    intents.sequence = delta.sequence;
    let gone = &delta.removed_instances;
    intents
        .instances
        .retain(|known| !gone.contains(&known.instance_id));
    for instance in delta.instances {
        put(&mut intents.instances, instance, |one: &InstanceIntent| {
            &one.instance_id
        });
    }
    let gone = &delta.removed_vpcs;
    intents.vpcs.retain(|known| !gone.contains(&known.vpc_id));
    for change in delta.vpcs {
        let known = intents.vpcs.iter().find(|known| known.vpc_id == change.vpc_id);
        let mut vpc = known.cloned().unwrap_or_default();
        apply_vpc(&mut vpc, change);
        put(&mut intents.vpcs, vpc, |one: &VpcIntent| &one.vpc_id);
    }
    let gone = &delta.removed_volumes;
    intents.volumes.retain(|known| !gone.contains(&known.volume_id));
    for volume in delta.volumes {
        put(&mut intents.volumes, volume, |one: &VolumeIntent| &one.volume_id);
    }
    let gone = &delta.removed_snapshots;
    intents
        .snapshots
        .retain(|known| !gone.contains(&known.snapshot_id));
    for snapshot in delta.snapshots {
        put(&mut intents.snapshots, snapshot, |one: &SnapshotIntent| {
            &one.snapshot_id
        });
    }
    Ok(())
}

fn apply_vpc(vpc: &mut VpcIntent, delta: VpcDelta) {
    vpc.vpc_id = delta.vpc_id;
    vpc.cidr_block = delta.cidr_block;
    vpc.public_pool_cidr = delta.public_pool_cidr;
    vpc.dns_disabled = delta.dns_disabled;
    let gone = &delta.removed_subnets;
    vpc.subnets.retain(|known| !gone.contains(&known.subnet_id));
    for subnet in delta.subnets {
        put(&mut vpc.subnets, subnet, |one: &SubnetIntent| &one.subnet_id);
    }
    let gone = &delta.removed_security_groups;
    vpc.security_groups
        .retain(|known| !gone.contains(&known.group_id));
    for group in delta.security_groups {
        put(&mut vpc.security_groups, group, |one: &SecurityGroupIntent| {
            &one.group_id
        });
    }
    for change in delta.members {
        let known = vpc.security_groups.iter_mut();
        if let Some(group) = known.into_iter().find(|known| known.group_id == change.group_id) {
            apply_members(&mut group.members, change);
        }
    }
}

fn apply_members(members: &mut Vec<String>, delta: MembersDelta) {
    members.retain(|known| !delta.left.contains(known) && !delta.joined.contains(known));
    members.extend(delta.joined);
}

/// Replaces the item with the same id, or adds it. Items stay in the order of their ids.
fn put<T>(items: &mut Vec<T>, item: T, id: impl Fn(&T) -> &String) {
    match items.binary_search_by(|known| id(known).cmp(id(&item))) {
        Ok(at) => items[at] = item,
        Err(at) => items.insert(at, item),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::agent::volume_intent::Desired;
    use crate::agent::{InstanceVolume, NetworkInterface};

    fn instance(id: &str, run: u64) -> InstanceIntent {
        InstanceIntent {
            instance_id: id.into(),
            run,
            ..InstanceIntent::default()
        }
    }

    fn volume(id: &str, desired: Desired) -> VolumeIntent {
        VolumeIntent {
            volume_id: id.into(),
            desired: desired.into(),
            epoch: 1,
        }
    }

    fn snapshot(id: &str) -> SnapshotIntent {
        SnapshotIntent {
            snapshot_id: id.into(),
            ..SnapshotIntent::default()
        }
    }

    fn group(id: &str, members: &[&str]) -> SecurityGroupIntent {
        SecurityGroupIntent {
            group_id: id.into(),
            members: members.iter().map(ToString::to_string).collect(),
            ..SecurityGroupIntent::default()
        }
    }

    fn subnet(id: &str, internet: &[&str]) -> SubnetIntent {
        SubnetIntent {
            subnet_id: id.into(),
            cidr_block: "10.0.0.0/24".into(),
            internet_cidrs: internet.iter().map(ToString::to_string).collect(),
        }
    }

    fn known() -> Intents {
        Intents {
            epoch: "one".into(),
            sequence: 7,
            instances: vec![instance("i-1", 1), instance("i-3", 1)],
            vpcs: vec![VpcIntent {
                vpc_id: "vpc-1".into(),
                security_groups: vec![group("sg-1", &["10.0.0.4", "10.0.0.5"]), group("sg-2", &[])],
                subnets: vec![subnet("subnet-1", &[]), subnet("subnet-2", &[])],
                ..VpcIntent::default()
            }],
            volumes: vec![volume("vol-1", Desired::Kept), volume("vol-2", Desired::Erased)],
            snapshots: vec![snapshot("snap-1"), snapshot("snap-3")],
        }
    }

    #[test]
    fn changes_replace_add_and_remove() {
        let mut intents = known();
        let delta = IntentsDelta {
            epoch: "one".into(),
            after: 7,
            sequence: 9,
            instances: vec![instance("i-3", 2), instance("i-2", 1)],
            removed_instances: vec!["i-1".into()],
            vpcs: vec![VpcDelta {
                vpc_id: "vpc-1".into(),
                cidr_block: "10.0.0.0/16".into(),
                security_groups: vec![group("sg-0", &["10.0.0.9"])],
                removed_security_groups: vec!["sg-2".into()],
                members: vec![MembersDelta {
                    group_id: "sg-1".into(),
                    joined: vec!["10.0.0.6".into(), "10.0.0.5".into()],
                    left: vec!["10.0.0.4".into()],
                }],
                subnets: vec![subnet("subnet-1", &["0.0.0.0/0"])],
                removed_subnets: vec!["subnet-2".into()],
                dns_disabled: true,
                ..VpcDelta::default()
            }],
            removed_vpcs: vec!["vpc-9".into()],
            volumes: vec![volume("vol-1", Desired::Erased), volume("vol-0", Desired::Kept)],
            removed_volumes: vec!["vol-2".into()],
            snapshots: vec![snapshot("snap-2")],
            removed_snapshots: vec!["snap-3".into()],
        };
        apply(&mut intents, delta).unwrap();
        assert_eq!(intents.sequence, 9);
        assert_eq!(intents.instances, [instance("i-2", 1), instance("i-3", 2)]);
        assert_eq!(
            intents.volumes,
            [volume("vol-0", Desired::Kept), volume("vol-1", Desired::Erased)]
        );
        assert_eq!(intents.snapshots, [snapshot("snap-1"), snapshot("snap-2")]);
        assert_eq!(
            intents.vpcs,
            [VpcIntent {
                vpc_id: "vpc-1".into(),
                cidr_block: "10.0.0.0/16".into(),
                security_groups: vec![
                    group("sg-0", &["10.0.0.9"]),
                    group("sg-1", &["10.0.0.6", "10.0.0.5"])
                ],
                subnets: vec![subnet("subnet-1", &["0.0.0.0/0"])],
                dns_disabled: true,
                ..VpcIntent::default()
            }]
        );
    }

    /// An agent's store may have intents of before, with one volume and one interface.
    #[test]
    fn intents_of_before_there_were_several_volumes_are_read() {
        #[derive(Clone, PartialEq, prost::Message)]
        struct Before {
            #[prost(string, tag = "1")]
            instance_id: String,
            #[prost(message, optional, tag = "8")]
            root_volume: Option<InstanceVolume>,
            #[prost(message, optional, tag = "9")]
            network_interface: Option<NetworkInterface>,
        }
        let root = InstanceVolume {
            volume_id: "vol-1".into(),
            ..InstanceVolume::default()
        };
        let eni = NetworkInterface {
            network_interface_id: "eni-1".into(),
            ..NetworkInterface::default()
        };
        let before = Before {
            instance_id: "i-1".into(),
            root_volume: Some(root.clone()),
            network_interface: Some(eni.clone()),
        };
        let now = InstanceIntent {
            instance_id: "i-1".into(),
            volumes: vec![root],
            network_interfaces: vec![eni],
            ..InstanceIntent::default()
        };
        assert_eq!(
            InstanceIntent::decode(before.encode_to_vec().as_slice()).unwrap(),
            now
        );
        assert_eq!(Before::decode(now.encode_to_vec().as_slice()).unwrap(), before);
    }

    #[test]
    fn changes_of_other_intents_change_nothing() {
        for (epoch, after) in [("one", 6), ("one", 8), ("two", 7)] {
            let mut intents = known();
            let delta = IntentsDelta {
                epoch: epoch.into(),
                after,
                sequence: 9,
                removed_instances: vec!["i-1".into()],
                ..IntentsDelta::default()
            };
            assert_eq!(apply(&mut intents, delta), Err(Mismatch));
            assert_eq!(intents, known());
        }
    }
}
