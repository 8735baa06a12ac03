//! Snapshots, as hosts store them: what is pending, what is completed, what becomes of it when something goes away, and when
//! hearthd is killed in between.

use std::time::{Duration, Instant};

use hearth_api::agent::instance_intent::Desired as Wanted;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;
use hearth_api::agent::snapshot_observation::State as Said;
use hearth_api::agent::volume_intent::Desired;
use hearth_api::agent::{FetchImageRequest, InstanceObservation, Intents, SnapshotIntent};
use hearth_api::v1;
use hearth_repository::CHUNK;
use tonic::{Code, Status};

use crate::support::{Cloud, Host, SOON, Session, ZONE, begin, code, ended, parts, seen, store};

pub async fn create_volume(cloud: &Cloud, gib: i32, snapshot: &str) -> Result<v1::Volume, Status> {
    let request = v1::CreateVolumeRequest {
        availability_zone: ZONE.into(),
        size: (gib > 0).then_some(gib),
        snapshot_id: snapshot.into(),
        ..Default::default()
    };
    let made = cloud.client.clone().volumes.create_volume(request).await?;
    Ok(made.into_inner())
}

pub async fn attach(cloud: &Cloud, volume: &str, instance: &str) {
    let request = v1::AttachVolumeRequest {
        volume_id: volume.into(),
        instance_id: instance.into(),
        device: "/dev/sdf".into(),
        dry_run: false,
    };
    cloud.client.clone().volumes.attach_volume(request).await.unwrap();
}

async fn create(cloud: &Cloud, volume: &str) -> Result<v1::Snapshot, Status> {
    let request = v1::CreateSnapshotRequest {
        volume_id: volume.into(),
        ..Default::default()
    };
    let made = cloud.client.clone().snapshots.create_snapshot(request).await?;
    Ok(made.into_inner())
}

pub async fn delete(cloud: &Cloud, id: &str) -> Result<(), Status> {
    let request = v1::DeleteSnapshotRequest {
        snapshot_id: id.into(),
        dry_run: false,
    };
    cloud
        .client
        .clone()
        .snapshots
        .delete_snapshot(request)
        .await
        .map(|_| ())
}

async fn delete_volume(cloud: &Cloud, id: &str) {
    let request = v1::DeleteVolumeRequest {
        volume_id: id.into(),
        dry_run: false,
    };
    cloud.client.clone().volumes.delete_volume(request).await.unwrap();
}

async fn all(cloud: &Cloud) -> Vec<v1::Snapshot> {
    let request = v1::DescribeSnapshotsRequest::default();
    let told = cloud.client.clone().snapshots.describe_snapshots(request).await;
    told.unwrap().into_inner().snapshots
}

async fn snapshot(cloud: &Cloud, id: &str) -> v1::Snapshot {
    let all = all(cloud).await;
    all.into_iter().find(|told| told.snapshot_id == id).unwrap()
}

pub async fn until(cloud: &Cloud, id: &str, expected: impl Fn(&v1::Snapshot) -> bool) -> v1::Snapshot {
    let begin = Instant::now();
    loop {
        let told = snapshot(cloud, id).await;
        if expected(&told) {
            return told;
        }
        assert!(begin.elapsed() < SOON, "{told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An instance that runs with a volume, as its host says of it.
pub async fn running_with(cloud: &Cloud, session: &mut Session) -> (String, String) {
    let launched = cloud.run(cloud.request(1)).await.unwrap().instances.remove(0);
    let instance = launched.instance_id;
    session
        .intents_when(|intents| !intents.instances.is_empty())
        .await;
    let volume = create_volume(cloud, 1, "").await.unwrap().volume_id;
    say_running(session).await;
    cloud.until(&instance, "running").await;
    attach(cloud, &volume, &instance).await;
    session
        .intents_when(|intents| intents.instances[0].volumes.len() == 2)
        .await;
    say_running(session).await;
    let attached = v1::DescribeVolumesRequest {
        filters: vec![v1::Filter {
            name: "attachment.status".into(),
            values: vec!["attached".into()],
        }],
        volume_ids: vec![volume.clone()],
        ..Default::default()
    };
    let begin = Instant::now();
    loop {
        let told = cloud
            .client
            .clone()
            .volumes
            .describe_volumes(attached.clone())
            .await;
        if !told.unwrap().into_inner().volumes.is_empty() {
            return (instance, volume);
        }
        assert!(begin.elapsed() < SOON, "{volume} is not attached");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All instances run with all of their volumes.
pub async fn say_running(session: &mut Session) {
    let observations: Vec<InstanceObservation> = session
        .kept()
        .instances
        .iter()
        .map(|intent| seen(intent, Phase::Running))
        .collect();
    session.observe(observations).await;
}

/// Asks for a snapshot, and answers as its host does when its point in time has come.
pub async fn frozen(cloud: &Cloud, session: &mut Session, volume: &str) -> (String, SnapshotIntent) {
    let call = async { create(cloud, volume).await.unwrap() };
    let host = async {
        let intents = session
            .intents_when(|intents| intents.snapshots.iter().any(|wanted| wanted.volume_id == volume))
            .await;
        let wanted = intents
            .snapshots
            .into_iter()
            .find(|wanted| wanted.volume_id == volume);
        let wanted = wanted.unwrap();
        session
            .observe_snapshot(&wanted.snapshot_id, Said::Frozen, "")
            .await;
        wanted
    };
    let begin = Instant::now();
    let (told, wanted) = tokio::join!(call, host);
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "the call has waited for nothing"
    );
    assert_eq!(
        (told.state.as_str(), &told.snapshot_id),
        ("pending", &wanted.snapshot_id)
    );
    (told.snapshot_id, wanted)
}

fn no_snapshots(intents: &Intents) -> bool {
    intents.snapshots.is_empty()
}

/// The disks in the repository, each as its bytes up to some length.
async fn disks(cloud: &Cloud, chunks: u64) -> Vec<Vec<u8>> {
    let repository = cloud.hearthd.repository();
    let mut disks = Vec::new();
    for name in repository.snapshots().await.unwrap() {
        let reader = repository.read(&name, None).await.unwrap();
        let mut disk = Vec::new();
        for index in 0..chunks {
            let chunk = reader.chunk(index).await.unwrap();
            disk.extend(chunk.map_or_else(|| vec![0; CHUNK], |chunk| chunk.to_vec()));
        }
        disks.push(disk);
    }
    disks
}

/// A disk of these chunks, each of one byte.
fn disk(of: &[u8]) -> Vec<u8> {
    of.iter().flat_map(|byte| vec![*byte; CHUNK]).collect()
}

fn chunk(index: u64, byte: u8) -> (u64, Vec<u8>) {
    (index, vec![byte; CHUNK])
}

async fn restart(cloud: &mut Cloud) -> Session {
    cloud.hearthd.kill();
    cloud.hearthd.spawn();
    cloud.client = cloud.hearthd.client().await;
    cloud.connect().await
}

const GIB: u64 = 1 << 30;

#[tokio::test]
async fn a_snapshot_is_stored_again_until_it_is_completed() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    let mut session = cloud.connect().await;
    let (_, volume) = running_with(&cloud, &mut session).await;
    let (first, wanted) = frozen(&cloud, &mut session, &volume).await;
    assert_eq!((wanted.set_id.as_str(), wanted.set_size), ("", 0));
    let refused = create(&cloud, &volume).await.unwrap_err();
    assert_eq!(code(&refused), "ConcurrentSnapshotLimitExceeded");
    assert!(refused.message().contains(&first), "{refused:?}");

    // What is not as it was said to be, and what breaks off, leaves it pending.
    let client = || session.client.clone();
    for (size, chunks) in [
        (0, vec![chunk(0, 1)]),
        (GIB + 1, vec![chunk(0, 1)]),
        (GIB, vec![chunk(GIB / CHUNK as u64, 1)]),
        (GIB, vec![chunk(1, 1), chunk(0, 1)]),
    ] {
        let mut given = parts(begin(&first, size, ""), Vec::new());
        given.extend(parts(begin("", 0, ""), chunks.clone()).into_iter().skip(1));
        if let Some(hearth_api::agent::snapshot_part::Part::Begin(begin)) = &mut given[0].part {
            begin.chunks = chunks.len() as u64;
        }
        let refused = client()
            .store_snapshot(tokio_stream::iter(given))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{size} {}", chunks[0].0);
    }
    let mut half = parts(
        begin(&first, GIB, ""),
        vec![chunk(0, 1), chunk(1, 2), chunk(3, 3)],
    );
    if let Some(hearth_api::agent::snapshot_part::Part::Begin(begin)) = &mut half[0].part {
        begin.chunks = 6;
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    for part in half {
        sender.send(part).await.unwrap();
    }
    let mut under_way = session.client.clone();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let storing = tokio::spawn(async move { under_way.store_snapshot(stream).await });
    until(&cloud, &first, |told| told.progress == "50%").await;
    assert_eq!(disks(&cloud, 1).await.len(), 1, "the image's");
    let mut session = restart(&mut cloud).await;
    assert!(storing.await.unwrap().is_err());
    drop(sender);
    assert_eq!(snapshot(&cloud, &first).await.state, "pending");
    session.intents_when(|intents| intents.snapshots.len() == 1).await;
    let whole = vec![chunk(0, 1), chunk(1, 2), chunk(3, 3)];
    store(session.client.clone(), begin(&first, GIB, ""), whole)
        .await
        .unwrap();
    session.intents_when(no_snapshots).await;
    let told = snapshot(&cloud, &first).await;
    assert_eq!(
        (told.state.as_str(), told.progress.as_str()),
        ("completed", "100%")
    );
    assert!(told.completion_time.is_some() && told.volume_size == 1);
    assert!(disks(&cloud, 4).await.contains(&disk(&[1, 2, 0, 3])));
    let again = store(session.client.clone(), begin(&first, GIB, ""), Vec::new()).await;
    assert_eq!(again.unwrap_err().code(), Code::NotFound);

    // The next one is told as changes.
    let (second, _) = frozen(&cloud, &mut session, &volume).await;
    let stored = cloud.hearthd.stored("chunks");
    let changes = vec![chunk(1, 0), (3, Vec::new()), chunk(4, 5)];
    store(session.client.clone(), begin(&second, GIB, &first), changes)
        .await
        .unwrap();
    assert_eq!(cloud.hearthd.stored("chunks"), stored + 1, "zeros are not stored");
    let found = disks(&cloud, 5).await;
    assert!(found.contains(&disk(&[1, 2, 0, 3, 0])) && found.contains(&disk(&[1, 0, 0, 0, 5])));
    session.intents_when(no_snapshots).await;

    // Everything is there after a kill.
    let _session = restart(&mut cloud).await;
    assert!(all(&cloud).await.iter().all(|told| told.state == "completed"));
    assert_eq!(disks(&cloud, 5).await.len(), 3);
}

#[tokio::test]
async fn a_host_stores_its_own_snapshots_from_its_own_bases() {
    let Some(cloud) = Cloud::with(&["--terminated-visible", "1"]).await else {
        return;
    };
    let other = Host::enroll(&cloud.hearthd).await;
    let mut session = cloud.connect().await;
    let (_, volume) = running_with(&cloud, &mut session).await;
    let (elsewhere, _) = {
        let root = session.kept().instances[0].volumes[0].volume_id.clone();
        frozen(&cloud, &mut session, &root).await
    };
    let stranger = cloud.hearthd.control_plane(Some(other.identity())).await;
    let refused = store(stranger, begin(&elsewhere, GIB, ""), vec![chunk(0, 1)]).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    // The root volume's base is the image.
    store(
        session.client.clone(),
        begin(&elsewhere, GIB, &cloud.image_id),
        vec![chunk(100, 9)],
    )
    .await
    .unwrap();
    let (id, _) = frozen(&cloud, &mut session, &volume).await;
    for base in [
        elsewhere.as_str(),
        cloud.image_id.as_str(),
        "snap-0123456789abcdef0",
        &id,
        "../x",
    ] {
        let refused = store(session.client.clone(), begin(&id, GIB, base), vec![chunk(0, 1)]).await;
        assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition, "{base}");
    }
    store(session.client.clone(), begin(&id, GIB, ""), vec![chunk(0, 1)])
        .await
        .unwrap();
    delete(&cloud, &id).await.unwrap();
    let (next, _) = frozen(&cloud, &mut session, &volume).await;
    // A snapshot that was deleted is no base once it has gone.
    let begun = Instant::now();
    loop {
        let refused = store(
            session.client.clone(),
            begin(&next, GIB, &id),
            vec![chunk(1, 1), chunk(0, 7)],
        )
        .await;
        let status = refused.unwrap_err();
        if status.code() == Code::FailedPrecondition {
            break;
        }
        assert!(
            status.code() == Code::InvalidArgument && begun.elapsed() < SOON,
            "{status:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    store(session.client.clone(), begin(&next, GIB, ""), vec![chunk(0, 2)])
        .await
        .unwrap();
    assert_eq!(
        code(&delete(&cloud, &id).await.unwrap_err()),
        "InvalidSnapshot.NotFound"
    );
    let found = disks(&cloud, 1).await;
    assert!(
        found.contains(&disk(&[2])) && !found.contains(&disk(&[1])),
        "it is removed"
    );
}

#[tokio::test]
async fn what_cannot_be_stored_is_in_error_and_says_why() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let (_, volume) = running_with(&cloud, &mut session).await;
    let (id, _) = frozen(&cloud, &mut session, &volume).await;
    session
        .observe_snapshot(&id, Said::Failed, "the host has restarted")
        .await;
    session.intents_when(no_snapshots).await;
    let told = snapshot(&cloud, &id).await;
    assert_eq!(
        (told.state.as_str(), told.state_message.as_str()),
        ("error", "the host has restarted")
    );
    assert_eq!(
        code(&create_volume(&cloud, 1, &id).await.unwrap_err()),
        "IncorrectState"
    );
    let (given_up, _) = frozen(&cloud, &mut session, &volume).await;
    let refused = create_volume(&cloud, 1, &given_up).await.unwrap_err();
    assert_eq!(code(&refused), "IncorrectState");
    delete(&cloud, &given_up).await.unwrap();
    session.intents_when(no_snapshots).await;
    let refused = store(session.client.clone(), begin(&given_up, GIB, ""), Vec::new()).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);

    let (lost, _) = frozen(&cloud, &mut session, &volume).await;
    let request = v1::ForgetHostRequest {
        host_id: cloud.host.id.clone(),
        force: true,
        dry_run: false,
    };
    cloud.client.clone().hosts.forget_host(request).await.unwrap();
    let told = snapshot(&cloud, &lost).await;
    assert_eq!(told.state, "error");
    assert!(told.state_message.contains("forgotten"), "{told:?}");
}

#[tokio::test]
async fn volumes_wait_for_their_snapshots_before_they_go() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let (instance, volume) = running_with(&cloud, &mut session).await;
    let root = session.kept().instances[0].volumes[0].volume_id.clone();
    assert!(session.kept().instances[0].volumes[0].delete_on_termination);
    let (of_root, _) = frozen(&cloud, &mut session, &root).await;
    let (of_data, _) = frozen(&cloud, &mut session, &volume).await;
    let keeps = |intents: &Intents| {
        intents.instances[0]
            .volumes
            .iter()
            .all(|volume| !volume.delete_on_termination)
    };
    assert!(keeps(session.kept()), "{:?}", session.kept().instances[0].volumes);
    let request = v1::TerminateInstancesRequest {
        instance_ids: vec![instance.clone()],
        ..Default::default()
    };
    cloud
        .client
        .clone()
        .instances
        .terminate_instances(request)
        .await
        .unwrap();
    let intents = session
        .intents_when(|intents| intents.instances[0].desired() == Wanted::Terminated)
        .await;
    session
        .observe(vec![seen(&intents.instances[0], Phase::Gone)])
        .await;
    let intents = session.intents_when(|intents| intents.instances.is_empty()).await;
    let desired = |intents: &Intents, id: &str| {
        let volume = intents.volumes.iter().find(|volume| volume.volume_id == id);
        volume.map(|volume| volume.desired())
    };
    assert_eq!(desired(&intents, &root), Some(Desired::Kept));
    delete_volume(&cloud, &volume).await;
    let refused = create(&cloud, &volume).await.unwrap_err();
    assert_eq!(code(&refused), "IncorrectState");
    assert_eq!(desired(session.kept(), &volume), Some(Desired::Kept));
    store(
        session.client.clone(),
        begin(&of_data, GIB, ""),
        vec![chunk(0, 1)],
    )
    .await
    .unwrap();
    let erased = |id: &str| {
        let id = id.to_owned();
        move |intents: &Intents| desired(intents, &id) == Some(Desired::Erased)
    };
    let intents = session.intents_when(erased(&volume)).await;
    assert_eq!(desired(&intents, &root), Some(Desired::Kept));
    // Given up, it is waited for no more.
    delete(&cloud, &of_root).await.unwrap();
    session.intents_when(erased(&root)).await;
    session.erases = true;
    session.observe(Vec::new()).await;
    session.intents_when(|intents| intents.volumes.is_empty()).await;
    assert_eq!(snapshot(&cloud, &of_data).await.state, "completed");
}

#[tokio::test]
async fn the_volumes_of_an_instance_have_one_point_in_time() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let (instance, volume) = running_with(&cloud, &mut session).await;
    let request = |specification| v1::CreateSnapshotsRequest {
        instance_specification: Some(v1::InstanceSpecification {
            instance_id: instance.clone(),
            ..specification
        }),
        ..Default::default()
    };
    let call = async {
        let mut client = cloud.client.clone().snapshots;
        let made = client.create_snapshots(request(Default::default())).await;
        made.unwrap().into_inner().snapshots
    };
    let host = async {
        let intents = session.intents_when(|intents| intents.snapshots.len() == 2).await;
        session.freezes = true;
        session.observe(Vec::new()).await;
        intents.snapshots
    };
    let (made, wanted) = tokio::join!(call, host);
    assert!(made.iter().all(|told| told.state == "pending"));
    assert_eq!(made[1].volume_id, volume, "the root volume is the first");
    assert!(!wanted[0].set_id.is_empty() && wanted[0].set_id == wanted[1].set_id);
    assert!(wanted.iter().all(|wanted| wanted.set_size == 2));
    // Of what is given up nobody waits for the rest.
    delete(&cloud, &made[0].snapshot_id).await.unwrap();
    let intents = session.intents_when(|intents| intents.snapshots.len() == 1).await;
    assert_eq!(intents.snapshots[0].set_size, 1);
    store(
        session.client.clone(),
        begin(&made[1].snapshot_id, GIB, ""),
        Vec::new(),
    )
    .await
    .unwrap();
    session.intents_when(no_snapshots).await;
    let alone = v1::InstanceSpecification {
        exclude_boot_volume: true,
        ..Default::default()
    };
    session.freezes = true;
    let (one, intents) = tokio::join!(
        async {
            cloud
                .client
                .clone()
                .snapshots
                .create_snapshots(request(alone))
                .await
        },
        async { session.intents_when(|intents| intents.snapshots.len() == 1).await },
    );
    assert_eq!(one.unwrap().into_inner().snapshots[0].volume_id, volume);
    assert_eq!(intents.snapshots[0].set_id, "", "it is alone");
}

#[tokio::test]
async fn a_volume_of_a_snapshot_begins_with_it_also_when_that_is_deleted() {
    let Some(cloud) = Cloud::with(&["--terminated-visible", "1"]).await else {
        return;
    };
    let mut session = cloud.connect().await;
    let (instance, volume) = running_with(&cloud, &mut session).await;
    let (id, _) = frozen(&cloud, &mut session, &volume).await;
    store(
        session.client.clone(),
        begin(&id, GIB, ""),
        vec![chunk(0, 1), chunk(2, 3)],
    )
    .await
    .unwrap();
    let refused = create_volume(&cloud, 0, "snap-0123456789abcdef0")
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "InvalidSnapshot.NotFound");
    let restored = create_volume(&cloud, 0, &id).await.unwrap();
    assert_eq!((restored.size, restored.snapshot_id.as_str()), (1, id.as_str()));
    let larger = create_volume(&cloud, 3, &id).await.unwrap();

    // A snapshot of what lies nowhere yet is what it begins with.
    let copy = create(&cloud, &larger.volume_id).await.unwrap();
    assert_eq!((copy.state.as_str(), copy.volume_size), ("completed", 3));
    let blank = create_volume(&cloud, 2, "").await.unwrap().volume_id;
    let empty = create(&cloud, &blank).await.unwrap();
    assert_eq!(
        (empty.state.as_str(), empty.progress.as_str()),
        ("completed", "100%")
    );
    let refused = create_volume(&cloud, 1, &empty.snapshot_id).await.unwrap_err();
    assert_eq!(code(&refused), "InvalidParameterValue");

    // Each is attached to an instance of its own.
    let of_copy = create_volume(&cloud, 0, &copy.snapshot_id).await.unwrap();
    let of_empty = create_volume(&cloud, 0, &empty.snapshot_id).await.unwrap();
    let request = v1::DetachVolumeRequest {
        volume_id: volume.clone(),
        force: true,
        ..Default::default()
    };
    cloud.client.clone().volumes.detach_volume(request).await.unwrap();
    session
        .intents_when(|intents| intents.instances[0].volumes.iter().any(|volume| volume.detaching))
        .await;
    say_running(&mut session).await;
    session
        .intents_when(|intents| intents.instances[0].volumes.len() == 1)
        .await;
    for (restored, base, size) in [
        (&restored, Some((&id, GIB)), 1),
        (&of_copy, Some((&copy.snapshot_id, GIB)), 3),
        (&of_empty, None, 2),
    ] {
        attach(&cloud, &restored.volume_id, &instance).await;
        let intents = session
            .intents_when(|intents| intents.instances[0].volumes.len() == 2)
            .await;
        let wanted = intents.instances[0].volumes[1].clone();
        assert_eq!((wanted.size_bytes, wanted.has_run), (size * GIB, false));
        let (base_id, base_size) = base.map_or(("", 0), |(id, size)| (id.as_str(), size));
        assert_eq!(
            (wanted.image_id.as_str(), wanted.image_size_bytes),
            (base_id, base_size)
        );
        if base.is_some() {
            delete(&cloud, base_id).await.unwrap();
            tokio::time::sleep(Duration::from_millis(600)).await;
            let fetch = FetchImageRequest {
                image_id: base_id.into(),
                first_chunk: 0,
            };
            let mut stream = session
                .client
                .clone()
                .fetch_image(fetch)
                .await
                .unwrap()
                .into_inner();
            let mut came = Vec::new();
            let mut end = None;
            while let Some(chunk) = stream.message().await.unwrap() {
                if chunk.data.is_empty() {
                    end = Some(chunk.offset);
                    continue;
                }
                assert!(
                    end.is_none()
                        && chunk.data.len() == CHUNK
                        && chunk.data.iter().all(|byte| *byte == chunk.data[0])
                );
                came.push((chunk.offset / CHUNK as u64, chunk.data[0]));
            }
            assert_eq!(came, [(0, 1), (2, 3)]);
            assert_eq!(end, Some(base_size), "it was all");
        }
        let request = v1::DetachVolumeRequest {
            volume_id: restored.volume_id.clone(),
            ..Default::default()
        };
        say_running(&mut session).await;
        cloud.client.clone().volumes.detach_volume(request).await.unwrap();
        session
            .intents_when(|intents| intents.instances[0].volumes.iter().any(|volume| volume.detaching))
            .await;
        say_running(&mut session).await;
        session
            .intents_when(|intents| intents.instances[0].volumes.len() == 1)
            .await;
    }
    // The contents go with the last that needs them.
    session.erases = true;
    for volume in [&restored, &larger, &of_copy] {
        assert_eq!(disks(&cloud, 1).await.len(), 2, "the image's, and this");
        delete_volume(&cloud, &volume.volume_id).await;
        session.observe(Vec::new()).await;
    }
    let begin = Instant::now();
    while disks(&cloud, 1).await.len() > 1 {
        session.observe(Vec::new()).await;
        assert!(begin.elapsed() < SOON);
        let _ = tokio::time::timeout(Duration::from_millis(200), session.intents()).await;
    }
    let left = all(&cloud).await;
    assert!(
        left.len() == 2 && left.iter().any(|told| told.snapshot_id == empty.snapshot_id),
        "{left:?}"
    );
}

async fn create_image(cloud: &Cloud, instance: &str, name: &str) -> String {
    let request = v1::CreateImageRequest {
        instance_id: instance.into(),
        name: name.into(),
        no_reboot: true,
        ..Default::default()
    };
    let made = cloud.client.clone().images.create_image(request).await;
    made.unwrap().into_inner().image_id
}

async fn image(cloud: &Cloud, id: &str) -> v1::Image {
    let request = v1::DescribeImagesRequest {
        image_ids: vec![id.into()],
        ..Default::default()
    };
    let told = cloud.client.clone().images.describe_images(request).await;
    told.unwrap().into_inner().images.remove(0)
}

#[tokio::test]
async fn an_image_is_pending_until_its_snapshots_are_completed() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    let mut session = cloud.connect().await;
    session.freezes = true;
    let (instance, _) = running_with(&cloud, &mut session).await;
    let mut made = Vec::new();
    for (name, fails) in [("good", false), ("bad", true), ("gone", false)] {
        let (id, wanted) = tokio::join!(create_image(&cloud, &instance, name), async {
            let intents = session.intents_when(|intents| intents.snapshots.len() == 2).await;
            session.observe(Vec::new()).await;
            intents.snapshots
        });
        assert_eq!((wanted[0].set_id.as_str(), wanted[0].set_size), (id.as_str(), 2));
        let told = image(&cloud, &id).await;
        assert_eq!(
            (told.state.as_str(), told.block_device_mappings.len()),
            ("pending", 2)
        );
        let launch = v1::RunInstancesRequest {
            image_id: id.clone(),
            ..cloud.request(1)
        };
        assert_eq!(
            code(&cloud.run(launch.clone()).await.unwrap_err()),
            "InvalidAMIID.Unavailable"
        );
        let refused = delete(&cloud, &wanted[0].snapshot_id).await.unwrap_err();
        assert_eq!(code(&refused), "InvalidSnapshot.InUse");
        if name == "gone" {
            let request = v1::DeregisterImageRequest {
                image_id: id.clone(),
                delete_associated_snapshots: true,
                ..Default::default()
            };
            cloud
                .client
                .clone()
                .images
                .deregister_image(request)
                .await
                .unwrap();
            session.intents_when(no_snapshots).await;
            continue;
        }
        // Killed while the image is pending.
        session = restart(&mut cloud).await;
        session.freezes = true;
        session.intents_when(|intents| intents.snapshots.len() == 2).await;
        store(
            session.client.clone(),
            begin(&wanted[0].snapshot_id, GIB, ""),
            vec![chunk(0, 7)],
        )
        .await
        .unwrap();
        assert_eq!(image(&cloud, &id).await.state, "pending");
        match fails {
            true => {
                session
                    .observe_snapshot(&wanted[1].snapshot_id, Said::Failed, "no space")
                    .await;
                session.intents_when(no_snapshots).await;
                let told = image(&cloud, &id).await;
                assert_eq!(told.state, "failed");
                assert!(told.state_reason.unwrap().message.contains("no space"));
                assert_eq!(
                    code(&cloud.run(launch).await.unwrap_err()),
                    "InvalidAMIID.Unavailable"
                );
            }
            false => {
                store(
                    session.client.clone(),
                    begin(&wanted[1].snapshot_id, GIB, ""),
                    vec![chunk(0, 8)],
                )
                .await
                .unwrap();
                session.intents_when(no_snapshots).await;
                assert_eq!(image(&cloud, &id).await.state, "available");
                let _ = restart(&mut cloud).await;
                assert_eq!(image(&cloud, &id).await.state, "available");
                session = cloud.connect().await;
                session.freezes = true;
                cloud.run(launch).await.unwrap();
                let intents = session.intents_when(|intents| intents.instances.len() == 2).await;
                let new = intents
                    .instances
                    .iter()
                    .find(|intent| intent.instance_id != instance)
                    .unwrap();
                let bases: Vec<&str> = new
                    .volumes
                    .iter()
                    .map(|volume| volume.image_id.as_str())
                    .collect();
                let data = wanted.iter().map(|wanted| wanted.snapshot_id.as_str());
                assert_eq!(bases[0], id);
                assert!(data.into_iter().any(|of| of == bases[1]), "{bases:?}");
            }
        }
        made.push(id);
    }
    let request = v1::DescribeImagesRequest::default();
    let told = cloud
        .client
        .clone()
        .images
        .describe_images(request)
        .await
        .unwrap();
    assert_eq!(
        told.into_inner().images.len(),
        3,
        "the uploaded one, and {made:?}"
    );
}

#[tokio::test]
async fn a_running_instance_is_shut_down_for_an_image_and_runs_again() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    let mut session = cloud.connect().await;
    let (instance, _) = running_with(&cloud, &mut session).await;
    let before = cloud.instance(&instance).await;
    for is_given_up in [false, true] {
        let request = v1::CreateImageRequest {
            instance_id: instance.clone(),
            name: format!("given up {is_given_up}"),
            ..Default::default()
        };
        let made = cloud.client.clone().images.create_image(request).await;
        let id = made.unwrap().into_inner().image_id;
        assert_eq!(cloud.instance(&instance).await.state.unwrap().name, "stopping");
        let stops = |intents: &Intents| intents.instances[0].desired() == Wanted::Stopped;
        let intents = session.intents_when(stops).await;
        assert!(intents.snapshots.is_empty(), "the guest still writes");
        // Killed while it is shut down.
        session = restart(&mut cloud).await;
        let intents = session.intents_when(stops).await;
        assert!(intents.snapshots.is_empty());
        session
            .observe(vec![ended(&intents.instances[0], Cause::Requested)])
            .await;
        let intents = session.intents_when(|intents| intents.snapshots.len() == 2).await;
        assert_eq!(intents.instances[0].desired(), Wanted::Stopped);
        session = restart(&mut cloud).await;
        let intents = session.intents_when(|intents| intents.snapshots.len() == 2).await;
        let (one, other) = (
            &intents.snapshots[0].snapshot_id,
            &intents.snapshots[1].snapshot_id,
        );
        session.observe_snapshot(one, Said::Frozen, "").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(cloud.instance(&instance).await.state.unwrap().name, "stopped");
        match is_given_up {
            false => session.observe_snapshot(other, Said::Frozen, "").await,
            true => session.observe_snapshot(other, Said::Failed, "no space").await,
        }
        let runs = |intents: &Intents| intents.instances[0].desired() == Wanted::Running;
        session.intents_when(runs).await;
        say_running(&mut session).await;
        let after = cloud.until(&instance, "running").await;
        assert_eq!(after.public_ip_address, before.public_ip_address);
        for wanted in &intents.snapshots {
            let done = store(
                session.client.clone(),
                begin(&wanted.snapshot_id, GIB, ""),
                Vec::new(),
            )
            .await;
            assert_eq!(done.is_err(), is_given_up && wanted.snapshot_id == *other);
        }
        session.intents_when(no_snapshots).await;
        let expected = if is_given_up { "failed" } else { "available" };
        assert_eq!(image(&cloud, &id).await.state, expected);
    }
}
