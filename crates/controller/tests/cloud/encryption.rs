//! What hosts hear of encrypted volumes, and the keys that they get.

use std::time::Duration;

use hearth_api::agent::{FetchChunkRequest, FetchImageRequest, FetchKeyRequest};
use hearth_api::v1;
use hearth_repository::CHUNK;
use tonic::{Code, Status};

use crate::snapshots::{attach, frozen, say_running, until};
use crate::support::{Cloud, Host, Session, ZONE, begin, disk, register, store};

const GIB: u64 = 1 << 30;

async fn key(session: &Session, id: &str) -> Result<Vec<u8>, Status> {
    let request = FetchKeyRequest { id: id.to_owned() };
    let told = session.client.clone().fetch_key(request).await;
    told.map(|told| told.into_inner().key)
}

fn mapping(device_name: &str, kms_key_id: &str) -> v1::BlockDeviceMapping {
    v1::BlockDeviceMapping {
        device_name: device_name.to_owned(),
        ebs: Some(v1::EbsBlockDevice {
            volume_size: 1,
            encrypted: Some(true),
            kms_key_id: kms_key_id.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn hosts_get_the_keys_of_their_own_volumes_and_send_chunks_in_plain() {
    let Some(cloud) = Cloud::start().await else { return };
    let stranger = Host::enroll(&cloud.hearthd).await;
    let mut stranger = cloud.hearthd.control_plane(Some(stranger.identity())).await;
    let mut session = cloud.connect().await;
    let mut kms = cloud.client.clone().kms;
    let made = kms.create_key(v1::CreateKeyRequest::default()).await;
    let kms_key = made.unwrap().into_inner().key_metadata.unwrap().key_id;
    let mut request = cloud.request(1);
    request.block_device_mappings = vec![mapping("/dev/sda1", ""), mapping("/dev/sdg", &kms_key)];
    let launched = cloud.run(request).await.unwrap().instances.remove(0);
    let instance = launched.instance_id;
    let intents = session
        .intents_when(|intents| !intents.instances.is_empty())
        .await;
    let [root, data] = &intents.instances[0].volumes[..] else {
        panic!("{intents:?}")
    };
    assert!(root.encrypted && data.encrypted && !root.image_encrypted);
    let (root, data) = (root.volume_id.clone(), data.volume_id.clone());

    // Each its own, for who has it.
    let (of_root, of_data) = (
        key(&session, &root).await.unwrap(),
        key(&session, &data).await.unwrap(),
    );
    assert_eq!((of_root.len(), of_data.len()), (64, 64));
    assert_ne!(of_root, of_data);
    assert_eq!(key(&session, &root).await.unwrap(), of_root);
    for id in [cloud.image_id.as_str(), "vol-0123456789abcdef0", "", "../x"] {
        assert_eq!(
            key(&session, id).await.unwrap_err().code(),
            Code::NotFound,
            "{id}"
        );
    }
    let asked = stranger.fetch_key(FetchKeyRequest { id: root.clone() });
    assert_eq!(asked.await.unwrap_err().code(), Code::NotFound);

    // What does not run yet does not begin under a disabled key; what runs goes on.
    let disable = v1::DisableKeyRequest {
        key_id: kms_key.clone(),
    };
    kms.disable_key(disable).await.unwrap();
    let refused = key(&session, &data).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("disabled"), "{refused:?}");
    say_running(&mut session).await;
    cloud.until(&instance, "running").await;
    assert_eq!(key(&session, &data).await.unwrap(), of_data);

    // The plain base is none of an encrypted snapshot: all is sent.
    let (first, wanted) = frozen(&cloud, &mut session, &root).await;
    assert!(wanted.encrypted);
    let changed = vec![(0, vec![0xa5; CHUNK]), (7, b"of nobody's business".repeat(100))];
    let refused = store(
        session.client.clone(),
        begin(&first, GIB, &cloud.image_id),
        changed.clone(),
    );
    assert_eq!(refused.await.unwrap_err().code(), Code::FailedPrecondition);
    store(session.client.clone(), begin(&first, GIB, ""), changed)
        .await
        .unwrap();
    let told = until(&cloud, &first, |told| told.state == "completed").await;
    assert!(told.encrypted && told.kms_key_id.starts_with("arn:aws:kms:"));
    session.intents_when(|intents| intents.snapshots.is_empty()).await;
    // The next is told as changes of it, which is under the same data key.
    let (second, _) = frozen(&cloud, &mut session, &root).await;
    let changes = vec![(0, Vec::new()), (1, vec![0x5a; CHUNK])];
    store(session.client.clone(), begin(&second, GIB, &first), changes)
        .await
        .unwrap();

    // A volume of it: the base lies under the same key, and is told in plain.
    let request = v1::CreateVolumeRequest {
        availability_zone: ZONE.into(),
        snapshot_id: second.clone(),
        ..Default::default()
    };
    let made = cloud.client.clone().volumes.create_volume(request).await.unwrap();
    let volume = made.into_inner().volume_id;
    assert_eq!(
        key(&session, &volume).await.unwrap_err().code(),
        Code::NotFound,
        "it is on no host"
    );
    attach(&cloud, &volume, &instance).await;
    let intents = session
        .intents_when(|intents| intents.instances[0].volumes.len() == 3)
        .await;
    let own = intents.instances[0]
        .volumes
        .iter()
        .find(|own| own.volume_id == volume);
    assert!(own.is_some_and(|own| own.encrypted && own.image_encrypted && own.image_id == second));
    assert_eq!(key(&session, &volume).await.unwrap(), of_root);
    assert_eq!(key(&session, &second).await.unwrap(), of_root);
    let request = FetchImageRequest {
        image_id: second.clone(),
        first_chunk: 0,
    };
    let mut chunks = session
        .client
        .clone()
        .fetch_image(request)
        .await
        .unwrap()
        .into_inner();
    let mut found = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        found.push((chunk.offset / CHUNK as u64, chunk.data));
    }
    let indexes: Vec<u64> = found.iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [1, 7, GIB / CHUNK as u64]);
    assert!(found[0].1.iter().all(|byte| *byte == 0x5a) && found[1].1.starts_with(b"of nobody's"));
    let request = FetchChunkRequest {
        image_id: second.clone(),
        index: 7,
    };
    let told = session.client.clone().fetch_chunk(request).await.unwrap();
    assert!(told.into_inner().data.starts_with(b"of nobody's business"));

    // Neither what was written nor a key lies anywhere.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let files = files(&cloud.hearthd.data());
    let has = |part: &[u8]| files.iter().any(|file| contains(file, part));
    assert!(has(b"kms-key"), "the database is read");
    for secret in [&b"of nobody's business"[..], &of_root, &of_data, &[0xa5; 64]] {
        assert!(!has(secret));
    }
    let log = cloud.hearthd.log();
    assert!(
        log.contains("a key was asked for") && !log.contains(&hex(&of_root)),
        "{log}"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn contains(file: &[u8], part: &[u8]) -> bool {
    file.windows(part.len()).any(|window| window == part)
}

/// All files below a directory.
fn files(dir: &std::path::Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in dir.read_dir().unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => found.extend(std::fs::read(entry.path())),
            _ => {}
        }
    }
    found
}

/// A copy under another key is written by the control plane, which may be killed meanwhile.
#[tokio::test]
async fn a_copy_that_is_cut_short_is_written_again() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    let told = cloud.client.clone().snapshots;
    let describe = v1::DescribeSnapshotsRequest::default();
    let all = told.clone().describe_snapshots(describe).await.unwrap();
    let [plain] = &all.into_inner().snapshots[..] else {
        panic!("the image's is the only one")
    };
    let request = v1::CopySnapshotRequest {
        source_region: "local-1".into(),
        source_snapshot_id: plain.snapshot_id.clone(),
        encrypted: Some(true),
        ..Default::default()
    };
    let mut copies = Vec::new();
    for _ in 0..4 {
        let made = told.clone().copy_snapshot(request.clone()).await.unwrap();
        copies.push(made.into_inner().snapshot_id);
    }
    cloud.hearthd.kill();
    cloud.hearthd.spawn();
    cloud.client = cloud.hearthd.client().await;
    for copy in &copies {
        let told = until(&cloud, copy, |told| told.state != "pending").await;
        assert_eq!((told.state.as_str(), told.encrypted), ("completed", true));
    }
    // Each has a data key of its own, and nothing is left of what was cut short.
    let names = cloud.hearthd.repository().snapshots().await.unwrap();
    assert_eq!(names.len(), 1 + copies.len());
    // What is uploaded where volumes are encrypted that do not ask for it.
    let default = v1::EnableEbsEncryptionByDefaultRequest::default();
    let mut settings = cloud.client.clone().account_settings;
    settings.enable_ebs_encryption_by_default(default).await.unwrap();
    let bytes = disk(&cloud.hearthd.data()).unwrap();
    let image = register(&cloud.client, "uploaded", &bytes).await.unwrap();
    let request = v1::DescribeSnapshotsRequest {
        filters: vec![v1::Filter {
            name: "description".into(),
            values: vec![format!("Uploaded for {image}")],
        }],
        ..Default::default()
    };
    let uploaded = told.clone().describe_snapshots(request).await.unwrap();
    let uploaded = uploaded.into_inner().snapshots.remove(0);
    assert!(uploaded.encrypted && uploaded.kms_key_id.starts_with("arn:aws:kms:"));
    let opened = cloud.hearthd.repository().read(&uploaded.snapshot_id, None).await;
    assert!(opened.is_err(), "it is read without a key");
    let scrubbed = cloud.hearthd.repository().scrub(None).await.unwrap();
    assert_eq!(scrubbed.damages, []);
}
