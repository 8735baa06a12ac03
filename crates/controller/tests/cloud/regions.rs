//! Regions are name spaces apart from one another, each with hosts of its own.

use std::process::Command;

use hearth_api::client::{self, Introduction};
use hearth_api::{Client, v1};
use tonic::Status;

use crate::support::{Cloud, Host, SOON, code, disk, enroll, register, without_public_address};
use crate::trust::owner;

const FAR: &str = "lab-2";
const FAR_ZONE: &str = "lab-2a";

fn create(name: &str, zones: &[&str]) -> v1::CreateRegionRequest {
    v1::CreateRegionRequest {
        region_name: name.to_owned(),
        availability_zones: zones.iter().map(ToString::to_string).collect(),
        dry_run: false,
    }
}

fn delete(name: &str) -> v1::DeleteRegionRequest {
    v1::DeleteRegionRequest {
        region_name: name.to_owned(),
        dry_run: false,
    }
}

/// The operator's client, whose calls are for a region.
async fn client_of(cloud: &Cloud, region: &str) -> Client {
    let introduction = Introduction {
        credentials: None,
        region: Some(region.parse().unwrap()),
    };
    Client::new(
        client::socket(&cloud.hearthd.endpoint(), introduction)
            .await
            .unwrap(),
    )
}

/// A cloud with a second region, which has a host and an image.
async fn two_regions(arguments: &[&str]) -> Option<(Cloud, Host, Client, String)> {
    let cloud = Cloud::with(arguments).await?;
    let mut regions = cloud.client.clone().cloud_regions;
    let made = regions.create_region(create(FAR, &[FAR_ZONE])).await.unwrap();
    assert_eq!(made.into_inner().region.unwrap().availability_zones, [FAR_ZONE]);
    let token = cloud.hearthd.join_token();
    let (key, answer) = enroll(&cloud.hearthd, &token.secret, FAR_ZONE).await.unwrap();
    let host = Host::new(answer.host_id, answer.certificate, key);
    let far = client_of(&cloud, FAR).await;
    let bytes = disk(cloud.hearthd.dir.path())?;
    let image_id = register(&far, "tiny", &bytes).await.unwrap();
    Some((cloud, host, far, image_id))
}

async fn connected(client: &Client) {
    tokio::time::timeout(SOON, Cloud::connected(client))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_do_not_see_one_another() {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        println!("SKIPPED: regions_do_not_see_one_another: HEARTH_PYTHON is not set (scripts/test sets it)");
        return;
    };
    let Some((cloud, far_host, far, far_image)) = two_regions(&["--ec2-listen", "127.0.0.1:0"]).await else {
        return;
    };
    let obeying = [
        cloud.connect().await.obey(),
        far_host.connect(&cloud.hearthd).await.obey(),
    ];
    connected(&cloud.client).await;
    connected(&far).await;
    let endpoints = std::fs::read_to_string(cloud.hearthd.data().join("endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_str(&endpoints).unwrap();
    let listen = endpoints["ec2_listen"].as_str().unwrap().to_owned();
    let key = owner(&cloud.hearthd);
    let home_image = cloud.image_id.clone();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cloud/regions.py"))
            .arg(listen.rsplit(':').next().unwrap())
            .arg(format!("{}:{}", key.access_key_id, key.secret_access_key))
            .args(["local-1", &home_image, FAR, &far_image])
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("FIGURE"),
        "{said}{}{}",
        String::from_utf8_lossy(&output.stderr),
        cloud.hearthd.log()
    );
    println!("{said}");
    obeying.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_goes_to_a_host_of_its_region_which_is_told_where_it_is() {
    let Some((mut cloud, far_host, far, far_image)) = two_regions(&["--terminated-visible", "1"]).await
    else {
        return;
    };
    let near_session = cloud.connect().await.obey();
    cloud.until_connected().await;
    let launch = |image_id: &str| v1::RunInstancesRequest {
        image_id: image_id.to_owned(),
        network_interfaces: without_public_address(),
        ..cloud.request(1)
    };
    // The home region's host is no help.
    let refused = far
        .clone()
        .instances
        .run_instances(launch(&far_image))
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "InsufficientInstanceCapacity");
    assert!(
        refused.message().contains("not connected") && !refused.message().contains(&cloud.host.id),
        "{refused:?}"
    );

    let mut session = far_host.connect(&cloud.hearthd).await;
    connected(&far).await;
    let made = far
        .clone()
        .instances
        .run_instances(launch(&far_image))
        .await
        .unwrap();
    let made = made.into_inner().instances.remove(0);
    let told = session
        .intents_when(|intents| !intents.instances.is_empty())
        .await;
    let metadata = told.instances[0].metadata.clone().unwrap();
    assert_eq!(
        (metadata.region.as_str(), metadata.availability_zone.as_str()),
        (FAR, FAR_ZONE)
    );
    assert_eq!(metadata.local_hostname, "ip-172-31-0-4.lab-2.compute.internal");
    assert_eq!(made.private_dns_name, metadata.local_hostname);
    assert!(cloud.all().await.is_empty(), "the home region has it");
    let session = session.obey();

    // What there was is there after a restart, and the audit rows say where it was made.
    cloud.hearthd.kill();
    cloud.hearthd.spawn();
    let far = client_of(&cloud, FAR).await;
    let found = far
        .clone()
        .instances
        .describe_instances(v1::DescribeInstancesRequest::default())
        .await;
    assert_eq!(
        found.unwrap().into_inner().reservations[0].instances[0].instance_id,
        made.instance_id
    );
    let database = cloud.hearthd.data().join("hearth.db");
    let audit = Command::new("sqlite3")
        .arg(database)
        .arg("SELECT detail ->> 'region' FROM audit WHERE action = 'RunInstances'")
        .output();
    match audit {
        Ok(audit) => assert_eq!(String::from_utf8_lossy(&audit.stdout).trim(), FAR),
        Err(error) => println!("the audit rows were not looked at: sqlite3: {error}"),
    }

    // A region goes when nothing is in it any more.
    let mut regions = cloud.client.clone().cloud_regions;
    let refused = regions.delete_region(delete(FAR)).await.unwrap_err();
    assert_eq!(code(&refused), "DependencyViolation", "{refused:?}");
    near_session.abort();
    session.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_are_the_operators_and_go_when_they_are_empty() {
    let cloud = crate::support::Hearthd::start();
    let client = cloud.client().await;
    let mut regions = client.clone().cloud_regions;
    let refused = |answer: Result<_, Status>| {
        code(
            &answer
                .map(|_: tonic::Response<v1::CreateRegionResponse>| ())
                .unwrap_err(),
        )
    };
    for (name, zones, expected) in [
        ("Lab-2", &["Lab-2a"][..], "InvalidParameterValue"),
        ("lab", &["laba"], "InvalidParameterValue"),
        ("lab-2", &["lab-3a"], "InvalidParameterValue"),
        ("lab-2", &["lab-2a", "lab-2a"], "EntityAlreadyExists"),
        ("lab-2", &[], "MissingParameter"),
        ("", &["lab-2a"], "MissingParameter"),
        ("local-1", &["local-1d"], "EntityAlreadyExists"),
    ] {
        assert_eq!(
            refused(regions.create_region(create(name, zones)).await),
            expected,
            "{name} {zones:?}"
        );
    }
    let dry = v1::CreateRegionRequest {
        dry_run: true,
        ..create(FAR, &[FAR_ZONE])
    };
    assert_eq!(refused(regions.create_region(dry).await), "DryRunOperation");
    regions.create_region(create(FAR, &[FAR_ZONE])).await.unwrap();
    assert_eq!(
        refused(regions.create_region(create(FAR, &["lab-2b"])).await),
        "EntityAlreadyExists"
    );

    // An account that is made later has a default VPC there, too, and so has each account in a zone that is added.
    let account = v1::CreateAccountRequest {
        account_name: "team-a".into(),
        dry_run: false,
    };
    let account = client
        .clone()
        .accounts
        .create_account(account)
        .await
        .unwrap()
        .into_inner();
    let add = v1::AddAvailabilityZonesRequest {
        region_name: FAR.into(),
        availability_zones: vec!["lab-2b".into()],
        dry_run: false,
    };
    let added = regions
        .add_availability_zones(add.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(added.region.unwrap().availability_zones, [FAR_ZONE, "lab-2b"]);
    let again = regions.add_availability_zones(add.clone()).await.unwrap_err();
    assert_eq!(code(&again), "EntityAlreadyExists");
    let of_home = v1::AddAvailabilityZonesRequest {
        region_name: "local-1".into(),
        ..add
    };
    let of_home = regions.add_availability_zones(of_home).await.unwrap_err();
    assert_eq!(code(&of_home), "InvalidParameterValue");
    let introduction = Introduction {
        credentials: None,
        region: Some(FAR.parse().unwrap()),
    };
    let far = Client::new(client::socket(&cloud.endpoint(), introduction).await.unwrap());
    let subnets = far
        .clone()
        .subnets
        .describe_subnets(v1::DescribeSubnetsRequest::default())
        .await;
    assert_eq!(subnets.unwrap().into_inner().subnets.len(), 2);

    // What somebody made in it keeps it.
    let key = v1::CreateKeyPairRequest {
        key_name: "key".into(),
        ..Default::default()
    };
    far.clone().key_pairs.create_key_pair(key.clone()).await.unwrap();
    for name in [FAR, "local-1", "mars-1"] {
        let refused = regions.delete_region(delete(name)).await.unwrap_err();
        let expected = if name == FAR {
            "DependencyViolation"
        } else {
            "InvalidParameterValue"
        };
        assert_eq!(code(&refused), expected, "{refused:?}");
    }
    let named = v1::DeleteKeyPairRequest {
        key_name: "key".into(),
        ..Default::default()
    };
    far.clone().key_pairs.delete_key_pair(named).await.unwrap();
    let group = v1::CreateSecurityGroupRequest {
        group_name: "web".into(),
        description: "web".into(),
        ..Default::default()
    };
    let group = far
        .clone()
        .security_groups
        .create_security_group(group)
        .await
        .unwrap()
        .into_inner();
    let kept = regions.delete_region(delete(FAR)).await.unwrap_err();
    assert!(kept.message().contains(&group.group_id), "{kept:?}");
    let gone = v1::DeleteSecurityGroupRequest {
        group_id: group.group_id,
        ..Default::default()
    };
    far.clone()
        .security_groups
        .delete_security_group(gone)
        .await
        .unwrap();
    let token = cloud.join_token();
    let (_, host) = enroll(&cloud, &token.secret, FAR_ZONE).await.unwrap();
    let kept = regions.delete_region(delete(FAR)).await.unwrap_err();
    assert!(kept.message().contains(&host.host_id), "{kept:?}");
    let forget = v1::ForgetHostRequest {
        host_id: host.host_id,
        ..Default::default()
    };
    client.clone().hosts.forget_host(forget).await.unwrap();
    regions.delete_region(delete(FAR)).await.unwrap();

    // It is there no more: not for calls, not for hosts; and its account goes.
    let refused = far
        .clone()
        .vpcs
        .describe_vpcs(v1::DescribeVpcsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "AuthFailure");
    assert!(refused.message().contains("'lab-2'"), "{refused:?}");
    let token = cloud.join_token();
    let refused = enroll(&cloud, &token.secret, FAR_ZONE).await.unwrap_err();
    assert!(
        refused
            .message()
            .contains("there is no availability zone 'lab-2a'"),
        "{refused:?}"
    );
    let close = v1::CloseAccountRequest {
        account_id: account.account.unwrap().account_id,
        dry_run: false,
    };
    client.clone().accounts.close_account(close).await.unwrap();
}
