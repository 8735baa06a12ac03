//! Bases that come while instances run, whatever happens meanwhile.

mod machines;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::snapshot_observation::State;
use hearth_block::Cipher;

use crate::common::keys::{MARK, files_with};
use crate::common::{self, CHUNK, Cloud, PATIENCE, Pace};

/// So many chunks, of which every fourth is zeros and the last is short.
fn image(chunks: usize) -> Vec<u8> {
    let byte = |at: usize| match at / CHUNK % 4 {
        3 => 0,
        chunk => (at / 4096 + chunk + 1) as u8 | 1,
    };
    (0..chunks * CHUNK - 1536).map(byte).collect()
}

impl Cloud {
    fn base(&self, file: &str) -> PathBuf {
        self.data_dir().join("images/ami-1").join(file)
    }

    /// Waits until all of the base has come, and compares it.
    async fn until_whole(&self) {
        self.until_whole_under(None).await;
    }

    async fn until_whole_under(&self, cipher: Option<&Cipher>) {
        let begun = Instant::now();
        while self.base("map").exists() || !self.base("disk.raw").exists() {
            assert!(begun.elapsed() < PATIENCE, "it does not come\n{}", self.logged());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (mut found, image) = (
            std::fs::read(self.base("disk.raw")).unwrap(),
            self.image.lock().unwrap(),
        );
        if let Some(cipher) = cipher {
            assert!(found != *image, "it lies plain");
            cipher.decrypt(&mut found, 0).unwrap();
        }
        assert!(found == *image, "the base is another one");
    }

    fn streams(&self) -> Vec<u64> {
        self.told.lock().unwrap().streams.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_does_not_wait_for_its_base() {
    let mut cloud = Cloud::new().await;
    *cloud.image.lock().unwrap() = image(9);
    cloud.pace.send_modify(|pace| pace.stream_is_held = true);
    cloud.start_agent();
    for id in ["i-1", "i-2"] {
        let intent = cloud.intent(id, 64);
        cloud.want(|all| all.push(intent));
    }
    for id in ["i-1", "i-2"] {
        cloud.until_phase(id, Phase::Running, 1).await;
    }
    assert!(cloud.base("map").exists());
    assert_eq!(cloud.streams(), [0], "it is fetched once, whoever wants it");
    cloud.pace.send_modify(|pace| pace.stream_is_held = false);
    cloud.until_whole().await;
    // Nothing more is asked for.
    let intent = cloud.intent("i-3", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-3", Phase::Running, 1).await;
    assert_eq!(cloud.streams(), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_whose_stream_breaks_off_comes_all_the_same_and_nothing_twice() {
    comes_in_pieces(false).await;
}

/// What was not told is not zeros.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_whose_stream_ends_too_early_comes_all_the_same() {
    comes_in_pieces(true).await;
}

async fn comes_in_pieces(silently: bool) {
    let mut cloud = Cloud::new().await;
    *cloud.image.lock().unwrap() = image(13);
    cloud.pace.send_modify(|pace| {
        pace.breaks_after = Some(3);
        pace.breaks_silently = silently;
    });
    cloud.start_agent();
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    cloud.until_whole().await;
    // Chunks 3, 7 and 11 are zeros: that is known when what follows them comes.
    assert_eq!(cloud.streams(), [0, 3, 7, 11]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_goes_on_with_a_base_where_it_was_durable() {
    let mut cloud = Cloud::new().await;
    *cloud.image.lock().unwrap() = image(12);
    let slowly = Pace {
        pause: Duration::from_millis(400),
        ..Pace::default()
    };
    cloud.pace.send_replace(slowly);
    cloud.start_agent();
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    cloud.kill_agent();
    assert!(cloud.base("map").exists());
    cloud.pace.send_replace(Pace::default());
    // While nobody launches anything.
    cloud.control_plane_dies().await;
    cloud.start_agent();
    cloud.control_plane_returns().await;
    cloud.until_whole().await;
    let streams = cloud.streams();
    assert!(
        streams[0] == 0 && streams[1..].iter().all(|first| *first >= 3),
        "{streams:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_base_lies_encrypted_whenever_the_agent_is_killed() {
    let mut cloud = Cloud::new().await;
    // What a search finds where it lies plain.
    let mut contents = image(9);
    for sector in contents.chunks_mut(512).filter(|sector| sector[0] != 0) {
        sector[..MARK.len()].copy_from_slice(MARK);
    }
    cloud.image.lock().unwrap().clone_from(&contents);
    let cipher = cloud.encrypt("ami-1");
    cloud.encrypt("vol-of-i-1");
    cloud.pace.send_modify(|pace| pace.breaks_after = Some(2));
    cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", "chunk-stored")]);
    let mut intent = cloud.intent("i-1", 64);
    intent.volumes[0].encrypted = true;
    intent.volumes[0].image_encrypted = true;
    cloud.want(|all| all.push(intent));
    cloud.agent_died().await;
    assert!(cloud.base("encrypted").exists());
    let images = cloud.data_dir().join("images");
    assert_eq!(files_with(&images, MARK), [""; 0]);
    cloud.start_agent();
    cloud.until_phase("i-1", Phase::Running, 1).await;
    cloud.until_whole_under(Some(&cipher)).await;
    assert_eq!(files_with(&images, MARK), [""; 0]);
    // The guest has it as it was, and what it writes beside it.
    cloud.write("vol-of-i-1", "512 512 165\nflush").await;
    cloud.want_snapshot("snap-1", "vol-of-i-1");
    cloud.until_snapshot("snap-1", State::Stored).await;
    let stored = cloud.stored("snap-1").contents();
    contents[512..1024].fill(165);
    assert!(stored[..contents.len()] == contents);
    assert_eq!(files_with(&cloud.data_dir().join("volumes"), MARK), [""; 0]);

    // A key that is refused lets the launch fail, on a base that is here, too.
    cloud.encrypt("vol-of-i-2");
    let mut intent = cloud.intent("i-2", 64);
    intent.volumes[0].encrypted = true;
    intent.volumes[0].image_encrypted = true;
    cloud.keys.lock().unwrap().refused = Some("the KMS key is gone");
    cloud.want(|all| all.push(intent));
    let end = cloud.until_phase("i-2", Phase::Ended, 1).await.end.unwrap();
    assert!(end.message.contains("the KMS key is gone"), "{}", end.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_a_chunk_or_with_a_damaged_map_gets_the_base_whole() {
    let mut cloud = Cloud::new().await;
    *cloud.image.lock().unwrap() = image(6);
    cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", "chunk-stored")]);
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    cloud.agent_died().await;
    assert!(cloud.base("map").exists());
    std::fs::write(cloud.base("map"), b"not a map").unwrap();
    cloud.start_agent();
    cloud.until_phase("i-1", Phase::Running, 1).await;
    cloud.until_whole().await;
    assert_eq!(cloud.living("i-1").len(), 1);
    assert!(cloud.logged().contains("the map of a base is damaged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_finds_the_disk_full_says_so_and_comes_when_there_is_room() {
    let mut cloud = Cloud::new().await;
    std::fs::create_dir(cloud.data_dir()).unwrap();
    let Some(_small) = common::SmallDisk::mount(&cloud.data_dir(), "24m") else {
        eprintln!("SKIPPED: a_base_that_finds_the_disk_full: mounting a tmpfs needs root");
        return;
    };
    std::fs::write(cloud.data_dir().join("in-the-way"), vec![1; 12 << 20]).unwrap();
    *cloud.image.lock().unwrap() = image(40);
    cloud.start_agent();
    let mut intent = cloud.intent("i-1", 64);
    intent.volumes[0].size_bytes = 32 << 20;
    cloud.want(|all| all.push(intent));
    let says = |seen: &hearth_api::agent::InstanceObservation, what: &str| match seen.volumes.as_slice() {
        [root] if what.is_empty() => root.message.is_empty(),
        [root] => root.message.contains(what),
        _ => false,
    };
    cloud
        .until("i-1", |seen| {
            seen.phase() == Phase::Running && says(seen, "the host's disk is full")
        })
        .await;
    std::fs::remove_file(cloud.data_dir().join("in-the-way")).unwrap();
    cloud.until_whole().await;
    cloud.until("i-1", |seen| says(seen, "")).await;
    // Its monitor is not found any more when the file system is gone.
    cloud.want(|all| all[0].set_desired(Desired::Terminated));
    cloud.until_phase("i-1", Phase::Gone, 1).await;
    cloud.kill_agent();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_in_part_that_nobody_uses_any_more_leaves() {
    let mut cloud = Cloud::new().await;
    *cloud.image.lock().unwrap() = image(6);
    cloud.arguments = vec!["--image-cache-percent".to_owned(), "0".to_owned()];
    cloud.pace.send_modify(|pace| pace.stream_is_held = true);
    cloud.start_agent();
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    cloud.want(|all| all[0].set_desired(Desired::Terminated));
    cloud.until_phase("i-1", Phase::Gone, 1).await;
    assert!(!cloud.base("").exists());
    // It is made anew for the next one.
    let intent = cloud.intent("i-2", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-2", Phase::Running, 1).await;
    cloud.pace.send_modify(|pace| pace.stream_is_held = false);
    cloud.until_whole().await;
    assert_eq!(cloud.streams(), [0, 0]);
}
