//! What uploads may take from others: threads, disk, time.

use std::time::{Duration, Instant};

use hearth_api::agent::FetchImageRequest;
use hearth_api::v1::upload_image_request::{Chunk, Parameters, Part};
use hearth_api::{Client, v1};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::support::{Cloud, Hearthd, Mounted, SOON, code, disk, register};

type Outcome = Result<String, Status>;

fn part(part: Part) -> v1::UploadImageRequest {
    v1::UploadImageRequest { part: Some(part) }
}

fn parameters(name: &str, size: u64) -> v1::UploadImageRequest {
    part(Part::Parameters(Parameters {
        name: name.into(),
        size: size as i64,
        ..Parameters::default()
    }))
}

fn chunk(offset: u64, data: &[u8]) -> v1::UploadImageRequest {
    part(Part::Chunk(Chunk {
        offset: offset as i64,
        data: data.to_vec().into(),
    }))
}

/// An upload that goes on until the sender is dropped.
fn upload(client: &Client) -> (mpsc::Sender<v1::UploadImageRequest>, JoinHandle<Outcome>) {
    let (sender, receiver) = mpsc::channel(4);
    let mut images = client.clone().image_disks;
    let call = tokio::spawn(async move {
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let answer = images.upload_image(stream).await?;
        Ok(answer.into_inner().image_id)
    });
    (sender, call)
}

/// Registers `bytes` and zeros behind them.
async fn claim(client: &Client, name: &str, bytes: &[u8], size: u64) -> Outcome {
    let (sender, call) = upload(client);
    let mut parts = vec![parameters(name, size)];
    parts.extend(
        bytes
            .chunks(1 << 20)
            .enumerate()
            .map(|(n, piece)| chunk((n as u64) << 20, piece)),
    );
    for part in parts {
        // An upload that is refused says why.
        if sender.send(part).await.is_err() {
            break;
        }
    }
    drop(sender);
    call.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_uploads_keep_nobody_waiting() {
    const UPLOADS: usize = 513;
    /// Those of an account that may be under way.
    const AN_ACCOUNTS: usize = 4;
    let Some(cloud) = Cloud::with(&["--upload-idle-seconds", "20"]).await else {
        return;
    };
    let session = cloud.connect().await;
    cloud.run(cloud.request(1)).await.unwrap();
    let mut agent = cloud.hearthd.control_plane(Some(cloud.host.identity())).await;
    let (mut senders, mut calls) = (Vec::new(), Vec::new());
    let mut client = cloud.client.clone();
    for n in 0..UPLOADS {
        // A connection carries so many streams.
        if n % 50 == 0 {
            client = cloud.hearthd.client().await;
        }
        let (sender, call) = upload(&client);
        sender
            .send(parameters(&format!("idle-{n}"), 1 << 20))
            .await
            .unwrap();
        senders.push(sender);
        calls.push(call);
    }
    // As many as are let in.
    let begin = Instant::now();
    while calls.iter().filter(|call| !call.is_finished()).count() > AN_ACCOUNTS {
        assert!(
            begin.elapsed() < SOON,
            "more uploads are under way than an account may have"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let begin = Instant::now();
    let fetch = async {
        let request = FetchImageRequest {
            image_id: cloud.image_id.clone(),
            first_chunk: 0,
        };
        let mut chunks = agent.fetch_image(request).await.unwrap().into_inner();
        let mut ends = 0;
        while let Some(chunk) = chunks.message().await.unwrap() {
            ends += usize::from(chunk.data.is_empty());
        }
        assert_eq!(ends, 1, "it was all");
    };
    tokio::time::timeout(Duration::from_secs(10), fetch)
        .await
        .expect("an agent waits for its image");
    let key = v1::CreateKeyPairRequest {
        key_name: "key".into(),
        ..v1::CreateKeyPairRequest::default()
    };
    let mut key_pairs = cloud.client.clone().key_pairs;
    tokio::time::timeout(Duration::from_secs(10), key_pairs.create_key_pair(key))
        .await
        .expect("a caller waits")
        .unwrap();
    eprintln!("fetched, and made a key, in {:?}", begin.elapsed());
    let (mut refused, mut expired) = (0, 0);
    for call in calls {
        let status = tokio::time::timeout(SOON, call)
            .await
            .unwrap()
            .unwrap()
            .unwrap_err();
        match code(&status).as_str() {
            "RequestLimitExceeded" => refused += 1,
            "RequestExpired" => {
                assert!(status.message().contains("nothing came for 20 seconds"));
                expired += 1;
            }
            other => panic!("{other}: {status:?}"),
        }
    }
    assert_eq!((refused, expired), (UPLOADS - AN_ACCOUNTS, AN_ACCOUNTS));
    settled(&cloud.hearthd).await;
    drop((senders, session));
}

/// Nothing but the cloud's own image stays.
async fn settled(hearthd: &Hearthd) {
    let begin = Instant::now();
    while hearthd.images().len() != 1 {
        assert!(begin.elapsed() < SOON, "{:?}", hearthd.images());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Seconds of CPU time.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // utime, stime, and those of children.
    fields[11..15]
        .iter()
        .map(|field| field.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}

#[tokio::test]
async fn claimed_zeros_cost_nothing() {
    let hearthd = Hearthd::start();
    let Some(bytes) = disk(hearthd.dir.path()) else {
        return;
    };
    let client = hearthd.client().await;
    register(&client, "warm", &bytes).await.unwrap();
    let begin = cpu(hearthd.pid());
    register(&client, "small", &bytes).await.unwrap();
    let small = cpu(hearthd.pid()) - begin;
    claim(&client, "large", &bytes, 20 << 30).await.unwrap();
    let large = cpu(hearthd.pid()) - begin - small;
    eprintln!("8 MiB {small} s, 20 GiB {large} s");
    assert!(large < small + 0.5, "{small} and {large} seconds");
}

#[tokio::test]
async fn images_have_a_quota() {
    let hearthd = Hearthd::with(&["--image-limit", "2", "--image-gib-limit", "3"]);
    let Some(bytes) = disk(hearthd.dir.path()) else {
        return;
    };
    let client = hearthd.client().await;
    claim(&client, "first", &bytes, 2 << 30).await.unwrap();
    let status = claim(&client, "large", &bytes, 2 << 30).await.unwrap_err();
    assert_eq!(code(&status), "ResourceLimitExceeded");
    assert!(status.message().contains("--image-gib-limit"), "{status:?}");
    claim(&client, "second", &bytes, 1 << 30).await.unwrap();
    let status = register(&client, "third", &bytes).await.unwrap_err();
    assert_eq!(code(&status), "ResourceLimitExceeded");
    assert!(status.message().contains("--image-limit"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_leaves_room_for_the_database() {
    let mut hearthd = Hearthd::start();
    hearthd.kill();
    let Some(mounted) = Mounted::new(&hearthd.data(), "64m") else {
        return;
    };
    hearthd.spawn();
    let client = hearthd.client().await;
    let (sender, call) = upload(&client);
    sender.send(parameters("noise", 256 << 20)).await.unwrap();
    let noise: Vec<u8> = (0..1u32 << 20).map(|n| (n % 251) as u8 + 1).collect();
    let (mut least, mut made) = (u64::MAX, 0);
    for n in 0..256 {
        if sender.send(chunk(n << 20, &noise)).await.is_err() {
            break;
        }
        least = least.min(mounted.free());
        if n % 16 == 0 {
            let tag = v1::ImportKeyPairRequest {
                key_name: format!("key-{n}"),
                public_key_material:
                    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti"
                        .to_vec(),
                ..v1::ImportKeyPairRequest::default()
            };
            client.clone().key_pairs.import_key_pair(tag).await.unwrap();
            made += 1;
        }
    }
    drop(sender);
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(code(&status), "InsufficientCapacity", "{status:?}");
    eprintln!("{} KiB were left, {made} keys made", least >> 10);
    assert!(least > 1 << 20, "{least} bytes");
    let begin = Instant::now();
    while !hearthd.images().is_empty() {
        assert!(begin.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    hearthd.kill();
}

#[tokio::test]
async fn disks_of_an_older_version_go_into_the_repository() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    let mut session = cloud.connect().await;
    cloud.run(cloud.request(1)).await.unwrap();
    let intents = session
        .intents_when(|intents| !intents.instances.is_empty())
        .await;
    let digest = |intents: &hearth_api::agent::Intents| intents.instances[0].volumes[0].image_digest.clone();
    let (expected, sequence) = (digest(&intents), intents.sequence);
    let whole = cloud.hearthd.only_disk().await;
    // Its file is not there.
    register(&cloud.client, "lost", &disk(cloud.hearthd.dir.path()).unwrap())
        .await
        .unwrap();
    cloud.hearthd.kill();
    drop(session);
    let images = cloud.hearthd.data().join("images");
    std::fs::create_dir(&images).unwrap();
    let file = images.join(format!("{}.raw", cloud.image_id));
    std::fs::write(&file, &whole).unwrap();
    let database = cloud.hearthd.data().join("hearth.db");
    let pool = sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(&database))
        .await
        .unwrap();
    let older = "UPDATE objects SET body = json_remove(json_set(body, '$.digest', ''), '$.snapshot', '$.devices') WHERE kind = 'image'";
    for change in [older, "DELETE FROM objects WHERE kind = 'snapshot'"] {
        sqlx::query(change).execute(&pool).await.unwrap();
    }
    pool.close().await;
    cloud.hearthd.spawn();
    let mut session = cloud.connect().await;
    let intents = session
        .intents_when(|intents| !intents.instances.is_empty())
        .await;
    assert_eq!(digest(&intents), expected);
    assert!(intents.sequence > sequence);
    assert!(!file.exists());
    assert!(
        cloud.hearthd.only_disk().await == whole,
        "what no image names is swept"
    );
    // Images of before have snapshots now, as far as their disks are there.
    let request = v1::DescribeSnapshotsRequest::default();
    let mut client = cloud.hearthd.client().await;
    let told = client.snapshots.describe_snapshots(request).await;
    let told = told.unwrap().into_inner().snapshots;
    assert_eq!((told.len(), told[0].state.as_str()), (1, "completed"));
    let request = v1::DescribeImagesRequest::default();
    let images = client.images.describe_images(request).await;
    for image in images.unwrap().into_inner().images {
        let root = image.block_device_mappings[0].ebs.as_ref().unwrap();
        let expected = if image.name == "tiny" {
            &told[0].snapshot_id
        } else {
            ""
        };
        assert_eq!(root.snapshot_id, expected);
    }
}

async fn kept(client: &Client, name: &str, size: u64) -> Result<v1::GetImageUploadResponse, Status> {
    let request = v1::GetImageUploadRequest {
        name: name.into(),
        size: size as i64,
    };
    let told = client.clone().image_disks.get_image_upload(request).await;
    told.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_cut_off_goes_on_also_after_hearthd_was_killed() {
    let mut hearthd = Hearthd::start();
    let Some(bytes) = disk(hearthd.dir.path()) else {
        return;
    };
    let size = bytes.len() as u64;
    let half = size / 2;
    let client = hearthd.client().await;
    assert_eq!(kept(&client, "cut", size).await.unwrap().received_bytes, 0);
    let (sender, call) = upload(&client);
    sender.send(parameters("cut", size)).await.unwrap();
    // With data at its end, so that it is seen how far it is.
    let mut first = bytes[..half as usize].to_vec();
    first[half as usize - 4096..].fill(7);
    for (n, piece) in first.chunks(1 << 20).enumerate() {
        sender.send(chunk((n as u64) << 20, piece)).await.unwrap();
    }
    // Whoever uploads the same meanwhile is told.
    let begin = Instant::now();
    loop {
        match kept(&client, "cut", size).await {
            Err(status) => {
                assert_eq!(code(&status), "IncorrectState");
                break;
            }
            Ok(_) => assert!(begin.elapsed() < SOON),
        }
    }
    let whole = |hearthd: &Hearthd| {
        let files = std::fs::read_dir(hearthd.uploads()).unwrap();
        let files = files.map(|file| std::fs::File::open(file.unwrap().path()).unwrap());
        let ends = files.flat_map(|file| hearth_image::Extents::of(&file, size).last().map(Result::unwrap));
        ends.map(|extent| extent.end).max() == Some(half)
    };
    while !whole(&hearthd) {
        assert!(begin.elapsed() < SOON, "not all that was sent has come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    call.abort();
    hearthd.kill();
    drop(sender);
    hearthd.spawn();

    let client = hearthd.client().await;
    let told = kept(&client, "cut", size).await.unwrap();
    let received = told.received_bytes as u64;
    assert!((half - 8192..half).contains(&received), "{received} of {half}");
    let own = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&own, &bytes, 0).unwrap();
    assert_eq!(told.digest, hearth_image::disk_digest(&own, received).unwrap());
    assert_eq!(kept(&client, "cut", size + 1).await.unwrap().received_bytes, 0);
    // More than there is, cannot be gone on with.
    let resumed = |at: u64| {
        part(Part::Parameters(Parameters {
            name: "cut".into(),
            size: size as i64,
            resume_at: at as i64,
            ..Parameters::default()
        }))
    };
    let (sender, call) = upload(&client);
    sender.send(resumed(half + 1)).await.unwrap();
    drop(sender);
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(code(&status), "InvalidParameterValue");
    assert!(
        status.message().contains(&received.to_string()),
        "{}",
        status.message()
    );

    // What is to be stored encrypted begins anew: its file would be plain.
    let mut settings = client.clone().account_settings;
    let encrypt = v1::EnableEbsEncryptionByDefaultRequest::default();
    settings.enable_ebs_encryption_by_default(encrypt).await.unwrap();
    assert_eq!(kept(&client, "cut", size).await.unwrap().received_bytes, 0);
    let (sender, call) = upload(&client);
    sender.send(resumed(received)).await.unwrap();
    drop(sender);
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(code(&status), "InvalidParameterValue");
    let files = || std::fs::read_dir(hearthd.uploads()).unwrap().count();
    let before = files();
    let (sender, call) = upload(&client);
    sender.send(parameters("sealed", size)).await.unwrap();
    sender.send(chunk(0, &bytes[..1 << 20])).await.unwrap();
    let begin = Instant::now();
    while files() == before {
        assert!(begin.elapsed() < SOON, "nothing has come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    call.abort();
    drop(sender);
    while files() > before {
        assert!(begin.elapsed() < SOON, "what was cut off stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let plain = v1::DisableEbsEncryptionByDefaultRequest::default();
    settings.disable_ebs_encryption_by_default(plain).await.unwrap();

    let (sender, call) = upload(&client);
    sender.send(resumed(received)).await.unwrap();
    for (n, piece) in bytes[received as usize..].chunks(1 << 20).enumerate() {
        sender
            .send(chunk(received + ((n as u64) << 20), piece))
            .await
            .unwrap();
    }
    drop(sender);
    call.await.unwrap().unwrap();
    settled(&hearthd).await;
    assert!(hearthd.only_disk().await == bytes, "another disk came of it");
}
