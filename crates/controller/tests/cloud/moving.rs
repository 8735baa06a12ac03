//! Volumes and stopped instances that change hosts: what their old and new hosts are told, what is refused, and what is left
//! when somebody is killed, silent or forgotten on the way.

use std::time::{Duration, Instant};

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;
use hearth_api::agent::snapshot_observation::State as Said;
use hearth_api::agent::volume_intent::Desired as Fate;
use hearth_api::agent::{
    FetchImageRequest, InstanceIntent, InstanceObservation, InstanceVolume, Intents, SnapshotIntent,
};
use hearth_api::v1;
use tonic::{Code, Status};

use crate::support::{Cloud, Host, SOON, Session, ZONE, begin, code, ended, seen, store, volume_as_wanted};

const GIB: u64 = 1 << 30;

async fn create(cloud: &Cloud) -> String {
    let request = v1::CreateVolumeRequest {
        availability_zone: ZONE.into(),
        size: Some(1),
        volume_type: "gp3".into(),
        ..Default::default()
    };
    let made = cloud.client.clone().volumes.create_volume(request).await.unwrap();
    made.into_inner().volume_id
}

async fn attach(cloud: &Cloud, volume: &str, instance: &str) -> Result<String, Status> {
    let request = v1::AttachVolumeRequest {
        volume_id: volume.into(),
        instance_id: instance.into(),
        device: "/dev/sdf".into(),
        dry_run: false,
    };
    let answer = cloud.client.clone().volumes.attach_volume(request).await?;
    Ok(answer.into_inner().state)
}

async fn detach(cloud: &Cloud, volume: &str) -> String {
    let request = v1::DetachVolumeRequest {
        volume_id: volume.into(),
        ..Default::default()
    };
    let answer = cloud.client.clone().volumes.detach_volume(request).await;
    answer.unwrap().into_inner().state
}

async fn snapshot(cloud: &Cloud, volume: &str) -> Result<v1::Snapshot, Status> {
    let request = v1::CreateSnapshotRequest {
        volume_id: volume.into(),
        ..Default::default()
    };
    let made = cloud.client.clone().snapshots.create_snapshot(request).await?;
    Ok(made.into_inner())
}

async fn snapshots(cloud: &Cloud) -> Vec<v1::Snapshot> {
    let request = v1::DescribeSnapshotsRequest::default();
    let told = cloud.client.clone().snapshots.describe_snapshots(request).await;
    told.unwrap().into_inner().snapshots
}

/// The states of a volume and of its attachment.
async fn states(cloud: &Cloud, id: &str) -> (String, String) {
    let request = v1::DescribeVolumesRequest {
        volume_ids: vec![id.into()],
        ..Default::default()
    };
    let answer = cloud.client.clone().volumes.describe_volumes(request).await;
    let volume = answer.unwrap().into_inner().volumes.remove(0);
    let attachment = volume.attachments.first().map(|it| it.state.clone());
    (volume.state, attachment.unwrap_or_default())
}

async fn until(cloud: &Cloud, id: &str, volume: &str, attachment: &str) {
    let begin = Instant::now();
    let wanted = (volume.to_owned(), attachment.to_owned());
    loop {
        let states = states(cloud, id).await;
        if states == wanted {
            return;
        }
        assert!(begin.elapsed() < SOON, "{id} is not {wanted:?}: {states:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn status(cloud: &Cloud, id: &str) -> v1::VolumeStatusItem {
    let request = v1::DescribeVolumeStatusRequest {
        volume_ids: vec![id.into()],
        ..Default::default()
    };
    let answer = cloud.client.clone().volumes.describe_volume_status(request).await;
    answer.unwrap().into_inner().volume_statuses.remove(0)
}

async fn run_on(cloud: &Cloud, host: &Host) -> String {
    let request = v1::RunInstancesRequest {
        placement: Some(v1::Placement {
            host_id: host.id.clone(),
            ..Default::default()
        }),
        ..cloud.request(1)
    };
    cloud.run(request).await.unwrap().instances[0].instance_id.clone()
}

async fn start(cloud: &Cloud, id: &str) -> Result<(), Status> {
    let request = v1::StartInstancesRequest {
        instance_ids: vec![id.into()],
        ..Default::default()
    };
    let mut instances = cloud.client.clone().instances;
    instances.start_instances(request).await.map(drop)
}

async fn stop(cloud: &Cloud, id: &str) {
    let request = v1::StopInstancesRequest {
        instance_ids: vec![id.into()],
        ..Default::default()
    };
    let mut instances = cloud.client.clone().instances;
    instances.stop_instances(request).await.unwrap();
}

async fn terminate(cloud: &Cloud, id: &str) {
    let request = v1::TerminateInstancesRequest {
        instance_ids: vec![id.into()],
        ..Default::default()
    };
    let mut instances = cloud.client.clone().instances;
    instances.terminate_instances(request).await.unwrap();
}

async fn drain(cloud: &Cloud, host: &Host) {
    let request = v1::DrainHostRequest {
        host_id: host.id.clone(),
        ..Default::default()
    };
    cloud.client.clone().hosts.drain_host(request).await.unwrap();
}

async fn told(cloud: &Cloud, host: &Host) -> v1::Host {
    let answer = cloud
        .client
        .clone()
        .hosts
        .list_hosts(v1::ListHostsRequest {})
        .await;
    let hosts = answer.unwrap().into_inner().hosts;
    hosts.into_iter().find(|it| it.host_id == host.id).unwrap()
}

async fn until_away(cloud: &Cloud, host: &Host) {
    let begin = Instant::now();
    while told(cloud, host).await.state == "connected" {
        assert!(begin.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Two hosts.
async fn cloud(arguments: &[&str]) -> Option<(Cloud, Host)> {
    let cloud = Cloud::with(arguments).await?;
    let other = Host::enroll(&cloud.hearthd).await;
    Some((cloud, other))
}

/// All instances of a host are as they shall be, with all of their volumes.
async fn obey(session: &mut Session) {
    let obeyed = |intent: &InstanceIntent| match intent.desired() {
        Desired::Running | Desired::Unspecified => InstanceObservation {
            volumes: intent.volumes.iter().map(volume_as_wanted).collect(),
            ..seen(intent, Phase::Running)
        },
        Desired::Stopped => ended(intent, Cause::Requested),
        Desired::Terminated => seen(intent, Phase::Gone),
    };
    let observed = session.kept().instances.iter().map(obeyed).collect();
    session.observe(observed).await;
}

async fn running(cloud: &Cloud, host: &Host, session: &mut Session) -> String {
    let id = run_on(cloud, host).await;
    intent_when(session, &id, |_| true).await;
    obey(session).await;
    cloud.until(&id, "running").await;
    id
}

async fn stopped(cloud: &Cloud, session: &mut Session, id: &str) {
    stop(cloud, id).await;
    intent_when(session, id, |intent| intent.desired() == Desired::Stopped).await;
    obey(session).await;
    cloud.until(id, "stopped").await;
}

fn intent_of<'a>(intents: &'a Intents, id: &str) -> Option<&'a InstanceIntent> {
    intents.instances.iter().find(|intent| intent.instance_id == id)
}

/// An instance's intent, once it is as expected.
async fn intent_when(
    session: &mut Session,
    id: &str,
    expected: impl Fn(&InstanceIntent) -> bool,
) -> InstanceIntent {
    let find = |intents: &Intents| intent_of(intents, id).filter(|intent| expected(intent)).cloned();
    if let Some(known) = find(session.kept()) {
        return known;
    }
    let intents = session.intents_when(|intents| find(intents).is_some()).await;
    find(&intents).unwrap()
}

fn volume_of<'a>(intent: &'a InstanceIntent, id: &str) -> Option<&'a InstanceVolume> {
    intent.volumes.iter().find(|volume| volume.volume_id == id)
}

/// A volume that an instance ran with, and that is detached.
async fn written(cloud: &Cloud, session: &mut Session, instance: &str) -> String {
    let id = create(cloud).await;
    attach(cloud, &id, instance).await.unwrap();
    intent_when(session, instance, |intent| volume_of(intent, &id).is_some()).await;
    obey(session).await;
    until(cloud, &id, "in-use", "attached").await;
    detach(cloud, &id).await;
    let leaves = |intent: &InstanceIntent| volume_of(intent, &id).is_some_and(|it| it.detaching);
    intent_when(session, instance, leaves).await;
    obey(session).await;
    until(cloud, &id, "available", "").await;
    id
}

/// What a host is to store because a volume leaves it.
async fn leaving(session: &mut Session, volume: &str) -> SnapshotIntent {
    let find = |intents: &Intents| {
        intents
            .snapshots
            .iter()
            .find(|it| it.volume_id == volume)
            .cloned()
    };
    let intents = match find(session.kept()) {
        Some(known) => return known,
        None => session.intents_when(|intents| find(intents).is_some()).await,
    };
    find(&intents).unwrap()
}

async fn send(session: &Session, point: &SnapshotIntent, data: &[u8]) -> Result<(), Status> {
    let chunks = vec![(0, data.to_vec())];
    store(session.client.clone(), begin(&point.snapshot_id, GIB, ""), chunks).await
}

/// What a host is told of a volume that no instance has there.
async fn fate(session: &mut Session, volume: &str, fate: Fate) -> u64 {
    let find = |intents: &Intents| {
        let mut all = intents.volumes.iter();
        all.find(|it| it.volume_id == volume && it.desired() == fate)
            .map(|it| it.epoch)
    };
    if let Some(known) = find(session.kept()) {
        return known;
    }
    let intents = session.intents_when(|intents| find(intents).is_some()).await;
    find(&intents).unwrap()
}

/// The first bytes of a base as a host fetches it.
async fn fetch(session: &Session, base: &str) -> Result<Vec<u8>, Status> {
    let request = FetchImageRequest {
        image_id: base.into(),
        first_chunk: 0,
    };
    let mut stream = session.client.clone().fetch_image(request).await?.into_inner();
    let first = stream.message().await?.unwrap();
    Ok(first.data[..first.data.len().min(5)].to_vec())
}

impl Cloud {
    async fn killed(&mut self) {
        self.hearthd.kill();
        self.hearthd.spawn();
        self.client = self.hearthd.client().await;
    }
}

#[tokio::test]
async fn a_detached_volume_moves_to_the_host_of_its_next_instance() {
    let Some((mut cloud, other)) = cloud(&["--terminated-visible", "1"]).await else {
        return;
    };
    let (mut a, mut b) = (cloud.connect().await, other.connect(&cloud.hearthd).await);
    let first = running(&cloud, &cloud.host, &mut a).await;
    let second = running(&cloud, &other, &mut b).await;
    let id = written(&cloud, &mut a, &first).await;
    assert_eq!(attach(&cloud, &id, &second).await.unwrap(), "attaching");

    // The old host keeps it and stores it; the new one is not told of it, and has room for it.
    let point = leaving(&mut a, &id).await;
    assert!(point.snapshot_id.starts_with("move-"), "{point:?}");
    fate(&mut a, &id, Fate::Kept).await;
    let said = status(&cloud, &id).await;
    assert_eq!(said.volume_status.unwrap().status, "ok");
    let why = &said.events[0].description;
    assert!(why.contains(&cloud.host.id) && why.contains(&other.id), "{why}");
    let gib = |host: v1::Host| host.claimed.unwrap().disk_gib;
    assert_eq!(gib(told(&cloud, &cloud.host).await), 2);
    assert_eq!(gib(told(&cloud, &other).await), 2, "there is room for it");
    let seen = snapshots(&cloud).await;
    assert!(
        seen.iter().all(|it| it.volume_id != id),
        "nobody sees it: {seen:?}"
    );
    let refused = snapshot(&cloud, &id).await.unwrap_err();
    assert_eq!(code(&refused), "IncorrectState");
    assert!(refused.message().contains("is moving"), "{refused:?}");

    // Killed before it is stored: it is stored again. No other host can say that it is.
    cloud.killed().await;
    (a, b) = (cloud.connect().await, other.connect(&cloud.hearthd).await);
    assert_eq!(states(&cloud, &id).await, ("in-use".into(), "attaching".into()));
    let again = leaving(&mut a, &id).await;
    assert_eq!(again, point);
    assert_eq!(
        send(&b, &point, b"false").await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        fetch(&b, &point.snapshot_id).await.unwrap_err().code(),
        Code::NotFound
    );
    send(&a, &point, b"right").await.unwrap();
    // Killed when it is.
    cloud.killed().await;
    (a, b) = (cloud.connect().await, other.connect(&cloud.hearthd).await);
    let intent = intent_when(&mut b, &second, |intent| volume_of(intent, &id).is_some()).await;
    let came = volume_of(&intent, &id).unwrap().clone();
    assert_eq!(
        (came.image_id.as_str(), came.attachment_epoch, came.has_run),
        (point.snapshot_id.as_str(), 3, false)
    );
    assert_eq!(fetch(&b, &point.snapshot_id).await.unwrap(), b"right");
    assert_eq!(
        fetch(&a, &point.snapshot_id).await.unwrap_err().code(),
        Code::NotFound
    );
    obey(&mut b).await;
    until(&cloud, &id, "in-use", "attached").await;
    intent_when(&mut b, &second, |intent| {
        volume_of(intent, &id).is_some_and(|it| it.has_run)
    })
    .await;

    // The old host erases what it has, by the later epoch. Until it has said so, the volume does not come back.
    assert_eq!(fate(&mut a, &id, Fate::Erased).await, 3);
    assert_eq!(gib(told(&cloud, &cloud.host).await), 2, "it takes room still");
    detach(&cloud, &id).await;
    intent_when(&mut b, &second, |intent| {
        volume_of(intent, &id).is_some_and(|it| it.detaching)
    })
    .await;
    obey(&mut b).await;
    until(&cloud, &id, "available", "").await;
    let refused = attach(&cloud, &id, &first).await.unwrap_err();
    assert_eq!(code(&refused), "IncorrectState");
    assert!(refused.message().contains("has not erased yet"), "{refused:?}");
    a.erases = true;
    a.observe(Vec::new()).await;
    a.intents_when(|intents| intents.volumes.is_empty()).await;
    assert_eq!(gib(told(&cloud, &cloud.host).await), 1);
    let mut disks = cloud.hearthd.repository().snapshots().await.unwrap().len();
    assert_eq!(disks, 2, "the image's, and what the volume begins with");

    // And back. What it began with on the way is needed no more.
    attach(&cloud, &id, &first).await.unwrap();
    let back = leaving(&mut b, &id).await;
    let changes = vec![(1, b"later".to_vec())];
    let base = begin(&back.snapshot_id, GIB, &point.snapshot_id);
    store(b.client.clone(), base, changes).await.unwrap();
    let intent = intent_when(&mut a, &first, |intent| volume_of(intent, &id).is_some()).await;
    assert_eq!(volume_of(&intent, &id).unwrap().attachment_epoch, 5);
    assert_eq!(fetch(&a, &back.snapshot_id).await.unwrap(), b"right");
    b.erases = true;
    b.observe(Vec::new()).await;
    b.intents_when(|intents| intents.volumes.is_empty()).await;
    let begin = Instant::now();
    loop {
        disks = cloud.hearthd.repository().snapshots().await.unwrap().len();
        if disks == 2 {
            break;
        }
        assert!(begin.elapsed() < SOON, "{disks} disks");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_volume_of_a_host_that_is_away_moves_only_if_it_is_stored() {
    let Some((cloud, other)) = cloud(&[]).await else {
        return;
    };
    let (mut a, mut b) = (cloud.connect().await, other.connect(&cloud.hearthd).await);
    let first = running(&cloud, &cloud.host, &mut a).await;
    let second = running(&cloud, &other, &mut b).await;
    let (kept, lost) = (
        written(&cloud, &mut a, &first).await,
        written(&cloud, &mut a, &first).await,
    );
    // A snapshot of when nobody wrote to it is all of it.
    a.freezes = true;
    snapshot(&cloud, &kept).await.unwrap();
    let point = leaving(&mut a, &kept).await;
    send(&a, &point, b"right").await.unwrap();
    drop(a);
    until_away(&cloud, &cloud.host).await;
    let refused = attach(&cloud, &lost, &second).await.unwrap_err();
    assert_eq!(code(&refused), "UnsupportedOperation");
    assert!(
        refused.message().contains("not connected") && refused.message().contains("stored nowhere else"),
        "{refused:?}"
    );
    assert_eq!(states(&cloud, &lost).await.0, "available");
    attach(&cloud, &kept, &second).await.unwrap();
    let intent = intent_when(&mut b, &second, |intent| volume_of(intent, &kept).is_some()).await;
    let came = volume_of(&intent, &kept).unwrap();
    assert_eq!(fetch(&b, &came.image_id).await.unwrap(), b"right");
    let epoch = came.attachment_epoch;
    obey(&mut b).await;
    until(&cloud, &kept, "in-use", "attached").await;

    // The old host comes back with its copy.
    let mut a = cloud.connect().await;
    assert_eq!(fate(&mut a, &kept, Fate::Erased).await, epoch);
    assert_eq!(
        fetch(&a, &came.image_id).await.unwrap_err().code(),
        Code::NotFound
    );
    // A claim of something else frees nothing.
    a.claim_erased(vec![lost.clone()]).await;
    a.erases = true;
    a.observe(Vec::new()).await;
    a.intents_when(|intents| !intents.volumes.iter().any(|it| it.volume_id == kept))
        .await;
    assert_eq!(states(&cloud, &kept).await, ("in-use".into(), "attached".into()));
    assert_eq!(states(&cloud, &lost).await.0, "available");
    // What is written now is not in the snapshot.
    drop(b);
    until_away(&cloud, &other).await;
    attach(&cloud, &lost, &first).await.unwrap();
}

#[tokio::test]
async fn a_move_that_does_not_go_on_ends_and_the_volume_stays() {
    let Some((cloud, other)) = cloud(&["--ending-seconds", "3"]).await else {
        return;
    };
    let (mut a, mut b) = (cloud.connect().await, other.connect(&cloud.hearthd).await);
    let first = running(&cloud, &cloud.host, &mut a).await;
    let second = running(&cloud, &other, &mut b).await;
    let id = written(&cloud, &mut a, &first).await;
    // By the user.
    attach(&cloud, &id, &second).await.unwrap();
    let point = leaving(&mut a, &id).await;
    assert_eq!(detach(&cloud, &id).await, "detached");
    assert_eq!(states(&cloud, &id).await, ("available".into(), String::new()));
    a.intents_when(|intents| intents.snapshots.is_empty()).await;
    assert_eq!(
        send(&a, &point, b"late!").await.unwrap_err().code(),
        Code::NotFound
    );
    // By the clock.
    attach(&cloud, &id, &second).await.unwrap();
    until(&cloud, &id, "available", "").await;
    // By the host.
    attach(&cloud, &id, &second).await.unwrap();
    let point = leaving(&mut a, &id).await;
    a.observe_snapshot(&point.snapshot_id, Said::Failed, "no space left on device")
        .await;
    until(&cloud, &id, "available", "").await;
    // It is where it was.
    attach(&cloud, &id, &first).await.unwrap();
    let intent = intent_when(&mut a, &first, |intent| {
        volume_of(intent, &id).is_some_and(|it| !it.detaching)
    })
    .await;
    let wanted = volume_of(&intent, &id).unwrap();
    assert_eq!((wanted.image_id.as_str(), wanted.has_run), ("", true));
    obey(&mut a).await;
    until(&cloud, &id, "in-use", "attached").await;
    assert_eq!(intent_of(b.kept(), &second).unwrap().volumes.len(), 1);
}

#[tokio::test]
async fn a_stopped_instance_starts_on_another_host_when_its_own_is_drained() {
    let Some((mut cloud, other)) = cloud(&["--ending-seconds", "4"]).await else {
        return;
    };
    let (mut a, mut b) = (cloud.connect().await, other.connect(&cloud.hearthd).await);
    let id = running(&cloud, &cloud.host, &mut a).await;
    let root = intent_of(a.kept(), &id).unwrap().volumes[0].volume_id.clone();
    stopped(&cloud, &mut a, &id).await;
    drain(&cloud, &cloud.host).await;
    start(&cloud, &id).await.unwrap();
    let pending = cloud.instance(&id).await;
    assert_eq!(pending.state.as_ref().unwrap().name, "pending");
    let why = &pending.state_reason.unwrap().message;
    assert!(
        why.contains("volumes are moving") && why.contains(&other.id),
        "{why}"
    );
    assert_eq!(told(&cloud, &cloud.host).await.drain_state, "draining");

    // The old host forgets the instance, and keeps and stores its volume.
    let left = intent_when(&mut a, &id, |intent| intent.desired() == Desired::Terminated).await;
    assert!(
        left.volumes.is_empty() && left.network_interfaces.is_empty(),
        "{left:?}"
    );
    fate(&mut a, &root, Fate::Kept).await;
    leaving(&mut a, &root).await;
    assert!(intent_of(b.kept(), &id).is_none());
    // Whatever it says of the instance now is not believed.
    a.observe(vec![seen(&left, Phase::Running)]).await;
    // It does not store it in time: the start fails, and the instance is as before.
    intent_when(&mut b, &id, |intent| intent.desired() == Desired::Stopped).await;
    obey(&mut b).await;
    let over = cloud.until(&id, "stopped").await;
    let why = over.state_reason.unwrap().message;
    assert!(why.contains(&root) && why.contains("was not moved"), "{why}");

    // Again; hearthd is killed meanwhile, and when the volume has come.
    start(&cloud, &id).await.unwrap();
    cloud.killed().await;
    (a, b) = (cloud.connect().await, other.connect(&cloud.hearthd).await);
    let point = leaving(&mut a, &root).await;
    assert!(
        intent_of(b.kept(), &id).is_none(),
        "it is not told before its volumes are there"
    );
    send(&a, &point, b"right").await.unwrap();
    cloud.killed().await;
    (a, b) = (cloud.connect().await, other.connect(&cloud.hearthd).await);
    let intent = intent_when(&mut b, &id, |intent| intent.desired() == Desired::Running).await;
    let came = &intent.volumes[0];
    assert_eq!(
        (came.image_id.as_str(), came.has_run, intent.run),
        (point.snapshot_id.as_str(), false, 3)
    );
    obey(&mut b).await;
    let runs = cloud.until(&id, "running").await;
    assert_eq!(runs.placement.unwrap().host_id, other.id);
    assert_eq!(runs.state_reason.map(|why| why.message).unwrap_or_default(), "");
    // The old host is rid of it.
    intent_when(&mut a, &id, |intent| intent.desired() == Desired::Terminated).await;
    fate(&mut a, &root, Fate::Erased).await;
    a.erases = true;
    obey(&mut a).await;
    a.intents_when(|intents| intents.instances.is_empty() && intents.volumes.is_empty())
        .await;
    assert_eq!(told(&cloud, &cloud.host).await.drain_state, "drained");
    terminate(&cloud, &id).await;
    intent_when(&mut b, &id, |intent| intent.desired() == Desired::Terminated).await;
    obey(&mut b).await;
    cloud.until(&id, "terminated").await;
    b.intents_when(|intents| intents.instances.is_empty()).await;
}

#[tokio::test]
async fn an_instance_that_is_terminated_on_its_way_leaves_nothing_behind() {
    let Some((cloud, other)) = cloud(&[]).await else {
        return;
    };
    let (mut a, mut b) = (cloud.connect().await, other.connect(&cloud.hearthd).await);
    let id = running(&cloud, &cloud.host, &mut a).await;
    let root = intent_of(a.kept(), &id).unwrap().volumes[0].volume_id.clone();
    stopped(&cloud, &mut a, &id).await;
    drain(&cloud, &cloud.host).await;
    start(&cloud, &id).await.unwrap();
    leaving(&mut a, &root).await;
    terminate(&cloud, &id).await;
    intent_when(&mut b, &id, |intent| intent.desired() == Desired::Terminated).await;
    obey(&mut b).await;
    cloud.until(&id, "terminated").await;
    assert_eq!(
        states(&cloud, &root).await.0,
        "deleting",
        "it lies on the old host"
    );
    fate(&mut a, &root, Fate::Erased).await;
    a.erases = true;
    obey(&mut a).await;
    a.intents_when(|intents| {
        intents.instances.is_empty() && intents.volumes.is_empty() && intents.snapshots.is_empty()
    })
    .await;
}

#[tokio::test]
async fn what_is_stored_outlives_a_forgotten_host() {
    let Some((cloud, other)) = cloud(&[]).await else {
        return;
    };
    let (mut a, mut b) = (cloud.connect().await, other.connect(&cloud.hearthd).await);
    let (stays, goes) = (
        running(&cloud, &cloud.host, &mut a).await,
        running(&cloud, &cloud.host, &mut a).await,
    );
    for id in [&stays, &goes] {
        stopped(&cloud, &mut a, id).await;
    }
    let root = intent_of(a.kept(), &stays).unwrap().volumes[0].volume_id.clone();
    a.freezes = true;
    snapshot(&cloud, &root).await.unwrap();
    let point = leaving(&mut a, &root).await;
    send(&a, &point, b"right").await.unwrap();
    drop(a);
    until_away(&cloud, &cloud.host).await;
    let refused = start(&cloud, &goes).await.unwrap_err();
    assert_eq!(code(&refused), "InsufficientInstanceCapacity");
    assert!(refused.message().contains("stored nowhere else"), "{refused:?}");
    let forget = v1::ForgetHostRequest {
        host_id: cloud.host.id.clone(),
        force: true,
        dry_run: false,
    };
    let answer = cloud.client.clone().hosts.forget_host(forget).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(answer.terminated_instance_ids, std::slice::from_ref(&goes));
    assert!(!answer.abandoned_volume_ids.contains(&root), "{answer:?}");
    assert_eq!(cloud.instance(&stays).await.state.unwrap().name, "stopped");
    start(&cloud, &stays).await.unwrap();
    let intent = intent_when(&mut b, &stays, |intent| intent.desired() == Desired::Running).await;
    assert_eq!(fetch(&b, &intent.volumes[0].image_id).await.unwrap(), b"right");
    assert!(!intent.volumes[0].has_run);
    obey(&mut b).await;
    cloud.until(&stays, "running").await;
}

#[tokio::test]
async fn a_stopped_instance_of_a_forgotten_host_can_be_terminated() {
    let Some((cloud, _other)) = cloud(&[]).await else {
        return;
    };
    let mut a = cloud.connect().await;
    let id = running(&cloud, &cloud.host, &mut a).await;
    stopped(&cloud, &mut a, &id).await;
    let root = intent_of(a.kept(), &id).unwrap().volumes[0].volume_id.clone();
    a.freezes = true;
    snapshot(&cloud, &root).await.unwrap();
    let point = leaving(&mut a, &root).await;
    send(&a, &point, b"right").await.unwrap();
    let forget = v1::ForgetHostRequest {
        host_id: cloud.host.id.clone(),
        force: true,
        dry_run: false,
    };
    cloud.client.clone().hosts.forget_host(forget).await.unwrap();
    terminate(&cloud, &id).await;
    assert_eq!(cloud.instance(&id).await.state.unwrap().name, "terminated");
}
