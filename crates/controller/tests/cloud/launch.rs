//! RunInstances: what is refused, what is idempotent, what a host is told.

use std::collections::HashSet;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::v1::{self, Tag, TagSpecification};

use crate::support::{Cloud, ZONE, code};

#[tokio::test]
async fn a_launch_reaches_its_host_with_all_it_needs() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let before = session.intents().await;
    let mut request = cloud.request(2);
    request.user_data = "IyEvYmluL3NoCg==".into();
    request.tag_specifications = vec![TagSpecification {
        resource_type: "instance".into(),
        tags: vec![Tag {
            key: "Name".into(),
            value: "web".into(),
        }],
    }];
    let reservation = cloud.run(request).await.unwrap();
    assert_eq!(reservation.instances.len(), 2);
    for (n, instance) in reservation.instances.iter().enumerate() {
        let state = instance.state.clone().unwrap();
        assert_eq!((state.code, state.name.as_str()), (0, "pending"));
        assert_eq!(instance.ami_launch_index, n as i32);
        assert_eq!(instance.private_ip_address, format!("172.31.0.{}", 4 + n));
        assert_eq!(instance.public_ip_address, format!("198.18.0.{}", 2 + n));
        assert_eq!(instance.security_groups[0].group_name, "default");
        assert_eq!(instance.tags[0].value, "web");
        let ebs = instance.block_device_mappings[0].ebs.as_ref().unwrap();
        assert!(ebs.volume_id.starts_with("vol-") && ebs.delete_on_termination);
    }

    let intents = session.intents_when(|i| i.instances.len() == 2).await;
    assert!(intents.sequence > before.sequence);
    let wanted = &reservation.instances[0];
    let intent = intents
        .instances
        .iter()
        .find(|i| i.instance_id == wanted.instance_id)
        .unwrap();
    assert_eq!(
        (intent.desired(), intent.run, intent.force),
        (Desired::Running, 1, false)
    );
    assert_eq!((intent.vcpus, intent.memory_mib), (1, 1024));
    let volume = &intent.volumes[0];
    assert_eq!((volume.size_bytes, volume.image_size_bytes), (1 << 30, 8 << 20));
    assert_eq!(
        (volume.image_digest.len(), volume.delete_on_termination),
        (64, true)
    );
    let interface = &intent.network_interfaces[0];
    assert_eq!(interface.private_ip, wanted.private_ip_address);
    assert_eq!(interface.public_ip, wanted.public_ip_address);
    assert_eq!(interface.subnet_cidr, "172.31.0.0/20");
    assert!(interface.mac_address.starts_with("02:"));
    let metadata = intent.metadata.as_ref().unwrap();
    // One name, in one domain.
    assert_eq!(metadata.local_hostname, "ip-172-31-0-4.local-1.compute.internal");
    assert_eq!(metadata.local_hostname, wanted.private_dns_name);
    assert_eq!(metadata.user_data, b"#!/bin/sh\n");
    assert!(metadata.tags.is_empty(), "tags are hidden unless asked for");
    assert!(metadata.http_endpoint_enabled && !metadata.http_tokens_required);
    assert!((metadata.launch_time - jiff::Timestamp::now().as_second()).abs() < 600);
    let vpc = &intents.vpcs[0];
    assert_eq!(
        (vpc.cidr_block.as_str(), vpc.public_pool_cidr.as_str()),
        ("172.31.0.0/16", "198.18.0.0/24")
    );
    let group = &vpc.security_groups[0];
    assert_eq!(group.members, ["172.31.0.4", "172.31.0.5"]);
    assert_eq!((group.ingress.len(), group.egress.len()), (1, 1));
}

#[tokio::test]
async fn refusals_change_nothing_and_say_what_to_do() {
    let Some(cloud) = Cloud::start().await else { return };
    // The host is known and not connected.
    let status = cloud.run(cloud.request(1)).await.unwrap_err();
    assert_eq!(code(&status), "InsufficientInstanceCapacity");
    assert!(
        status
            .message()
            .contains(&format!("{}: not connected", cloud.host.id)),
        "{status:?}"
    );

    let mut session = cloud.connect().await;
    session.intents().await;
    type Change = fn(&mut v1::RunInstancesRequest);
    let refusals: [(Change, &str); 14] = [
        (
            |r| r.image_id = "ami-00000000000000000".into(),
            "InvalidAMIID.NotFound",
        ),
        (|r| r.max_count = 0, "InvalidParameterValue"),
        (
            |r| (r.min_count, r.max_count) = (10_000, 10_000),
            "InstanceLimitExceeded",
        ),
        (
            |r| (r.min_count, r.max_count) = (300, 300),
            "InsufficientAddressCapacity",
        ),
        (
            |r| (r.min_count, r.max_count) = (65, 65),
            "InsufficientInstanceCapacity",
        ),
        (
            |r| r.instance_type = "r5.24xlarge".into(),
            "InsufficientInstanceCapacity",
        ),
        (
            |r| {
                r.placement = Some(v1::Placement {
                    availability_zone: "local-1b".into(),
                    ..Default::default()
                });
            },
            "InsufficientInstanceCapacity",
        ),
        (
            |r| {
                r.placement = Some(v1::Placement {
                    availability_zone: "us-east-1a".into(),
                    ..Default::default()
                });
            },
            "InvalidParameterValue",
        ),
        (|r| r.key_name = "nobody".into(), "InvalidKeyPair.NotFound"),
        (
            |r| r.security_groups = vec!["nobody".into()],
            "InvalidGroup.NotFound",
        ),
        (
            |r| r.subnet_id = "subnet-00000000000000000".into(),
            "InvalidSubnetID.NotFound",
        ),
        (
            |r| r.private_ip_address = "172.31.0.2".into(),
            "InvalidParameterValue",
        ),
        (
            |r| r.private_ip_address = "10.0.0.9".into(),
            "InvalidParameterValue",
        ),
        (|r| r.dry_run = true, "DryRunOperation"),
    ];
    for (change, expected) in refusals {
        let mut request = cloud.request(1);
        change(&mut request);
        let status = cloud.run(request).await.unwrap_err();
        assert_eq!(code(&status), expected, "{status:?}");
    }
    assert!(cloud.all().await.is_empty());

    // The next message is of the next launch: nothing in between concerned the host.
    cloud.run(cloud.request(1)).await.unwrap();
    assert_eq!(session.intents().await.instances.len(), 1);
}

#[tokio::test]
async fn as_many_as_fit_between_min_and_max() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    cloud.host.capacity.vcpus = 3;
    let _session = cloud.connect().await;
    let mut request = cloud.request(2);
    request.max_count = 8;
    let reservation = cloud.run(request.clone()).await.unwrap();
    assert_eq!(reservation.instances.len(), 3);
    let status = cloud.run(request).await.unwrap_err();
    assert_eq!(code(&status), "InsufficientInstanceCapacity");
    assert_eq!(cloud.all().await.len(), 3);
}

#[tokio::test]
async fn a_client_token_stands_for_one_launch() {
    let Some(cloud) = Cloud::start().await else { return };
    let _session = cloud.connect().await;
    let mut request = cloud.request(2);
    request.client_token = "once".into();
    let mut dry = request.clone();
    dry.dry_run = true;
    assert_eq!(code(&cloud.run(dry).await.unwrap_err()), "DryRunOperation");

    let calls = (0..8).map(|_| cloud.run(request.clone()));
    let answers = futures::future::join_all(calls).await;
    let ids: HashSet<String> = answers.into_iter().map(|r| r.unwrap().reservation_id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(cloud.all().await.len(), 2);

    let mut other = request.clone();
    other.instance_type = "t2.small".into();
    assert_eq!(
        code(&cloud.run(other).await.unwrap_err()),
        "IdempotentParameterMismatch"
    );
    // A refused call does not use its token up.
    let mut fails = cloud.request(1);
    fails.client_token = "later".into();
    fails.key_name = "nobody".into();
    assert!(cloud.run(fails.clone()).await.is_err());
    fails.key_name.clear();
    cloud.run(fails).await.unwrap();
}

#[tokio::test]
async fn a_call_that_names_a_zone_has_a_token_of_the_zone() {
    let Some(cloud) = Cloud::start().await else { return };
    let _session = cloud.connect().await;
    let mut request = cloud.request(1);
    request.client_token = "once".into();
    let first = cloud.run(request.clone()).await.unwrap();
    request.placement = Some(v1::Placement {
        availability_zone: ZONE.into(),
        ..v1::Placement::default()
    });
    let zonal = cloud.run(request.clone()).await.unwrap();
    assert_ne!(first.reservation_id, zonal.reservation_id);
    let again = cloud.run(request).await.unwrap();
    assert_eq!(again.reservation_id, zonal.reservation_id);
}

#[tokio::test]
async fn tags_are_in_the_metadata_where_asked_for_and_their_keys_are_paths() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let request = |key: &str| {
        let mut request = cloud.request(1);
        request.metadata_options = Some(v1::InstanceMetadataOptions {
            instance_metadata_tags: "enabled".into(),
            ..v1::InstanceMetadataOptions::default()
        });
        request.tag_specifications = vec![v1::TagSpecification {
            resource_type: "instance".into(),
            tags: vec![v1::Tag {
                key: key.into(),
                value: "web".into(),
            }],
        }];
        request
    };
    let bad = ["a/b", "a b", ".", "..", "_index", "Größe", "a%b"];
    for key in bad {
        let status = cloud.run(request(key)).await.unwrap_err();
        assert_eq!(code(&status), "InvalidParameterValue", "{key}: {status:?}");
    }
    let mut plain = request("a/b");
    plain.metadata_options = None;
    let plain = cloud.run(plain).await.unwrap().instances.remove(0);
    let told = cloud
        .run(request("a+b-c=.,_:@Z9"))
        .await
        .unwrap()
        .instances
        .remove(0);
    let options = told.metadata_options.clone().unwrap();
    assert_eq!(options.instance_metadata_tags, "enabled");
    assert_eq!(plain.metadata_options.unwrap().instance_metadata_tags, "disabled");

    let tag = |id: &str, key: &str| v1::CreateTagsRequest {
        resources: vec![id.to_owned()],
        tags: vec![v1::Tag {
            key: key.into(),
            value: "later".into(),
        }],
        ..v1::CreateTagsRequest::default()
    };
    let mut tags = cloud.client.clone().tags;
    for key in bad {
        let status = tags.create_tags(tag(&told.instance_id, key)).await.unwrap_err();
        assert_eq!(code(&status), "InvalidParameterValue", "{key}: {status:?}");
        tags.create_tags(tag(&plain.instance_id, key)).await.unwrap();
    }
    tags.create_tags(tag(&told.instance_id, "Name")).await.unwrap();
    let in_metadata = |intents: &hearth_api::agent::Intents, id: &str| {
        let found = intents.instances.iter().find(|i| i.instance_id == id);
        found.map_or(0, |i| i.metadata.as_ref().unwrap().tags.len())
    };
    let intents = session
        .intents_when(|i| in_metadata(i, &told.instance_id) == 2)
        .await;
    assert_eq!(in_metadata(&intents, &plain.instance_id), 0);
}
