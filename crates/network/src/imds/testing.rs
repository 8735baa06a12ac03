//! An instance and its metadata service, for tests.

use std::net::Ipv4Addr;
use std::sync::{Arc, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use super::Imds;
use crate::MetadataSource;
use crate::metadata::{ActiveKey, InstanceMetadata, PublicKey, RoleCredentials, SecurityGroupName};
use crate::plan::Plan;
use crate::spec::{EniSpec, ImdsOptions, VpcSpec};

pub(super) const CALLER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 10);

struct One(Arc<InstanceMetadata>);

impl MetadataSource for One {
    fn by_address(&self, _: &str, ip: Ipv4Addr) -> Option<Arc<InstanceMetadata>> {
        (ip == CALLER).then(|| self.0.clone())
    }

    /// Of a role whose id is its name.
    fn credentials(&self, _: &str) -> Option<Arc<RoleCredentials>> {
        let role_name = self.0.instance_profile.as_ref()?.role_id.clone()?;
        Some(Arc::new(RoleCredentials {
            role_name,
            access_key_id: "ASIA0000000000000001".into(),
            secret_access_key: "secret/+".into(),
            token: "token==".into(),
            last_updated: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            expiration: UNIX_EPOCH + Duration::from_secs(1_700_021_600),
        }))
    }

    /// Of an instance whose id ends with 2.
    fn active_keys(&self, instance_id: &str) -> Vec<ActiveKey> {
        let keys = [
            ("root", "ssh-ed25519 AAAA a"),
            ("guest", "ssh-ed25519 BBBB"),
            ("root", "ssh-rsa CCCC"),
        ];
        let keys = keys.iter().filter(|_| instance_id.ends_with('2'));
        keys.map(|(user, line)| ActiveKey {
            os_user: (*user).into(),
            openssh: (*line).into(),
        })
        .collect()
    }
}

pub(super) fn instance() -> InstanceMetadata {
    InstanceMetadata {
        instance_id: "i-00000000000000001".into(),
        ami_id: "ami-00000000000000001".into(),
        ami_launch_index: 0,
        instance_type: "t2.micro".into(),
        reservation_id: "r-00000000000000001".into(),
        owner_id: "000000000000".into(),
        region: "us-east-1".into(),
        availability_zone: "us-east-1a".into(),
        availability_zone_id: "use1-az1".into(),
        root_device_name: "/dev/xvda".into(),
        ebs_device_names: vec!["/dev/sdf".into(), "xvdba".into()],
        store_device_names: vec![(0, "/dev/sdb".into()), (11, "sdc".into())],
        local_hostname: "ip-172-31-0-10.ec2.internal".into(),
        public_hostname: None,
        interface_id: "eni-00000000000000001".into(),
        mac: [6, 0, 0, 0, 0, 10],
        local_ipv4: CALLER,
        public_ipv4: Some(Ipv4Addr::new(198, 18, 0, 10)),
        subnet_id: "subnet-00000000000000001".into(),
        subnet_cidr: "172.31.0.0/20".parse().unwrap(),
        vpc_id: "vpc-00000000000000001".into(),
        vpc_cidrs: vec!["172.31.0.0/16".parse().unwrap()],
        security_groups: vec![SecurityGroupName {
            group_id: "sg-00000000000000001".into(),
            group_name: "default".into(),
        }],
        public_keys: vec![PublicKey {
            key_name: "my-key".into(),
            openssh: "ssh-ed25519 AAAA my-key".into(),
        }],
        user_data: None,
        tags: None,
        instance_profile: None,
        launch_time: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    }
}

pub(super) fn imds(tokens_required: bool, instance: InstanceMetadata) -> Imds {
    let spec = VpcSpec {
        vpc_id: instance.vpc_id.clone(),
        cidr: "172.31.0.0/16".parse().unwrap(),
        public_pool: "198.18.0.0/24".parse().unwrap(),
        enis: vec![EniSpec {
            eni_id: instance.interface_id.clone(),
            mac: instance.mac,
            private_ip: CALLER,
            subnet: instance.subnet_cidr,
            public_ip: None,
            security_group_ids: Vec::new(),
            hostname: "ip-172-31-0-10".into(),
            imds: ImdsOptions {
                enabled: true,
                tokens_required,
                hop_limit: 2,
            },
        }],
        security_groups: Vec::new(),
        subnets: Vec::new(),
        dns: true,
    };
    let plan = Arc::new(RwLock::new(Arc::new(Plan::new(&spec).unwrap())));
    Imds::new(plan, Arc::new(One(Arc::new(instance))), [1; 32])
}
