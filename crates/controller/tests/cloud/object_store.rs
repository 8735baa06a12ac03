//! The repository in a bucket, whose server is killed and comes back.

use std::process::Command;
use std::time::Duration;

use hearth_api::agent::{FetchChunkRequest, FetchImageRequest};
use hearth_api::v1;
use hearth_repository::CHUNK;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::snapshots::{create_volume, delete, frozen, running_with, say_running, until};
use crate::support::{Cloud, ENDPOINT, Hearthd, SOON, begin, parts};
use crate::weed::Weed;

const GIB: u64 = 1 << 30;
const CHUNKS: u64 = 160;

/// Of noise, which takes as much room as it has.
fn noise(index: u64) -> Vec<u8> {
    let mut chunk = vec![0; CHUNK];
    StdRng::seed_from_u64(index + 1).fill_bytes(&mut chunk);
    chunk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_bucket_is_told_survives_the_death_of_its_server() {
    let Some(mut weed) = Weed::start("what_a_bucket_is_told_survives_the_death_of_its_server").await else {
        return;
    };
    let Some(mut cloud) = Cloud::of(Hearthd::storing_at(&weed.endpoint())).await else {
        return;
    };
    let before = cloud.hearthd.stored("chunks");
    assert!(before > 0, "the image is somewhere else");
    let mut session = cloud.connect().await;
    let (instance, volume) = running_with(&cloud, &mut session).await;

    // It dies while it is told a snapshot, and comes back before hearthd loses its patience.
    let (id, _) = frozen(&cloud, &mut session, &volume).await;
    let mut told = begin(&id, GIB, "");
    told.chunks = CHUNKS;
    let all = parts(told, (0..CHUNKS).map(|index| (index, noise(index))).collect());
    let (sender, receiver) = mpsc::channel(4);
    let mut client = session.client.clone();
    let store = tokio::spawn(async move { client.store_snapshot(ReceiverStream::new(receiver)).await });
    let mut rest = all.into_iter();
    for part in rest.by_ref().take(82) {
        sender.send(part).await.unwrap();
    }
    let some = async {
        while cloud.hearthd.stored("chunks") < before + 32 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, some).await.unwrap();
    weed.kill();
    let back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        weed.restart().await;
    };
    let sent = async {
        for part in rest {
            sender.send(part).await.unwrap();
        }
        drop(sender);
    };
    tokio::join!(back, sent);
    tokio::time::timeout(2 * SOON, store)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    until(&cloud, &id, |told| told.state == "completed").await;

    // hearthd starts without it, and says so; what needs it gets an error, and nothing is forgotten.
    let copy = create_volume(&cloud, 0, &id).await.unwrap().volume_id;
    let attach = v1::AttachVolumeRequest {
        volume_id: copy,
        instance_id: instance,
        device: "/dev/sdg".into(),
        dry_run: false,
    };
    cloud.client.clone().volumes.attach_volume(attach).await.unwrap();
    session
        .intents_when(|intents| intents.instances[0].volumes.len() == 3)
        .await;
    say_running(&mut session).await;
    weed.kill();
    cloud.hearthd.kill();
    cloud.hearthd.spawn();
    assert!(
        cloud.hearthd.log().contains("cannot be reached"),
        "{}",
        cloud.hearthd.log()
    );
    cloud.client = cloud.hearthd.client().await;
    let session = cloud.connect().await;
    let fetch = FetchChunkRequest {
        image_id: id.clone(),
        index: 3,
    };
    let mut client = session.client.clone();
    let waits = tokio::time::timeout(Duration::from_millis(500), client.fetch_chunk(fetch.clone())).await;
    assert!(!matches!(waits, Ok(Ok(_))), "{waits:?}");
    weed.restart().await;
    let chunk = tokio::time::timeout(SOON, client.fetch_chunk(fetch)).await;
    assert!(chunk.unwrap().unwrap().into_inner().data == noise(3));

    // A host gets all of it.
    let fetch = FetchImageRequest {
        image_id: id.clone(),
        first_chunk: 0,
    };
    let mut stream = client.fetch_image(fetch).await.unwrap().into_inner();
    let mut came = 0;
    while let Some(chunk) = stream.message().await.unwrap() {
        if chunk.data.is_empty() {
            assert_eq!(chunk.offset, GIB);
            break;
        }
        assert_eq!(chunk.offset, came * CHUNK as u64);
        assert!(chunk.data == noise(came), "chunk {came}");
        came += 1;
    }
    assert_eq!(came, CHUNKS);

    // Another cloud would remove what it does not know.
    let said = Hearthd::refused_beside(&cloud.hearthd);
    assert!(said.contains("that of another cloud"), "{said}");
    assert_eq!(cloud.hearthd.objects("snapshots").len(), 2);

    // Damage is as visible as elsewhere: nothing is, and a scrub reads all there is.
    let scrubbed = cloud.hearthd.repository().scrub(None).await.unwrap();
    assert!(
        scrubbed.damages.is_empty() && scrubbed.objects > CHUNKS,
        "{scrubbed:?}"
    );
    let refused = delete(&cloud, &id).await;
    assert!(refused.is_ok(), "a volume of it does not keep it: {refused:?}");
}

/// Is of a disk that the repository shares with the database.
const OF_A_DIRECTORY: &str = "an_upload_leaves_room_for_the_database";
/// Those that have something to do with the repository.
const ROOMS: [&str; 5] = ["images::", "packed::", "snapshots::", "uploads::", "volumes::"];

#[tokio::test]
#[ignore = "takes minutes: scripts/test --strangers"]
async fn images_and_snapshots_do_in_a_bucket_what_they_do_in_a_directory() {
    let Some(weed) = Weed::start("images_and_snapshots_do_in_a_bucket_what_they_do_in_a_directory").await
    else {
        return;
    };
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests
        .args(ROOMS)
        .args(["--test-threads", "2", "--skip", OF_A_DIRECTORY])
        .env(ENDPOINT, weed.endpoint());
    let output = tokio::task::spawn_blocking(move || tests.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let summary = said.lines().find(|line| line.starts_with("test result")).unwrap();
    assert!(!summary.contains(" 0 passed"), "{summary}");
    println!("FIGURE bucket: {summary}");
}
