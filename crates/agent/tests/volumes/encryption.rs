//! Volumes that lie encrypted, with monitors that have no machines.

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;
use hearth_api::agent::snapshot_observation::State;
use hearth_api::agent::volume_observation::State as Attachment;
use hearth_api::agent::{InstanceIntent, InstanceVolume};

use super::{DATA, MIB, blank};
use crate::common::Cloud;
use crate::common::keys::files_with;

const ROOT: &str = "vol-of-i-1";
/// A run of what the guest writes.
const WRITTEN: [u8; 256] = [0xA5; 256];

fn encrypted(epoch: u64) -> InstanceVolume {
    InstanceVolume {
        encrypted: true,
        ..blank(epoch)
    }
}

impl Cloud {
    /// One whose root volume lies encrypted, on a base that is plain or not.
    fn sealed(&self, id: &str, on_encrypted: bool) -> InstanceIntent {
        let mut intent = self.intent(id, 64);
        intent.volumes[0].encrypted = true;
        intent.volumes[0].image_encrypted = on_encrypted;
        intent
    }

    fn asked(&self) -> Vec<String> {
        self.keys.lock().unwrap().asked.clone()
    }

    fn refuse_keys(&self, reason: Option<&'static str>) {
        self.keys.lock().unwrap().refused = reason;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_volume_holds_no_plaintext_and_its_snapshots_are_what_was_written() {
    let mut cloud = Cloud::new().await;
    let (root, data) = (cloud.encrypt(ROOT), cloud.encrypt(DATA));
    // Its repository would find another key.
    cloud
        .snapshots
        .lock()
        .unwrap()
        .forgotten
        .insert("ami-1".to_owned());
    cloud.start_agent();
    let intent = cloud.sealed("i-1", false);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    cloud.attach("i-1", encrypted(1));
    cloud.until_state("i-1", Attachment::Attached, 1).await;
    assert_eq!(cloud.asked(), [ROOT, DATA]);

    let line = format!("700 {} 165\nflush", 3 * MIB);
    cloud.write(DATA, &line).await;
    cloud.write(ROOT, &line).await;
    cloud.hold_snapshots(true);
    cloud.want_snapshot("snap-1", DATA);
    cloud.until_snapshot("snap-1", State::Frozen).await;
    // What was there is copied beside the volume.
    cloud.write(DATA, &format!("0 {} 90\nflush", 4 * MIB)).await;
    let side = cloud.volume_dir(DATA).join("snap-1/frozen");
    assert!(std::fs::metadata(side).unwrap().len() > 4 * MIB);
    for bytes in [&WRITTEN[..], &[90; 256]] {
        assert_eq!(files_with(&cloud.data_dir().join("volumes"), bytes), [""; 0]);
    }
    cloud.hold_snapshots(false);
    cloud.until_snapshot("snap-1", State::Stored).await;
    let mut expected = vec![0; 4 * MIB as usize];
    expected[700..][..3 * MIB as usize].fill(165);
    assert!(cloud.stored("snap-1").contents() == expected);
    cloud.until_thawed(DATA, "snap-1").await;

    // Of an encrypted volume on a plain image all is sent.
    cloud.want_snapshot("snap-2", ROOT);
    cloud.until_snapshot("snap-2", State::Stored).await;
    let stored = cloud.stored("snap-2");
    let mut expected = vec![7; MIB as usize];
    expected.resize(8 * MIB as usize, 0);
    expected[700..][..3 * MIB as usize].fill(165);
    assert!(stored.base.is_empty() && stored.contents() == expected);

    // Stopped, snapshotted by the agent alone, and started with its keys anew.
    cloud.change("i-1", |intent| intent.set_desired(Desired::Stopped));
    cloud.until_phase("i-1", Phase::Ended, 1).await;
    cloud.kill_agent();
    cloud.start_agent();
    cloud.want_snapshot("snap-3", DATA);
    cloud.until_snapshot("snap-3", State::Stored).await;
    assert!(cloud.stored("snap-3").contents() == [90; 4 * MIB as usize]);
    let before = cloud.asked().len();
    cloud.change("i-1", |intent| {
        intent.run = 2;
        intent.set_desired(Desired::Running);
    });
    cloud.until_phase("i-1", Phase::Running, 2).await;
    assert_eq!(cloud.asked()[before..], [ROOT, DATA]);
    cloud.write(DATA, "0 512 1\nflush").await;

    // What lies in the files is XTS of it, by the numbers of the sectors.
    for (id, cipher, at, byte) in [(DATA, data, 8, 90), (ROOT, root, 8, 165)] {
        let contents = std::fs::read(cloud.volume_dir(id).join("data")).unwrap();
        let mut sector = contents[at * 512..][..512].to_vec();
        cipher.decrypt(&mut sector, at as u64).unwrap();
        assert_eq!(sector, [byte; 512], "{id}");
    }
    // Keys are written nowhere.
    let keys = cloud.keys.lock().unwrap().all();
    for key in keys {
        assert_eq!(files_with(cloud.dir.path(), &key), [""; 0]);
        let text = hex::encode(&key);
        assert_eq!(files_with(cloud.dir.path(), text.as_bytes()), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_fails_the_launch_and_the_attachment_with_the_reason() {
    const REASON: &str = "the KMS key is disabled: enable it";
    let mut cloud = Cloud::new().await;
    cloud.encrypt(ROOT);
    cloud.encrypt(DATA);
    cloud.refuse_keys(Some(REASON));
    cloud.start_agent();
    let intent = cloud.sealed("i-1", false);
    cloud.want(|all| all.push(intent));
    let end = cloud.until_phase("i-1", Phase::Ended, 1).await.end.unwrap();
    assert_eq!(end.cause(), Cause::StartFailed);
    assert!(
        end.message.contains(REASON) && end.message.contains(ROOT),
        "{}",
        end.message
    );
    cloud.refuse_keys(None);
    // What is no key is not used.
    cloud
        .keys
        .lock()
        .unwrap()
        .given
        .insert(ROOT.to_owned(), vec![1; 63]);
    cloud.change("i-1", |intent| intent.run = 2);
    let end = cloud.until_phase("i-1", Phase::Ended, 2).await.end.unwrap();
    assert!(end.message.contains("none of AES-256-XTS"), "{}", end.message);
    cloud.encrypt(ROOT);
    cloud.change("i-1", |intent| intent.run = 3);
    cloud.until_phase("i-1", Phase::Running, 3).await;

    cloud.refuse_keys(Some(REASON));
    cloud.attach("i-1", encrypted(1));
    cloud.until_message("i-1", REASON).await;
    cloud.refuse_keys(None);
    cloud.until_state("i-1", Attachment::Attached, 1).await;

    // A snapshot cannot be told without it. The guest goes on.
    cloud.write(DATA, "0 512 1\nflush").await;
    cloud.refuse_keys(Some(REASON));
    cloud.want_snapshot("snap-1", DATA);
    let message = cloud.until_snapshot("snap-1", State::Failed).await;
    assert!(message.contains(REASON), "{message}");
    cloud.write(DATA, "0 512 2\nflush").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_waits_for_a_control_plane_that_is_away_and_has_the_key() {
    let mut cloud = Cloud::new().await;
    cloud.encrypt(ROOT);
    cloud.start_agent();
    // The base is there.
    cloud.run("i-2", 64).await;
    let intent = cloud.sealed("i-1", false);
    cloud.control_plane_dies().await;
    cloud.want(|all| all.push(intent));
    cloud.control_plane_returns().await;
    cloud.until_phase("i-1", Phase::Running, 1).await;

    // One that runs needs nobody.
    cloud.control_plane_dies().await;
    cloud.kill_agent();
    cloud.start_agent();
    cloud.write(ROOT, "0 512 1\nflush").await;
    cloud.control_plane_returns().await;
    cloud.until_phase("i-1", Phase::Running, 1).await;
    assert_eq!(cloud.asked(), [ROOT]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_another_way_than_it_is_said_to_is_not_touched() {
    let mut cloud = Cloud::new().await;
    cloud.encrypt(DATA);
    cloud.encrypt("ami-1");
    cloud.start_agent();
    cloud.run("i-1", 64).await;
    cloud.attach("i-1", blank(1));
    cloud.until_state("i-1", Attachment::Attached, 1).await;
    cloud.write(DATA, "0 512 1\nflush").await;
    let before = std::fs::read(cloud.volume_dir(DATA).join("data")).unwrap();
    cloud.change("i-1", |intent| intent.set_desired(Desired::Stopped));
    cloud.until_phase("i-1", Phase::Ended, 1).await;
    let fails = async |cloud: &mut Cloud, run: u64, words: &str| {
        let end = cloud.until_phase("i-1", Phase::Ended, run).await.end.unwrap();
        assert!(end.message.contains(words), "{}", end.message);
    };
    cloud.change("i-1", |intent| {
        (intent.run, intent.volumes[1].encrypted) = (2, true);
        intent.set_desired(Desired::Running);
    });
    fails(&mut cloud, 2, "vol-data lies plain on this host").await;
    assert!(std::fs::read(cloud.volume_dir(DATA).join("data")).unwrap() == before);

    // A base too, and a plain volume is never on an encrypted one.
    cloud.change("i-1", |intent| {
        intent.volumes[1].encrypted = false;
        intent.volumes[0].image_encrypted = true;
        intent.volumes[0].encrypted = true;
        intent.run = 3;
    });
    fails(&mut cloud, 3, "ami-1 lies plain on this host").await;
    cloud.change("i-1", |intent| {
        intent.volumes[0].encrypted = false;
        intent.run = 4;
    });
    fails(&mut cloud, 4, "vol-of-i-1 is to lie plain on ami-1").await;
    cloud.change("i-1", |intent| {
        intent.volumes[0].image_encrypted = false;
        intent.run = 5;
    });
    cloud.until_phase("i-1", Phase::Running, 5).await;
}
