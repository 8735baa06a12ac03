//! The tree of paths that IMDS tells, built from an instance's metadata.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::metadata::{ActiveKey, InstanceMetadata, InstanceProfile, RoleCredentials};
use crate::names::mac_text;

/// The versions that EC2 lists; all tell the same here, as they do there but for additions.
pub(super) const VERSIONS: [&str; 21] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2016-09-02",
    "2018-03-28",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-03-23",
    "latest",
];

/// A path's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Leaf {
        content: Vec<u8>,
        content_type: &'static str,
    },
    Directory(Directory),
}

/// By path segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Directory(BTreeMap<String, Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// How the parent's listing shows it.
    label: String,
    node: Node,
}

impl Directory {
    fn add(&mut self, name: impl Into<String>, node: Node) -> &mut Self {
        let name = name.into();
        let label = match node {
            Node::Leaf { .. } => name.clone(),
            Node::Directory(_) => format!("{name}/"),
        };
        self.0.insert(name, Entry { label, node });
        self
    }

    fn leaf(&mut self, name: impl Into<String>, content: impl Into<String>) -> &mut Self {
        let content = content.into().into_bytes();
        self.add(
            name,
            Node::Leaf {
                content,
                content_type: "text/plain",
            },
        )
    }

    fn leaf_if(&mut self, name: &str, content: Option<String>) -> &mut Self {
        if let Some(content) = content {
            self.leaf(name, content);
        }
        self
    }

    fn directory(&mut self, name: impl Into<String>, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut directory = Self::default();
        fill(&mut directory);
        self.add(name, Node::Directory(directory))
    }

    /// One entry a line, without a newline at the end, as EC2 does.
    pub(super) fn listing(&self) -> String {
        let labels: Vec<&str> = self.0.values().map(|entry| entry.label.as_str()).collect();
        labels.join("\n")
    }

    /// What is at the path of these segments, from here.
    pub(super) fn find<'a>(mut self, path: impl IntoIterator<Item = &'a str>) -> Option<Node> {
        let mut path = path.into_iter().peekable();
        while let Some(segment) = path.next() {
            match self.0.remove(segment)?.node {
                Node::Directory(directory) => self = directory,
                leaf if path.peek().is_none() => return Some(leaf),
                Node::Leaf { .. } => return None,
            }
        }
        Some(Node::Directory(self))
    }
}

/// What is under `/latest/`.
pub(super) fn tree(
    instance: &InstanceMetadata,
    credentials: Option<&RoleCredentials>,
    keys: &[ActiveKey],
) -> Directory {
    let mut root = Directory::default();
    root.directory("meta-data", |dir| {
        meta_data(dir, instance);
        if let Some(profile) = &instance.instance_profile {
            dir.directory("iam", |dir| iam(dir, profile, credentials));
        }
        if !keys.is_empty() {
            dir.directory("managed-ssh-keys", |dir| {
                dir.directory("active-keys", |dir| active_keys(dir, keys));
            });
        }
    });
    root.directory("dynamic", |dir| {
        dir.directory("instance-identity", |dir| {
            dir.leaf("document", identity_document(instance));
        });
    });
    if let Some(user_data) = &instance.user_data {
        root.add(
            "user-data",
            Node::Leaf {
                content: user_data.clone(),
                content_type: "application/octet-stream",
            },
        );
    }
    root
}

fn meta_data(dir: &mut Directory, instance: &InstanceMetadata) {
    dir.leaf("ami-id", &instance.ami_id)
        .leaf("ami-launch-index", instance.ami_launch_index.to_string())
        .leaf("ami-manifest-path", "(unknown)")
        .directory("block-device-mapping", |dir| block_devices(dir, instance))
        .leaf("hostname", &instance.local_hostname)
        .leaf("instance-action", "none")
        .leaf("instance-id", &instance.instance_id)
        .leaf("instance-life-cycle", "on-demand")
        .leaf("instance-type", &instance.instance_type)
        .leaf("local-hostname", &instance.local_hostname)
        .leaf("local-ipv4", instance.local_ipv4.to_string())
        .leaf("mac", mac_text(&instance.mac))
        .directory("network", |dir| {
            dir.directory("interfaces", |dir| {
                dir.directory("macs", |dir| {
                    dir.directory(mac_text(&instance.mac), |dir| interface(dir, instance));
                });
            });
        })
        .directory("placement", |dir| {
            dir.leaf("availability-zone", &instance.availability_zone)
                .leaf("availability-zone-id", &instance.availability_zone_id)
                .leaf("region", &instance.region);
        })
        .leaf("profile", "default-hvm")
        .leaf_if("public-hostname", instance.public_hostname.clone())
        .leaf_if("public-ipv4", instance.public_ipv4.map(|ip| ip.to_string()));
    if !instance.public_keys.is_empty() {
        dir.directory("public-keys", |dir| public_keys(dir, instance));
    }
    dir.leaf("reservation-id", &instance.reservation_id)
        .leaf("security-groups", group_names(instance))
        .directory("services", |dir| {
            dir.leaf("domain", "amazonaws.com").leaf("partition", "aws");
        });
    if let Some(tags) = &instance.tags {
        dir.directory("tags", |dir| {
            dir.directory("instance", |dir| {
                for (key, value) in tags {
                    dir.leaf(key, value);
                }
            });
        });
    }
}

/// EC2 tells the root device with its directory, and the others without. It tells of the volumes that there were when the
/// instance started; here those that are attached now.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html>
fn block_devices(dir: &mut Directory, instance: &InstanceMetadata) {
    dir.leaf("ami", &instance.root_device_name)
        .leaf("root", &instance.root_device_name);
    let short = |name: &str| name.strip_prefix("/dev/").unwrap_or(name).to_owned();
    for (name, number) in instance.ebs_device_names.iter().zip(1..) {
        dir.leaf(format!("ebs{number}"), short(name));
    }
    for (number, name) in &instance.store_device_names {
        dir.leaf(format!("ephemeral{number}"), short(name));
    }
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html>
fn iam(dir: &mut Directory, profile: &InstanceProfile, credentials: Option<&RoleCredentials>) {
    let updated = credentials.map_or(SystemTime::UNIX_EPOCH, |credentials| credentials.last_updated);
    let info = serde_json::json!({
        "Code": "Success",
        "LastUpdated": time(updated),
        "InstanceProfileArn": profile.arn,
        "InstanceProfileId": profile.id,
    });
    dir.leaf("info", format!("{info:#}"));
    let Some(credentials) = credentials else { return };
    dir.directory("security-credentials", |dir| {
        let told = serde_json::json!({
            "Code": "Success",
            "LastUpdated": time(credentials.last_updated),
            "Type": "AWS-HMAC",
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.token,
            "Expiration": time(credentials.expiration),
        });
        dir.leaf(&credentials.role_name, format!("{told:#}"));
    });
}

fn time(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Listed as `0=name`, found as `0/openssh-key`.
fn public_keys(dir: &mut Directory, instance: &InstanceMetadata) {
    for (index, key) in instance.public_keys.iter().enumerate() {
        let mut formats = Directory::default();
        formats.leaf("openssh-key", &key.openssh);
        let label = format!("{index}={}", key.key_name);
        dir.0.insert(
            index.to_string(),
            Entry {
                label,
                node: Node::Directory(formats),
            },
        );
    }
}

/// By user, as sshd's AuthorizedKeysCommand prints them. EC2 signs them besides, and its package for guests asks for that.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-connect-methods.html>
fn active_keys(dir: &mut Directory, keys: &[ActiveKey]) {
    let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in keys {
        lines.entry(&key.os_user).or_default().push(&key.openssh);
    }
    for (user, lines) in lines {
        dir.leaf(user, lines.join("\n") + "\n");
    }
}

fn interface(dir: &mut Directory, instance: &InstanceMetadata) {
    let cidrs: Vec<String> = instance.vpc_cidrs.iter().map(ToString::to_string).collect();
    let group_ids: Vec<&str> = instance
        .security_groups
        .iter()
        .map(|group| group.group_id.as_str())
        .collect();
    dir.leaf("device-number", "0")
        .leaf("interface-id", &instance.interface_id)
        .leaf("local-hostname", &instance.local_hostname)
        .leaf("local-ipv4s", instance.local_ipv4.to_string())
        .leaf("mac", mac_text(&instance.mac))
        .leaf("network-card", "0")
        .leaf("owner-id", &instance.owner_id)
        .leaf_if("public-hostname", instance.public_hostname.clone())
        .leaf_if("public-ipv4s", instance.public_ipv4.map(|ip| ip.to_string()))
        .leaf("security-group-ids", group_ids.join("\n"))
        .leaf("security-groups", group_names(instance))
        .leaf("subnet-id", &instance.subnet_id)
        .leaf("subnet-ipv4-cidr-block", instance.subnet_cidr.to_string())
        .leaf("vpc-id", &instance.vpc_id)
        .leaf_if("vpc-ipv4-cidr-block", cidrs.first().cloned())
        .leaf("vpc-ipv4-cidr-blocks", cidrs.join("\n"));
    if let Some(public) = instance.public_ipv4 {
        dir.directory("ipv4-associations", |dir| {
            dir.leaf(public.to_string(), instance.local_ipv4.to_string());
        });
    }
}

fn group_names(instance: &InstanceMetadata) -> String {
    let names: Vec<&str> = instance
        .security_groups
        .iter()
        .map(|group| group.group_name.as_str())
        .collect();
    names.join("\n")
}

fn identity_document(instance: &InstanceMetadata) -> String {
    let mut document = serde_json::json!({
        "accountId": instance.owner_id,
        "architecture": "x86_64",
        "availabilityZone": instance.availability_zone,
        "billingProducts": null,
        "devpayProductCodes": null,
        "marketplaceProductCodes": null,
        "imageId": instance.ami_id,
        "instanceId": instance.instance_id,
        "instanceType": instance.instance_type,
        "kernelId": null,
        "pendingTime": time(instance.launch_time),
        "privateIp": instance.local_ipv4.to_string(),
        "ramdiskId": null,
        "region": instance.region,
        "version": "2017-09-30",
    });
    // As EC2's, whatever another crate of the workspace wants of serde_json's maps.
    document.sort_all_objects();
    format!("{document:#}")
}
