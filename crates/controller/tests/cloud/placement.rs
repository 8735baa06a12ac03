//! Where instances go, and who can say so.

use std::collections::BTreeSet;

use hearth_api::v1;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::support::{Cloud, Host, ZONE, code, name};

/// A cloud with several connected hosts that make everything so.
async fn with_hosts(count: usize) -> Option<(Cloud, Vec<String>)> {
    let cloud = Cloud::start().await?;
    let mut hosts = vec![cloud.host.id.clone()];
    cloud.connect().await.obey();
    while hosts.len() < count {
        let host = Host::enroll(&cloud.hearthd).await;
        host.connect(&cloud.hearthd).await.obey();
        hosts.push(host.id);
    }
    Some((cloud, hosts))
}

/// A request for instances that says how they are to be placed.
fn placed(cloud: &Cloud, count: i32, placement: v1::Placement) -> v1::RunInstancesRequest {
    v1::RunInstancesRequest {
        placement: Some(placement),
        ..cloud.request(count)
    }
}

/// The instances that a filter lets through.
async fn found(cloud: &Cloud, name: &str, value: &str) -> Vec<v1::Instance> {
    let request = v1::DescribeInstancesRequest {
        filters: vec![v1::Filter {
            name: name.into(),
            values: vec![value.into()],
        }],
        ..Default::default()
    };
    let answer = cloud.client.clone().instances.describe_instances(request).await;
    let reservations = answer.unwrap().into_inner().reservations;
    reservations.into_iter().flat_map(|r| r.instances).collect()
}

#[tokio::test]
async fn a_launch_can_name_its_host() {
    let Some((cloud, hosts)) = with_hosts(3).await else {
        return;
    };
    for host in &hosts {
        let placement = v1::Placement {
            host_id: host.clone(),
            ..Default::default()
        };
        cloud.run(placed(&cloud, 2, placement)).await.unwrap();
    }
    for host in &hosts {
        let there = found(&cloud, "host-id", host).await;
        assert!(
            there.len() == 2
                && there
                    .iter()
                    .all(|i| i.placement.as_ref().unwrap().host_id == *host)
        );
    }
    assert_eq!(found(&cloud, "availability-zone", ZONE).await.len(), 6);
    assert_eq!(found(&cloud, "availability-zone", "elsewhere").await.len(), 0);
    let placement = v1::Placement {
        host_id: "h-00000000000000000".into(),
        ..Default::default()
    };
    let refused = cloud.run(placed(&cloud, 1, placement)).await.unwrap_err();
    assert_eq!(code(&refused), "InvalidHostID.NotFound");
}

async fn create(cloud: &Cloud, name: &str, strategy: &str) -> v1::PlacementGroup {
    let request = v1::CreatePlacementGroupRequest {
        group_name: name.into(),
        strategy: strategy.into(),
        ..Default::default()
    };
    create_as(cloud, request).await
}

async fn create_as(cloud: &Cloud, request: v1::CreatePlacementGroupRequest) -> v1::PlacementGroup {
    let mut client = cloud.client.clone().placement_groups;
    client
        .create_placement_group(request)
        .await
        .unwrap()
        .into_inner()
        .placement_group
        .unwrap()
}

async fn delete(cloud: &Cloud, name: &str) -> Result<(), tonic::Status> {
    let request = v1::DeletePlacementGroupRequest {
        group_name: name.into(),
        dry_run: false,
    };
    let mut client = cloud.client.clone().placement_groups;
    client.delete_placement_group(request).await.map(|_| ())
}

async fn describe(cloud: &Cloud, request: v1::DescribePlacementGroupsRequest) -> Vec<v1::PlacementGroup> {
    let mut client = cloud.client.clone().placement_groups;
    client
        .describe_placement_groups(request)
        .await
        .unwrap()
        .into_inner()
        .placement_groups
}

fn into_group(name: &str) -> v1::Placement {
    v1::Placement {
        group_name: name.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn placement_groups_are_made_described_and_deleted() {
    let Some(cloud) = Cloud::start().await else { return };
    let racks_request = v1::CreatePlacementGroupRequest {
        group_name: "racks".into(),
        strategy: "spread".into(),
        tag_specifications: vec![v1::TagSpecification {
            resource_type: "placement-group".into(),
            tags: vec![v1::Tag {
                key: "a".into(),
                value: "b".into(),
            }],
        }],
        ..Default::default()
    };
    let mut client = cloud.client.clone().placement_groups;
    let racks = client
        .create_placement_group(racks_request.clone())
        .await
        .unwrap();
    let racks = racks.into_inner().placement_group.unwrap();
    assert!(racks.group_id.starts_with("pg-") && racks.group_id.len() == 20);
    assert_eq!(
        (racks.state.as_str(), racks.spread_level.as_str()),
        ("available", "rack")
    );
    assert!(
        racks.group_arn.ends_with(":placement-group/racks") && racks.group_arn.starts_with("arn:aws:ec2:")
    );
    let parts = create(&cloud, "parts", "partition").await;
    assert_eq!(
        (parts.partition_count, parts.spread_level.as_str()),
        (Some(2), "")
    );
    let near = create(&cloud, "near", "").await;
    assert_eq!((near.strategy.as_str(), near.partition_count), ("cluster", None));

    let all = v1::DescribePlacementGroupsRequest::default;
    assert_eq!(
        describe(&cloud, all()).await,
        [near.clone(), parts.clone(), racks.clone()]
    );
    for (name, value, expected) in [
        ("group-name", "n*", &near),
        ("group-arn", parts.group_arn.as_str(), &parts),
        ("strategy", "spread", &racks),
        ("spread-level", "rack", &racks),
        ("tag:a", "b", &racks),
    ] {
        let filters = vec![v1::Filter {
            name: name.into(),
            values: vec![value.into()],
        }];
        let request = v1::DescribePlacementGroupsRequest { filters, ..all() };
        assert_eq!(
            describe(&cloud, request).await,
            std::slice::from_ref(expected),
            "{name}"
        );
    }
    let request = v1::DescribePlacementGroupsRequest {
        group_names: vec!["near".into()],
        group_ids: vec![parts.group_id.clone()],
        ..all()
    };
    assert_eq!(describe(&cloud, request).await, [near, parts.clone()]);
    // Tags as all resources have them.
    let request = v1::CreateTagsRequest {
        resources: vec![parts.group_id.clone()],
        tags: vec![v1::Tag {
            key: "c".into(),
            value: "d".into(),
        }],
        dry_run: false,
    };
    cloud.client.clone().tags.create_tags(request).await.unwrap();
    let tagged = v1::DescribePlacementGroupsRequest {
        filters: vec![v1::Filter {
            name: "tag-key".into(),
            values: vec!["c".into()],
        }],
        ..all()
    };
    assert_eq!(describe(&cloud, tagged).await.len(), 1);

    type Change = fn(&mut v1::CreatePlacementGroupRequest);
    let refusals: [(Change, &str); 10] = [
        (|_| {}, "InvalidPlacementGroup.Duplicate"),
        (|r| r.group_name.clear(), "MissingParameter"),
        (|r| r.group_name = "ä".into(), "InvalidParameterValue"),
        (|r| r.group_name = "x".repeat(256), "InvalidParameterValue"),
        (|r| r.strategy = "pile".into(), "InvalidParameterCombination"),
        (|r| r.spread_level = "shelf".into(), "InvalidParameterValue"),
        (|r| r.partition_count = Some(3), "InvalidParameterCombination"),
        (
            |r| {
                (r.strategy, r.spread_level, r.partition_count) = ("partition".into(), String::new(), Some(8))
            },
            "InvalidParameterValue",
        ),
        (
            |r| (r.strategy, r.spread_level) = ("pile".into(), String::new()),
            "InvalidParameterValue",
        ),
        (
            |r| (r.group_name, r.dry_run) = ("new".into(), true),
            "DryRunOperation",
        ),
    ];
    for (change, expected) in refusals {
        let mut request = v1::CreatePlacementGroupRequest {
            spread_level: "rack".into(),
            ..racks_request.clone()
        };
        change(&mut request);
        let refused = client.create_placement_group(request.clone()).await.unwrap_err();
        assert_eq!(code(&refused), expected, "{request:?}");
    }
    delete(&cloud, "parts").await.unwrap();
    assert_eq!(
        code(&delete(&cloud, "parts").await.unwrap_err()),
        "InvalidPlacementGroup.Unknown"
    );
    assert_eq!(code(&delete(&cloud, "").await.unwrap_err()), "MissingParameter");
    let request = v1::DescribePlacementGroupsRequest {
        group_ids: vec![parts.group_id],
        ..all()
    };
    let refused = client.describe_placement_groups(request).await.unwrap_err();
    assert_eq!(code(&refused), "InvalidPlacementGroup.Unknown");
    // A deleted name is free.
    create(&cloud, "parts", "cluster").await;
}

#[tokio::test]
async fn a_spread_group_has_an_instance_per_host() {
    let Some((cloud, hosts)) = with_hosts(9).await else {
        return;
    };
    let group = create(&cloud, "apart", "spread").await;
    let first = cloud
        .run(placed(&cloud, 4, into_group("apart")))
        .await
        .unwrap()
        .instances;
    let by_id = v1::Placement {
        group_id: group.group_id.clone(),
        ..Default::default()
    };
    cloud.run(placed(&cloud, 3, by_id)).await.unwrap();
    let there = found(&cloud, "placement-group-name", "apart").await;
    let used: BTreeSet<&str> = there.iter().map(host_of).collect();
    assert_eq!((there.len(), used.len()), (7, 7));
    let told = there[0].placement.as_ref().unwrap();
    assert_eq!(
        (told.group_id.as_str(), told.partition_number),
        (group.group_id.as_str(), None)
    );
    // Hosts are free, and racks are not.
    let refused = cloud
        .run(placed(&cloud, 1, into_group("apart")))
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "InsufficientInstanceCapacity");
    assert!(
        refused
            .message()
            .contains("7 running instances of the placement group"),
        "{refused:?}"
    );
    assert_eq!(
        code(&delete(&cloud, "apart").await.unwrap_err()),
        "InvalidPlacementGroup.InUse"
    );

    // A stopped instance makes place for another, on a host that it does not need.
    let stopped = &first[0].instance_id;
    cloud.until(stopped, "running").await;
    let ids = vec![stopped.clone()];
    let stop = v1::StopInstancesRequest {
        instance_ids: ids.clone(),
        ..Default::default()
    };
    cloud.client.clone().instances.stop_instances(stop).await.unwrap();
    let stopped = cloud.until(stopped, "stopped").await;
    let another = cloud
        .run(placed(&cloud, 1, into_group("apart")))
        .await
        .unwrap()
        .instances;
    assert!(!used.contains(host_of(&another[0])));
    let start = || v1::StartInstancesRequest {
        instance_ids: ids.clone(),
        ..Default::default()
    };
    let mut client = cloud.client.clone().instances;
    let refused = client.start_instances(start()).await.unwrap_err();
    assert_eq!(code(&refused), "InsufficientInstanceCapacity");
    let end = v1::TerminateInstancesRequest {
        instance_ids: vec![another[0].instance_id.clone()],
        ..Default::default()
    };
    client.terminate_instances(end).await.unwrap();
    cloud.until(&another[0].instance_id, "terminated").await;
    client.start_instances(start()).await.unwrap();
    let started = cloud.until(&stopped.instance_id, "running").await;
    assert_eq!(host_of(&started), host_of(&stopped));

    // The level of hosts knows no racks.
    let request = v1::CreatePlacementGroupRequest {
        group_name: "hosts".into(),
        strategy: "spread".into(),
        spread_level: "host".into(),
        ..Default::default()
    };
    create_as(&cloud, request).await;
    let all = cloud
        .run(placed(&cloud, 9, into_group("hosts")))
        .await
        .unwrap()
        .instances;
    let used: BTreeSet<&str> = all.iter().map(host_of).collect();
    assert_eq!(used, hosts.iter().map(String::as_str).collect());

    // Terminated instances are in nobody's way, and forget their group.
    let end = v1::TerminateInstancesRequest {
        instance_ids: all.iter().map(|i| i.instance_id.clone()).collect(),
        ..Default::default()
    };
    client.terminate_instances(end).await.unwrap();
    for instance in &all {
        cloud.until(&instance.instance_id, "terminated").await;
    }
    delete(&cloud, "hosts").await.unwrap();
    assert!(found(&cloud, "placement-group-name", "hosts").await.is_empty());
}

fn host_of(instance: &v1::Instance) -> &str {
    &instance.placement.as_ref().unwrap().host_id
}

#[tokio::test]
async fn bad_placements_are_refused() {
    let Some(cloud) = Cloud::with(&["--zones", "local-1a,local-1b"]).await else {
        return;
    };
    cloud.connect().await.obey();
    create(&cloud, "near", "cluster").await;
    let parts = create(&cloud, "parts", "partition").await;
    type Change = fn(&mut v1::Placement);
    let refusals: [(Change, &str); 7] = [
        (
            |p| p.group_name = "nobody".into(),
            "InvalidPlacementGroup.Unknown",
        ),
        (
            |p| p.group_id = "pg-00000000000000000".into(),
            "InvalidPlacementGroup.Unknown",
        ),
        (
            |p| p.group_id = "pg-?".into(),
            "InvalidPlacementGroupId.Malformed",
        ),
        (|p| p.partition_number = Some(1), "InvalidParameterCombination"),
        (
            |p| (p.group_name, p.partition_number) = ("near".into(), Some(1)),
            "InvalidParameterCombination",
        ),
        (
            |p| (p.group_name, p.partition_number) = ("parts".into(), Some(3)),
            "InvalidParameterValue",
        ),
        (
            |p| (p.group_name, p.partition_number) = ("parts".into(), Some(0)),
            "InvalidParameterValue",
        ),
    ];
    for (change, expected) in refusals {
        let mut placement = v1::Placement::default();
        change(&mut placement);
        let refused = cloud.run(placed(&cloud, 1, placement.clone())).await.unwrap_err();
        assert_eq!(code(&refused), expected, "{placement:?}");
    }
    let both = v1::Placement {
        group_id: parts.group_id,
        ..into_group("parts")
    };
    let refused = cloud.run(placed(&cloud, 1, both)).await.unwrap_err();
    assert_eq!(code(&refused), "InvalidParameterCombination");

    // A cluster is in one zone.
    let near = |zone: &str| v1::Placement {
        availability_zone: zone.into(),
        ..into_group("near")
    };
    cloud.run(placed(&cloud, 1, near(""))).await.unwrap();
    let refused = cloud.run(placed(&cloud, 1, near("local-1b"))).await.unwrap_err();
    assert_eq!(code(&refused), "InvalidPlacementGroup.InUse");
    assert!(
        refused
            .message()
            .ends_with("is in use in another availability zone: local-1a"),
        "{refused:?}"
    );
    cloud.run(placed(&cloud, 1, near(ZONE))).await.unwrap();
}

/// A model of what the groups promise, which looks at all pairs of instances.
fn check(instances: &[v1::Instance]) {
    // One that shuts down may have been stopped before.
    let runs = |i: &&v1::Instance| ["pending", "running", "stopping"].contains(&name(i));
    let group = |i: &v1::Instance| i.placement.as_ref().unwrap().group_name.clone();
    let partition = |i: &v1::Instance| i.placement.as_ref().unwrap().partition_number;
    let running: Vec<&v1::Instance> = instances.iter().filter(runs).collect();
    for (n, one) in running.iter().enumerate() {
        for other in &running[n + 1..] {
            if group(one).is_empty() || group(one) != group(other) || host_of(one) != host_of(other) {
                continue;
            }
            match group(one).as_str() {
                "spread" => panic!("{} and {} share a host", one.instance_id, other.instance_id),
                "partition" => assert_eq!(partition(one), partition(other)),
                _ => {}
            }
        }
    }
    for i in instances {
        assert_eq!(group(i) == "partition", partition(i).is_some());
        assert!((1..=3).contains(&partition(i).unwrap_or(1)));
    }
    let cluster = instances
        .iter()
        .filter(|i| group(i) == "cluster" && name(i) != "terminated");
    let hosts: BTreeSet<&str> = cluster.map(host_of).collect();
    assert!(hosts.len() <= 3, "{hosts:?}");
    let spread = running.iter().filter(|i| group(i) == "spread").count();
    assert!(spread <= 7, "{spread}");
}

#[tokio::test]
async fn random_launches_starts_and_ends_keep_what_groups_promise() {
    let Some((cloud, _)) = with_hosts(9).await else {
        return;
    };
    create(&cloud, "cluster", "cluster").await;
    create(&cloud, "spread", "spread").await;
    let request = v1::CreatePlacementGroupRequest {
        group_name: "partition".into(),
        strategy: "partition".into(),
        partition_count: Some(3),
        ..Default::default()
    };
    create_as(&cloud, request).await;
    let mut rng = StdRng::seed_from_u64(9);
    let (mut done, mut refused) = (0, 0);
    for step in 0..300 {
        let all = cloud.all().await;
        let of_state = |state: &str| -> Vec<String> {
            let found = all.iter().filter(|i| name(i) == state);
            found.map(|i| i.instance_id.clone()).collect()
        };
        let mut client = cloud.client.clone().instances;
        let one_of = |ids: Vec<String>, rng: &mut StdRng| match ids.len() {
            0 => None,
            count => Some(vec![ids[rng.random_range(0..count)].clone()]),
        };
        let outcome = match rng.random_range(0..9) {
            0..4 => {
                let group = ["", "cluster", "spread", "spread", "partition"][rng.random_range(0..5)];
                let placement = v1::Placement {
                    partition_number: match group {
                        "partition" => [None, Some(1), Some(2), Some(3)][rng.random_range(0..4)],
                        _ => None,
                    },
                    ..into_group(group)
                };
                let count = rng.random_range(1..4);
                cloud.run(placed(&cloud, count, placement)).await.map(|_| ())
            }
            4 | 5 => match one_of(of_state("running"), &mut rng) {
                Some(instance_ids) => {
                    let stop = v1::StopInstancesRequest {
                        instance_ids,
                        ..Default::default()
                    };
                    client.stop_instances(stop).await.map(|_| ())
                }
                None => continue,
            },
            6 | 7 => match one_of(of_state("stopped"), &mut rng) {
                Some(instance_ids) => {
                    let start = v1::StartInstancesRequest {
                        instance_ids,
                        ..Default::default()
                    };
                    client.start_instances(start).await.map(|_| ())
                }
                None => continue,
            },
            _ => match one_of([of_state("running"), of_state("stopped")].concat(), &mut rng) {
                Some(instance_ids) => {
                    let end = v1::TerminateInstancesRequest {
                        instance_ids,
                        ..Default::default()
                    };
                    client.terminate_instances(end).await.map(|_| ())
                }
                None => continue,
            },
        };
        match outcome {
            Ok(()) => done += 1,
            Err(status) => {
                assert_eq!(
                    code(&status),
                    "InsufficientInstanceCapacity",
                    "step {step}: {status:?}"
                );
                refused += 1;
            }
        }
        check(&cloud.all().await);
    }
    assert!(done > 100 && refused > 10, "{done} done, {refused} refused");
}
