//! Volumes that outlive their instance.

use hearth_api::agent::volume_intent::Desired;
use hearth_api::v1;
use tonic::Status;

use crate::support::{Cloud, ZONE, code};

async fn describe(cloud: &Cloud, request: v1::DescribeVolumesRequest) -> Result<Vec<v1::Volume>, Status> {
    let mut client = cloud.client.clone().volumes;
    let described = client.describe_volumes(request).await?;
    Ok(described.into_inner().volumes)
}

async fn all(cloud: &Cloud) -> Vec<v1::Volume> {
    describe(cloud, v1::DescribeVolumesRequest::default())
        .await
        .unwrap()
}

async fn delete(cloud: &Cloud, id: &str) -> Result<(), Status> {
    let request = v1::DeleteVolumeRequest {
        volume_id: id.into(),
        dry_run: false,
    };
    let mut client = cloud.client.clone().volumes;
    client.delete_volume(request).await.map(|_| ())
}

fn keeping(cloud: &Cloud) -> v1::RunInstancesRequest {
    v1::RunInstancesRequest {
        block_device_mappings: vec![v1::BlockDeviceMapping {
            device_name: "/dev/vda".into(),
            ebs: Some(v1::EbsBlockDevice {
                volume_size: 3,
                delete_on_termination: Some(false),
                ..Default::default()
            }),
            ..Default::default()
        }],
        tag_specifications: vec![v1::TagSpecification {
            resource_type: "volume".into(),
            tags: vec![v1::Tag {
                key: "data".into(),
                value: "dear".into(),
            }],
        }],
        ..cloud.request(1)
    }
}

async fn terminate(cloud: &Cloud, id: &str) {
    let request = v1::TerminateInstancesRequest {
        instance_ids: vec![id.into()],
        ..Default::default()
    };
    cloud
        .client
        .clone()
        .instances
        .terminate_instances(request)
        .await
        .unwrap();
    cloud.until(id, "terminated").await;
}

async fn claimed_gib(cloud: &Cloud) -> i64 {
    let hosts = cloud
        .client
        .clone()
        .hosts
        .list_hosts(v1::ListHostsRequest {})
        .await;
    hosts.unwrap().into_inner().hosts[0]
        .claimed
        .as_ref()
        .unwrap()
        .disk_gib
}

#[tokio::test]
async fn a_volume_that_outlives_its_instance_is_told_and_deleted() {
    let Some(cloud) = Cloud::start().await else { return };
    let obeying = cloud.connect().await.obey();
    let kept = cloud.run(keeping(&cloud)).await.unwrap().instances.remove(0);
    let other = cloud.run(cloud.request(1)).await.unwrap().instances.remove(0);
    cloud.until(&kept.instance_id, "running").await;
    cloud.until(&other.instance_id, "running").await;
    assert_eq!(claimed_gib(&cloud).await, 4);

    let id = kept.block_device_mappings[0]
        .ebs
        .as_ref()
        .unwrap()
        .volume_id
        .clone();
    let named = || v1::DescribeVolumesRequest {
        volume_ids: vec![id.clone()],
        ..Default::default()
    };
    let volume = describe(&cloud, named()).await.unwrap().remove(0);
    assert_eq!((volume.state.as_str(), volume.size), ("in-use", 3));
    assert_eq!(volume.availability_zone, ZONE);
    assert_eq!(
        (volume.tags[0].key.as_str(), volume.volume_type.as_str()),
        ("data", "gp3")
    );
    let attachment = &volume.attachments[0];
    assert_eq!(attachment.instance_id, kept.instance_id);
    assert_eq!(
        (attachment.device.as_str(), attachment.state.as_str()),
        ("/dev/vda", "attached")
    );
    assert!(!attachment.delete_on_termination);
    assert!(attachment.attach_time.as_ref().unwrap().seconds > 1_700_000_000);
    assert_eq!(all(&cloud).await.len(), 2);
    let refused = delete(&cloud, &id).await.unwrap_err();
    assert_eq!(code(&refused), "VolumeInUse");
    assert!(refused.message().contains(&kept.instance_id), "{refused:?}");
    for (name, value, count) in [
        ("status", "in-use", 2),
        ("status", "available", 0),
        ("attachment.instance-id", kept.instance_id.as_str(), 1),
        ("attachment.delete-on-termination", "false", 1),
        ("attachment.device", "/dev/vda", 2),
        ("attachment.status", "attached", 2),
        ("size", "3", 1),
        ("availability-zone", ZONE, 2),
        ("volume-type", "gp3", 2),
        ("volume-id", id.as_str(), 1),
        ("tag:data", "dear", 1),
    ] {
        let filters = vec![v1::Filter {
            name: name.into(),
            values: vec![value.into()],
        }];
        let request = v1::DescribeVolumesRequest {
            filters,
            ..Default::default()
        };
        assert_eq!(describe(&cloud, request).await.unwrap().len(), count, "{name}");
    }

    terminate(&cloud, &kept.instance_id).await;
    terminate(&cloud, &other.instance_id).await;
    let left = all(&cloud).await;
    assert_eq!(left.len(), 1);
    assert_eq!(
        (left[0].volume_id.as_str(), left[0].state.as_str()),
        (id.as_str(), "available")
    );
    assert!(left[0].attachments.is_empty());
    assert_eq!(claimed_gib(&cloud).await, 3);
    obeying.abort();

    // Its host is away, and comes back.
    delete(&cloud, &id).await.unwrap();
    delete(&cloud, &id).await.unwrap();
    assert_eq!(all(&cloud).await[0].state, "deleting");
    assert_eq!(claimed_gib(&cloud).await, 3, "what is there takes room");
    let mut session = cloud.connect().await;
    let wanted = session
        .intents_when(|intents| !intents.volumes.is_empty())
        .await
        .volumes;
    assert_eq!(
        (wanted[0].volume_id.as_str(), wanted[0].desired()),
        (id.as_str(), Desired::Erased)
    );
    assert_eq!(all(&cloud).await.len(), 1);
    session.erases = true;
    session.observe(Vec::new()).await;
    session.intents_when(|intents| intents.volumes.is_empty()).await;
    assert!(all(&cloud).await.is_empty());
    assert_eq!(claimed_gib(&cloud).await, 0);
    let gone = describe(&cloud, named()).await.unwrap_err();
    assert_eq!(code(&gone), "InvalidVolume.NotFound");
    for (id, expected) in [
        (id.as_str(), "InvalidVolume.NotFound"),
        ("vol-?", "InvalidVolumeID.Malformed"),
        ("", "MissingParameter"),
    ] {
        assert_eq!(code(&delete(&cloud, id).await.unwrap_err()), expected);
    }
}

#[tokio::test]
async fn a_host_erases_what_is_to_be_erased_and_nothing_else() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let launched = cloud.run(keeping(&cloud)).await.unwrap().instances.remove(0);
        ids.push(launched.instance_id);
    }
    let intents = session.intents_when(|intents| intents.instances.len() == 2).await;
    assert!(intents.volumes.is_empty(), "instances have them");
    let held = &intents.instances[0];
    let epochs = (
        held.volumes[0].attachment_epoch,
        held.network_interfaces[0].attachment_epoch,
    );
    assert_eq!(epochs, (1, 1));
    drop(session);
    let obeying = cloud.connect().await.obey();
    for id in &ids {
        cloud.until(id, "running").await;
        terminate(&cloud, id).await;
    }
    obeying.abort();
    let volumes = all(&cloud).await;
    let mut session = cloud.connect().await;
    let kept = session
        .intents_when(|intents| intents.volumes.len() == 2)
        .await
        .volumes;
    assert!(
        kept.iter()
            .all(|volume| volume.desired() == Desired::Kept && volume.epoch == 1)
    );
    // A host that says so of its own accord is not believed.
    delete(&cloud, &volumes[0].volume_id).await.unwrap();
    let told = session
        .intents_when(|intents| {
            intents
                .volumes
                .iter()
                .any(|volume| volume.desired() == Desired::Erased)
        })
        .await;
    let erased: Vec<_> = told
        .volumes
        .iter()
        .filter(|v| v.desired() == Desired::Erased)
        .collect();
    assert_eq!(
        (erased.len(), erased[0].volume_id.as_str()),
        (1, volumes[0].volume_id.as_str())
    );
    session.claim_erased(vec![volumes[1].volume_id.clone()]).await;
    session.erases = true;
    session.observe(Vec::new()).await;
    session.intents_when(|intents| intents.volumes.len() == 1).await;
    let left = all(&cloud).await;
    assert_eq!(
        (left.len(), left[0].volume_id.as_str()),
        (1, volumes[1].volume_id.as_str())
    );
    assert_eq!(left[0].state, "available");
}
