//! Volumes of running instances, as their host has it: attached, grown, detached; what happens when it takes its time, and
//! when hearthd is killed in between.

use std::time::{Duration, Instant};

use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;
use hearth_api::agent::volume_intent::Desired;
use hearth_api::agent::volume_observation::State as Seen;
use hearth_api::agent::{InstanceIntent, InstanceObservation, InstanceVolume, VolumeObservation};
use hearth_api::v1;
use tonic::Status;

use crate::support::{Cloud, Host, SOON, Session, ZONE, code, ended, seen, volume_as_wanted};

async fn create(cloud: &Cloud, gib: i32) -> String {
    let request = v1::CreateVolumeRequest {
        availability_zone: ZONE.into(),
        size: Some(gib),
        volume_type: "gp3".into(),
        ..Default::default()
    };
    let made = cloud.client.clone().volumes.create_volume(request).await.unwrap();
    made.into_inner().volume_id
}

async fn attach(
    cloud: &Cloud,
    volume: &str,
    instance: &str,
    device: &str,
) -> Result<v1::VolumeAttachment, Status> {
    let request = v1::AttachVolumeRequest {
        volume_id: volume.into(),
        instance_id: instance.into(),
        device: device.into(),
        dry_run: false,
    };
    let answer = cloud.client.clone().volumes.attach_volume(request).await?;
    Ok(answer.into_inner())
}

async fn detach(cloud: &Cloud, volume: &str, force: bool) -> v1::VolumeAttachment {
    let request = v1::DetachVolumeRequest {
        volume_id: volume.into(),
        force,
        ..Default::default()
    };
    let answer = cloud.client.clone().volumes.detach_volume(request).await;
    answer.unwrap().into_inner()
}

async fn grow(cloud: &Cloud, volume: &str, gib: i32) -> v1::VolumeModification {
    let request = v1::ModifyVolumeRequest {
        volume_id: volume.into(),
        size: Some(gib),
        ..Default::default()
    };
    let answer = cloud.client.clone().volumes.modify_volume(request).await;
    answer.unwrap().into_inner().volume_modification.unwrap()
}

async fn modification(cloud: &Cloud, volume: &str) -> v1::VolumeModification {
    let request = v1::DescribeVolumesModificationsRequest {
        volume_ids: vec![volume.into()],
        ..Default::default()
    };
    let mut client = cloud.client.clone().volumes;
    let answer = client.describe_volumes_modifications(request).await.unwrap();
    answer.into_inner().volumes_modifications.remove(0)
}

async fn volume(cloud: &Cloud, id: &str) -> v1::Volume {
    let request = v1::DescribeVolumesRequest {
        volume_ids: vec![id.into()],
        ..Default::default()
    };
    let answer = cloud.client.clone().volumes.describe_volumes(request).await;
    answer.unwrap().into_inner().volumes.remove(0)
}

/// The states of a volume and of its attachment.
async fn states(cloud: &Cloud, id: &str) -> (String, String) {
    let volume = volume(cloud, id).await;
    let attachment = volume
        .attachments
        .first()
        .map(|attachment| attachment.state.clone());
    (volume.state, attachment.unwrap_or_default())
}

async fn until(cloud: &Cloud, id: &str, volume: &str, attachment: &str) {
    let begin = Instant::now();
    let wanted = (volume.to_owned(), attachment.to_owned());
    while states(cloud, id).await != wanted {
        assert!(
            begin.elapsed() < SOON,
            "{id} is not {wanted:?}: {:?}",
            states(cloud, id).await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_modification(cloud: &Cloud, id: &str, state: &str) -> v1::VolumeModification {
    let begin = Instant::now();
    loop {
        let modification = modification(cloud, id).await;
        if modification.modification_state == state {
            return modification;
        }
        assert!(begin.elapsed() < SOON, "not {state}: {modification:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An instance that runs, as its host says of nothing but that.
async fn running(cloud: &Cloud, session: &mut Session) -> String {
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    let intent = intent_when(session, &id, |_| true).await;
    session.observe(vec![running_with(&intent, Vec::new())]).await;
    cloud.until(&id, "running").await;
    id
}

async fn intent_when(
    session: &mut Session,
    instance: &str,
    expected: impl Fn(&InstanceIntent) -> bool,
) -> InstanceIntent {
    let find = |intents: &hearth_api::agent::Intents| {
        let own = intents
            .instances
            .iter()
            .find(|intent| intent.instance_id == instance);
        own.filter(|intent| expected(intent)).cloned()
    };
    let intents = session.intents_when(|intents| find(intents).is_some()).await;
    find(&intents).unwrap()
}

/// The intent of a volume when it is as expected.
async fn wanted_when(
    session: &mut Session,
    instance: &str,
    volume: &str,
    expected: impl Fn(&InstanceVolume) -> bool,
) -> (InstanceIntent, InstanceVolume) {
    let find = |intent: &InstanceIntent| {
        let own = intent.volumes.iter().find(|wanted| wanted.volume_id == volume);
        own.filter(|wanted| expected(wanted)).cloned()
    };
    let intent = intent_when(session, instance, |intent| find(intent).is_some()).await;
    let wanted = find(&intent).unwrap();
    (intent, wanted)
}

fn running_with(intent: &InstanceIntent, volumes: Vec<VolumeObservation>) -> InstanceObservation {
    InstanceObservation {
        volumes,
        ..seen(intent, Phase::Running)
    }
}

fn saying(wanted: &InstanceVolume, state: Seen, message: &str) -> VolumeObservation {
    VolumeObservation {
        state: state.into(),
        message: message.into(),
        ..volume_as_wanted(wanted)
    }
}

impl Cloud {
    async fn restart(&mut self) -> Session {
        self.hearthd.kill();
        self.hearthd.spawn();
        self.client = self.hearthd.client().await;
        self.connect().await
    }
}

#[tokio::test]
async fn attachments_go_on_where_they_were_when_hearthd_is_killed() {
    let Some(mut cloud) = Cloud::with(&["--busy-seconds", "2"]).await else {
        return;
    };
    let mut session = cloud.connect().await;
    let instance = running(&cloud, &mut session).await;
    let id = create(&cloud, 3).await;
    assert_eq!(states(&cloud, &id).await, ("available".into(), String::new()));
    attach(&cloud, &id, &instance, "/dev/sdf").await.unwrap();
    assert_eq!(states(&cloud, &id).await, ("in-use".into(), "attaching".into()));
    drop(session);

    // Killed while it is attached.
    let mut session = cloud.restart().await;
    assert_eq!(states(&cloud, &id).await, ("in-use".into(), "attaching".into()));
    let (intent, wanted) = wanted_when(&mut session, &instance, &id, |_| true).await;
    let expected = InstanceVolume {
        volume_id: id.clone(),
        size_bytes: 3 << 30,
        attachment_epoch: 1,
        device_name: "/dev/sdf".into(),
        iops: 3000,
        throughput_mib: 125,
        ..Default::default()
    };
    assert_eq!(wanted, expected, "it is blank, and was never made");
    let root = &intent.volumes[0];
    assert_eq!(
        (root.device_name.as_str(), root.has_run, intent.volumes.len()),
        ("/dev/vda", true, 2)
    );
    // Another attachment, and what is no news.
    let old = VolumeObservation {
        attachment_epoch: 7,
        ..saying(&wanted, Seen::Attached, "")
    };
    session.observe(vec![running_with(&intent, vec![old])]).await;
    session
        .observe(vec![running_with(
            &intent,
            vec![saying(&wanted, Seen::Attaching, "")],
        )])
        .await;
    session
        .observe(vec![running_with(
            &intent,
            vec![saying(&wanted, Seen::Detached, "")],
        )])
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(states(&cloud, &id).await.1, "attaching");
    let attached = vec![running_with(&intent, vec![saying(&wanted, Seen::Attached, "")])];
    session.observe(attached.clone()).await;
    until(&cloud, &id, "in-use", "attached").await;

    // Killed while it is detached. A guest that does not let it go leaves it busy, until it is taken away.
    detach(&cloud, &id, false).await;
    drop(session);
    let mut session = cloud.restart().await;
    let (intent, wanted) = wanted_when(&mut session, &instance, &id, |wanted| wanted.detaching).await;
    assert!(!wanted.force_detach && wanted.has_run);
    session
        .observe(vec![running_with(&intent, vec![saying(&wanted, Seen::Busy, "")])])
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(states(&cloud, &id).await.1, "detaching", "it has a while");
    until(&cloud, &id, "in-use", "busy").await;
    assert_eq!(detach(&cloud, &id, false).await.state, "busy");
    assert_eq!(
        code(&attach(&cloud, &id, &instance, "/dev/sdg").await.unwrap_err()),
        "VolumeInUse"
    );
    assert_eq!(detach(&cloud, &id, true).await.state, "detaching");
    let (intent, wanted) = wanted_when(&mut session, &instance, &id, |wanted| wanted.force_detach).await;
    session
        .observe(vec![running_with(&intent, vec![volume_as_wanted(&wanted)])])
        .await;
    until(&cloud, &id, "available", "").await;
    let intents = session.intents_when(|intents| !intents.volumes.is_empty()).await;
    let kept = &intents.volumes[0];
    assert_eq!(
        (kept.volume_id.as_str(), kept.epoch, kept.desired()),
        (id.as_str(), 1, Desired::Kept)
    );
    assert_eq!(intents.instances[0].volumes.len(), 1);

    // The same again is a later attachment, of a volume that has been made.
    attach(&cloud, &id, &instance, "/dev/sdg").await.unwrap();
    let (_, wanted) = wanted_when(&mut session, &instance, &id, |_| true).await;
    assert_eq!((wanted.attachment_epoch, wanted.has_run), (2, true));
    // What was said of the first says nothing of it.
    session.observe(attached).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(states(&cloud, &id).await.1, "attaching");
}

#[tokio::test]
async fn what_a_host_does_not_do_in_time_is_given_up_and_said() {
    let Some(cloud) = Cloud::with(&["--ending-seconds", "3"]).await else {
        return;
    };
    let mut session = cloud.connect().await;
    let instance = running(&cloud, &mut session).await;
    let (id, other) = (create(&cloud, 3).await, create(&cloud, 3).await);
    attach(&cloud, &id, &instance, "/dev/sdf").await.unwrap();
    attach(&cloud, &other, &instance, "/dev/sdg").await.unwrap();
    let (intent, _) = wanted_when(&mut session, &instance, &other, |_| true).await;
    let full = "no space left on device";
    let said = vec![
        saying(&intent.volumes[1], Seen::Attaching, full),
        saying(&intent.volumes[2], Seen::Attached, ""),
    ];
    session.observe(vec![running_with(&intent, said)]).await;
    until(&cloud, &other, "in-use", "attached").await;
    let request = v1::DescribeVolumeStatusRequest {
        volume_ids: vec![id.clone()],
        ..Default::default()
    };
    let answer = cloud.client.clone().volumes.describe_volume_status(request).await;
    let status = answer.unwrap().into_inner().volume_statuses.remove(0);
    assert_eq!(status.volume_status.unwrap().status, "impaired");
    assert_eq!(
        (
            status.events[0].description.as_str(),
            &status.events[0].instance_id
        ),
        (full, &instance)
    );

    let change = grow(&cloud, &other, 5).await;
    assert_eq!(change.modification_state, "modifying");
    assert_eq!(volume(&cloud, &other).await.size, 3, "it is not larger yet");
    let (intent, wanted) = wanted_when(&mut session, &instance, &other, |wanted| {
        wanted.size_bytes == 5 << 30
    })
    .await;
    let small = VolumeObservation {
        size_bytes: 3 << 30,
        ..saying(&wanted, Seen::Attached, full)
    };
    session.observe(vec![running_with(&intent, vec![small])]).await;
    let failed = until_modification(&cloud, &other, "failed").await;
    assert_eq!(
        (failed.status_message.as_str(), failed.end_time.is_some()),
        (full, true)
    );
    assert_eq!(volume(&cloud, &other).await.size, 3);
    // It has grown after all.
    session
        .observe(vec![running_with(&intent, vec![volume_as_wanted(&wanted)])])
        .await;
    until_modification(&cloud, &other, "completed").await;
    assert_eq!(volume(&cloud, &other).await.size, 5);

    let (intent, wanted) = wanted_when(&mut session, &instance, &id, |wanted| wanted.force_detach).await;
    assert_eq!(states(&cloud, &id).await.1, "detaching");
    session
        .observe(vec![running_with(&intent, vec![volume_as_wanted(&wanted)])])
        .await;
    until(&cloud, &id, "available", "").await;
}

#[tokio::test]
async fn a_stop_ends_what_volumes_wait_for() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let instance = running(&cloud, &mut session).await;
    let (comes, goes, grows) = (
        create(&cloud, 1).await,
        create(&cloud, 1).await,
        create(&cloud, 1).await,
    );
    for (id, device) in [(&comes, "/dev/sdf"), (&goes, "/dev/sdg"), (&grows, "/dev/sdh")] {
        attach(&cloud, id, &instance, device).await.unwrap();
    }
    detach(&cloud, &goes, false).await;
    let (intent, wanted) = wanted_when(&mut session, &instance, &grows, |_| true).await;
    session
        .observe(vec![running_with(&intent, vec![volume_as_wanted(&wanted)])])
        .await;
    until(&cloud, &grows, "in-use", "attached").await;
    assert_eq!(grow(&cloud, &grows, 2).await.modification_state, "modifying");
    // The guest powers itself off.
    let over = InstanceObservation {
        volumes: Vec::new(),
        ..ended(&intent, Cause::GuestPowerOff)
    };
    session.observe(vec![over]).await;
    cloud.until(&instance, "stopped").await;
    assert_eq!(states(&cloud, &comes).await, ("in-use".into(), "attached".into()));
    assert_eq!(states(&cloud, &goes).await, ("available".into(), String::new()));
    assert_eq!(modification(&cloud, &grows).await.modification_state, "completed");
    assert_eq!(volume(&cloud, &grows).await.size, 2);
    // What no run had made is made anew, and what one had is not.
    let intent = intent_when(&mut session, &instance, |intent| intent.volumes.len() == 3).await;
    let made: Vec<bool> = intent.volumes.iter().map(|wanted| wanted.has_run).collect();
    assert_eq!(made, [true, false, true]);
}

#[tokio::test]
async fn a_volume_takes_room_on_its_host() {
    let Some(cloud) = Cloud::start().await else { return };
    let other = Host::enroll(&cloud.hearthd).await;
    let _obeying = (
        cloud.connect().await.obey(),
        other.connect(&cloud.hearthd).await.obey(),
    );
    let on = |host: &str| v1::RunInstancesRequest {
        placement: Some(v1::Placement {
            host_id: host.into(),
            ..Default::default()
        }),
        ..cloud.request(1)
    };
    let mut instances = Vec::new();
    for host in [&cloud.host.id, &other.id] {
        let id = cloud.run(on(host)).await.unwrap().instances[0]
            .instance_id
            .clone();
        cloud.until(&id, "running").await;
        instances.push(id);
    }
    // A host has 1 TiB. What is not there takes none of it.
    let large = create(&cloud, 1023).await;
    let larger = create(&cloud, 1024).await;
    let refused = attach(&cloud, &larger, &instances[0], "/dev/sdf")
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "InsufficientVolumeCapacity");
    assert!(refused.message().contains("has 1023 GiB left"), "{refused:?}");
    attach(&cloud, &large, &instances[0], "/dev/sdf").await.unwrap();
    until(&cloud, &large, "in-use", "attached").await;
    let small = create(&cloud, 1).await;
    let refused = attach(&cloud, &small, &instances[0], "/dev/sdg")
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "InsufficientVolumeCapacity");
    attach(&cloud, &small, &instances[1], "/dev/sdg").await.unwrap();
    until(&cloud, &small, "in-use", "attached").await;
    let refused = cloud.run(on(&cloud.host.id)).await.unwrap_err();
    assert_eq!(code(&refused), "InsufficientInstanceCapacity");

    detach(&cloud, &small, false).await;
    until(&cloud, &small, "available", "").await;
    let refused = attach(&cloud, &small, &instances[0], "/dev/sdg")
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "InsufficientVolumeCapacity");
    // Forgotten with its host; what lies nowhere stays.
    let request = v1::ForgetHostRequest {
        host_id: other.id.clone(),
        force: true,
        dry_run: false,
    };
    let answer = cloud
        .client
        .clone()
        .hosts
        .forget_host(request)
        .await
        .unwrap()
        .into_inner();
    assert!(answer.abandoned_volume_ids.contains(&small), "{answer:?}");
    assert_eq!(states(&cloud, &larger).await.0, "available");
}
