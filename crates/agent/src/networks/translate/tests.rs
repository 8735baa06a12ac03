use hearth_api::agent::{InstanceMetadata as Told, InstanceStoreDisk, InstanceVolume};
use hearth_network::MetadataSource as _;

use super::*;

fn vpc() -> VpcIntent {
    VpcIntent {
        vpc_id: "vpc-1".to_owned(),
        cidr_block: "172.31.0.0/16".to_owned(),
        public_pool_cidr: "198.18.0.0/24".to_owned(),
        security_groups: vec![SecurityGroupIntent {
            group_id: "sg-1".to_owned(),
            members: vec!["172.31.0.10".to_owned()],
            ingress: vec![
                with_peer(6, 22, 22, PeerIntent::Cidr("0.0.0.0/0".to_owned())),
                with_peer(17, -1, -1, PeerIntent::GroupId("sg-1".to_owned())),
                with_peer(1, 8, -1, PeerIntent::Cidr("10.0.0.0/8".to_owned())),
            ],
            egress: vec![with_peer(-1, -1, -1, PeerIntent::Cidr("0.0.0.0/0".to_owned()))],
        }],
        subnets: vec![SubnetIntent {
            subnet_id: "subnet-1".to_owned(),
            cidr_block: "172.31.0.0/20".to_owned(),
            internet_cidrs: vec!["0.0.0.0/1".to_owned(), "192.0.0.0/2".to_owned()],
        }],
        dns_disabled: true,
    }
}

fn with_peer(protocol: i32, from_port: i32, to_port: i32, peer: PeerIntent) -> Rule {
    Rule {
        protocol,
        from_port,
        to_port,
        peer: Some(peer),
    }
}

fn instance(id: &str, private_ip: &str) -> InstanceIntent {
    InstanceIntent {
        instance_id: id.to_owned(),
        network_interfaces: vec![NetworkInterface {
            network_interface_id: format!("eni-of-{id}"),
            vpc_id: "vpc-1".to_owned(),
            subnet_id: "subnet-1".to_owned(),
            subnet_cidr: "172.31.0.0/20".to_owned(),
            mac_address: "02:00:0a:ff:00:01".to_owned(),
            private_ip: private_ip.to_owned(),
            public_ip: String::new(),
            security_group_ids: vec!["sg-1".to_owned()],
            attachment_epoch: 1,
        }],
        metadata: Some(Told {
            local_hostname: "ip-172-31-0-10.local-1.compute.internal".to_owned(),
            security_group_names: vec!["ssh".to_owned()],
            public_key: "ssh-ed25519 AAAA k".to_owned(),
            http_endpoint_enabled: true,
            http_put_response_hop_limit: 200,
            ..Told::default()
        }),
        ..InstanceIntent::default()
    }
}

#[test]
fn rules_keep_their_meaning() {
    let spec = vpc_spec(&vpc(), &[]).unwrap();
    assert!(!spec.dns);
    let internet = ["0.0.0.0/1", "192.0.0.0/2"].map(|block| block.parse().unwrap());
    assert_eq!(spec.subnets[0].internet, internet);
    let group = &spec.security_groups[0];
    let protocols: Vec<_> = group.ingress.iter().map(|rule| rule.protocol).collect();
    let icmp_echo = Protocol::Icmp {
        kind: Some(8),
        code: None,
    };
    let all_udp = Protocol::Udp { from: 0, to: 65535 };
    assert_eq!(
        protocols,
        [Protocol::Tcp { from: 22, to: 22 }, all_udp, icmp_echo]
    );
    assert_eq!(group.ingress[1].peer, Peer::Group("sg-1".to_owned()));
    assert_eq!(group.egress[0].protocol, Protocol::All);
}

#[test]
fn an_interface_gets_its_name_and_its_limits() {
    let spec = vpc_spec(&vpc(), &[instance("i-1", "172.31.0.10")]).unwrap();
    let eni = &spec.enis[0];
    assert_eq!(eni.hostname, "ip-172-31-0-10.local-1.compute.internal");
    assert_eq!(eni.mac, [2, 0, 10, 255, 0, 1]);
    assert_eq!(eni.imds.hop_limit, 64);
    assert_eq!(eni.public_ip, None);
}

#[test]
fn a_malformed_interface_does_not_take_the_others_away() {
    let instances = [instance("i-1", "not an address"), instance("i-2", "172.31.0.11")];
    let spec = vpc_spec(&vpc(), &instances).unwrap();
    assert_eq!(spec.enis.len(), 1);
    assert_eq!(spec.enis[0].eni_id, "eni-of-i-2");
}

#[test]
fn a_malformed_rule_refuses_the_vpc_as_a_whole() {
    let mut vpc = vpc();
    vpc.security_groups[0].ingress[0].peer = None;
    assert!(
        vpc_spec(&vpc, &[]).is_err(),
        "less than all rules would be another firewall"
    );
}

#[test]
fn imds_knows_an_instance_by_its_address_until_its_intent_goes() {
    let metadata = std::sync::Arc::new(crate::networks::Metadata::default());
    let networks = crate::networks::Networks::new(
        crate::networks::Host::Simulated,
        std::sync::Arc::clone(&metadata),
        crate::board::Board::default(),
    );
    let mut intents = hearth_api::agent::Intents {
        sequence: 1,
        instances: vec![instance("i-1", "172.31.0.10")],
        vpcs: vec![vpc()],
        ..Default::default()
    };
    networks.want(&intents);
    let told = metadata
        .by_address("vpc-1", "172.31.0.10".parse().unwrap())
        .unwrap();
    assert_eq!(told.instance_id, "i-1");
    assert_eq!(told.public_keys[0].openssh, "ssh-ed25519 AAAA k");
    assert_eq!(told.security_groups[0].group_name, "ssh");
    assert!(
        metadata
            .by_address("vpc-2", "172.31.0.10".parse().unwrap())
            .is_none()
    );
    intents.instances.clear();
    networks.want(&intents);
    assert!(
        metadata
            .by_address("vpc-1", "172.31.0.10".parse().unwrap())
            .is_none()
    );
}

#[test]
fn each_interface_of_an_instance_is_in_its_vpc_and_asks_imds() {
    let mut several = instance("i-1", "172.31.0.10");
    let mut second = several.network_interfaces[0].clone();
    second.network_interface_id = "eni-2".into();
    second.private_ip = "172.31.0.11".into();
    several.network_interfaces.push(second);
    let spec = vpc_spec(&vpc(), std::slice::from_ref(&several)).unwrap();
    let ids: Vec<&str> = spec.enis.iter().map(|eni| eni.eni_id.as_str()).collect();
    assert_eq!(ids, ["eni-of-i-1", "eni-2"]);

    let metadata = std::sync::Arc::new(crate::networks::Metadata::default());
    let networks = crate::networks::Networks::new(
        crate::networks::Host::Simulated,
        std::sync::Arc::clone(&metadata),
        crate::board::Board::default(),
    );
    networks.want(&hearth_api::agent::Intents {
        instances: vec![several],
        vpcs: vec![vpc()],
        ..Default::default()
    });
    for address in ["172.31.0.10", "172.31.0.11"] {
        let told = metadata.by_address("vpc-1", address.parse().unwrap()).unwrap();
        assert_eq!(
            (told.instance_id.as_str(), told.interface_id.as_str()),
            ("i-1", "eni-of-i-1")
        );
    }
}

#[test]
fn imds_tells_the_devices_that_an_instance_has_and_keeps() {
    let told = |volumes: &[(&str, bool)]| {
        let mut instance = instance("i-1", "172.31.0.10");
        let volumes = volumes.iter().map(|(name, detaching)| InstanceVolume {
            device_name: (*name).to_owned(),
            detaching: *detaching,
            ..InstanceVolume::default()
        });
        instance.volumes = volumes.collect();
        let told = metadata(&instance, &[vpc()]).unwrap();
        (told.root_device_name, told.ebs_device_names.join(" "))
    };
    let root = |name: &str, others: &str| (name.to_owned(), others.to_owned());
    assert_eq!(told(&[("", false)]), root("/dev/vda", ""));
    let several = [
        ("/dev/xvda", false),
        ("/dev/sdg", true),
        ("/dev/sdf", false),
        ("xvdba", false),
    ];
    assert_eq!(told(&several), root("/dev/xvda", "/dev/sdf xvdba"));

    // Of the instance store: those that a mapping names.
    let mut stored = instance("i-1", "172.31.0.10");
    let disks = [(0, "/dev/sdb"), (1, ""), (2, "sdd")];
    stored.store_disks = disks
        .map(|(number, device)| InstanceStoreDisk {
            number,
            size_bytes: 1,
            device_name: device.to_owned(),
        })
        .into();
    let told = metadata(&stored, &[vpc()]).unwrap();
    assert_eq!(
        told.store_device_names,
        [(0, "/dev/sdb".to_owned()), (2, "sdd".to_owned())]
    );
}
