//! The instance store as hosts are told it, and an operator's own types.

use std::process::Command;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;
use hearth_api::agent::{InstanceIntent, InstanceStoreDisk, Intents};
use hearth_api::v1;
use tonic::Status;

use crate::support::{Cloud, ZONE, code, ended, seen};

fn to_store(device: &str, name: &str) -> v1::BlockDeviceMapping {
    v1::BlockDeviceMapping {
        device_name: device.into(),
        virtual_name: name.into(),
        ..Default::default()
    }
}

async fn claimed_gib(cloud: &Cloud) -> i64 {
    let hosts = cloud
        .client
        .clone()
        .hosts
        .list_hosts(v1::ListHostsRequest {})
        .await;
    let hosts = hosts.unwrap().into_inner().hosts;
    hosts[0].claimed.as_ref().unwrap().disk_gib
}

async fn stop(cloud: &Cloud, id: &str) {
    let request = v1::StopInstancesRequest {
        instance_ids: vec![id.into()],
        ..Default::default()
    };
    let mut instances = cloud.client.clone().instances;
    instances.stop_instances(request).await.unwrap();
}

async fn start(cloud: &Cloud, id: &str) {
    let request = v1::StartInstancesRequest {
        instance_ids: vec![id.into()],
        ..Default::default()
    };
    let mut instances = cloud.client.clone().instances;
    instances.start_instances(request).await.unwrap();
}

async fn attach_at(cloud: &Cloud, instance_id: &str, device: &str) -> Result<(), Status> {
    let mut volumes = cloud.client.clone().volumes;
    let request = v1::CreateVolumeRequest {
        availability_zone: ZONE.into(),
        size: Some(1),
        ..Default::default()
    };
    let volume_id = volumes.create_volume(request).await?.into_inner().volume_id;
    let request = v1::AttachVolumeRequest {
        volume_id,
        instance_id: instance_id.into(),
        device: device.into(),
        ..Default::default()
    };
    volumes.attach_volume(request).await.map(drop)
}

fn only(intents: &Intents) -> &InstanceIntent {
    &intents.instances[0]
}

#[tokio::test]
async fn the_instance_store_is_claimed_while_an_instance_runs_and_new_at_each_start() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    session.freezes = true;
    let request = v1::RunInstancesRequest {
        instance_type: "m3.medium".into(),
        block_device_mappings: vec![
            to_store("/dev/sdb", "ephemeral0"),
            to_store("/dev/sdc", "ephemeral1"),
        ],
        ..cloud.request(1)
    };
    let launched = cloud.run(request).await.unwrap().instances.remove(0);
    let id = launched.instance_id.as_str();
    let intents = session
        .intents_when(|intents| !intents.instances.is_empty())
        .await;
    let disk = InstanceStoreDisk {
        number: 0,
        size_bytes: 4_000_000_000,
        device_name: "/dev/sdb".into(),
    };
    assert_eq!(only(&intents).store_disks, [disk], "the type has one");
    assert_eq!((only(&intents).store_run, only(&intents).keep_store), (1, false));
    session.observe(vec![seen(only(&intents), Phase::Running)]).await;
    let running = cloud.until(id, "running").await;
    assert_eq!(running.block_device_mappings.len(), 1);
    // The root volume, and 4 GB.
    assert_eq!(claimed_gib(&cloud).await, 1 + 4);
    let refused = attach_at(&cloud, id, "/dev/xvdb").await.unwrap_err();
    assert!(
        code(&refused) == "InvalidParameterValue" && refused.message().contains("in use by ephemeral0"),
        "{refused:?}"
    );

    // Shut down for an image, it keeps its disks, as at a reboot.
    let request = v1::CreateImageRequest {
        instance_id: id.into(),
        name: "image".into(),
        block_device_mappings: vec![to_store("/dev/sdd", "ephemeral2")],
        ..Default::default()
    };
    let made = cloud.client.clone().images.create_image(request).await;
    let image_id = made.unwrap().into_inner().image_id;
    let intents = session
        .intents_when(|intents| only(intents).desired() == Desired::Stopped)
        .await;
    assert_eq!((only(&intents).store_run, only(&intents).keep_store), (1, true));
    session
        .observe(vec![ended(only(&intents), Cause::Requested)])
        .await;
    session
        .intents_when(|intents| !intents.snapshots.is_empty())
        .await;
    session.observe(Vec::new()).await;
    let intents = session.intents_when(|intents| only(intents).run == 2).await;
    assert_eq!((only(&intents).store_run, only(&intents).keep_store), (1, false));
    assert_eq!(claimed_gib(&cloud).await, 1 + 4);
    let request = v1::DescribeImagesRequest {
        image_ids: vec![image_id],
        ..Default::default()
    };
    let told = cloud.client.clone().images.describe_images(request).await;
    let mappings = told.unwrap().into_inner().images.remove(0).block_device_mappings;
    assert_eq!(
        mappings[1..],
        [
            to_store("/dev/sdb", "ephemeral0"),
            to_store("/dev/sdd", "ephemeral2")
        ]
    );
    session.observe(vec![seen(only(&intents), Phase::Running)]).await;
    cloud.until(id, "running").await;

    // A stop ends them.
    stop(&cloud, id).await;
    let intents = session
        .intents_when(|intents| only(intents).desired() == Desired::Stopped)
        .await;
    assert!(!only(&intents).keep_store);
    session
        .observe(vec![ended(only(&intents), Cause::Requested)])
        .await;
    cloud.until(id, "stopped").await;
    assert_eq!(claimed_gib(&cloud).await, 1);
    start(&cloud, id).await;
    let intents = session.intents_when(|intents| only(intents).run == 3).await;
    assert_eq!(
        (only(&intents).store_run, only(&intents).store_disks.len()),
        (3, 1)
    );
    assert_eq!(claimed_gib(&cloud).await, 1 + 4);

    // More than the host has is placed nowhere.
    let request = v1::RunInstancesRequest {
        instance_type: "i3.4xlarge".into(),
        ..cloud.request(1)
    };
    let refused = cloud.run(request).await.unwrap_err();
    assert_eq!(code(&refused), "InsufficientInstanceCapacity");
}

const TYPES: &str = r#"
["lab.scratch"]
vcpus = 2
memory-mib = 300
threads-per-core = 2
instance-store = { disks = 2, size-gb = 5, media = "nvme" }
"#;

async fn types(cloud: &Cloud, name: &str, value: &str) -> Vec<v1::InstanceTypeInfo> {
    let request = v1::DescribeInstanceTypesRequest {
        filters: vec![v1::Filter {
            name: name.into(),
            values: vec![value.into()],
        }],
        ..Default::default()
    };
    let told = cloud
        .client
        .clone()
        .instance_types
        .describe_instance_types(request)
        .await;
    told.unwrap().into_inner().instance_types
}

#[tokio::test]
async fn an_operators_types_are_offered_and_their_instances_outlive_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("types.toml");
    std::fs::write(&file, TYPES).unwrap();
    let Some(mut cloud) = Cloud::with(&["--instance-types", file.to_str().unwrap()]).await else {
        return;
    };
    let told = types(&cloud, "instance-storage-info.disk.size-in-gb", "5").await;
    assert_eq!(told.len(), 1);
    let storage = told[0].instance_storage_info.as_ref().unwrap();
    assert_eq!(
        (told[0].instance_type.as_str(), storage.total_size_in_gb),
        ("lab.scratch", 10)
    );
    let request = v1::DescribeInstanceTypeOfferingsRequest {
        filters: vec![v1::Filter {
            name: "instance-type".into(),
            values: vec!["lab.*".into()],
        }],
        ..Default::default()
    };
    let offered = cloud
        .client
        .clone()
        .instance_types
        .describe_instance_type_offerings(request)
        .await;
    assert_eq!(offered.unwrap().into_inner().instance_type_offerings.len(), 1);

    let obeying = cloud.connect().await.obey();
    let request = || v1::RunInstancesRequest {
        instance_type: "lab.scratch".into(),
        ..cloud.request(1)
    };
    let launched = cloud.run(request()).await.unwrap().instances.remove(0);
    let id = launched.instance_id;
    cloud.until(&id, "running").await;
    assert_eq!(claimed_gib(&cloud).await, 1 + 10);

    // The type leaves the file: nothing is launched of it any more, and its instance stops and starts.
    obeying.abort();
    std::fs::write(&file, "").unwrap();
    cloud.hearthd.kill();
    cloud.hearthd.spawn();
    cloud.client = cloud.hearthd.client().await;
    let _obeying = cloud.connect().await.obey();
    assert!(types(&cloud, "instance-type", "lab.*").await.is_empty());
    let request = v1::RunInstancesRequest {
        instance_type: "lab.scratch".into(),
        ..cloud.request(1)
    };
    let refused = cloud.run(request).await.unwrap_err();
    assert_eq!(code(&refused), "InvalidInstanceType");
    assert_eq!(cloud.instance(&id).await.instance_type, "lab.scratch");
    stop(&cloud, &id).await;
    cloud.until(&id, "stopped").await;
    start(&cloud, &id).await;
    cloud.until(&id, "running").await;
    assert_eq!(claimed_gib(&cloud).await, 1 + 10);
}

#[test]
fn a_wrong_file_of_types_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("types.toml");
    let there = file.to_str().unwrap();
    std::fs::write(&file, "[\"lab.small\"]\nvcpus = 1\nmemory-mib = 1\n").unwrap();
    for (named, told) in [
        (there, "lab.small: memory-mib is 1; expecting 32 to 16777216"),
        (
            "/nowhere/types.toml",
            "reading the instance types in /nowhere/types.toml",
        ),
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_hearthd"))
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--instance-types", named])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains(told), "{said}");
    }
    assert!(!dir.path().join("data").exists(), "nothing was made");
}
