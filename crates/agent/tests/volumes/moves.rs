//! What a host does when an instance leaves it, and a volume: it stores the volume, and erases it when another host has it. And
//! when the volume comes back.

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::snapshot_observation::State;
use hearth_api::agent::volume_intent::Desired as Fate;
use hearth_api::agent::volume_observation::State as Attachment;
use hearth_api::agent::{InstanceVolume, VolumeIntent};

use super::{DATA, blank};
use crate::common::Cloud;

const MOVE: &str = "move-1";
const ROOT: &str = "vol-of-i-1";

/// Dies at each step of storing the volume.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_leaves_its_host_whole_and_comes_back_as_another_one() {
    for point in [
        "",
        "snapshot-frozen",
        "snapshot-sent",
        "snapshot-stored",
        "snapshot-commits",
    ] {
        let mut cloud = Cloud::new().await;
        cloud.start_agent();
        cloud.run("i-1", 64).await;
        cloud.attach("i-1", blank(1));
        cloud.until_state("i-1", Attachment::Attached, 1).await;
        cloud.write(DATA, "100 1000 7\nflush").await;

        // As long as somebody has it open it is not stored.
        cloud.want_snapshot(MOVE, DATA);
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        assert!(
            cloud.snapshots.lock().unwrap().stored.is_empty(),
            "it is written to"
        );
        cloud.want_snapshots(Vec::new());
        cloud.change("i-1", |intent| intent.set_desired(Desired::Stopped));
        cloud.until_phase("i-1", Phase::Ended, 1).await;

        // The instance leaves: nothing is left of it but its volumes.
        cloud.change("i-1", |intent| {
            intent.set_desired(Desired::Terminated);
            intent.volumes.clear();
            intent.network_interfaces.clear();
        });
        cloud.until_phase("i-1", Phase::Gone, 1).await;
        cloud.want(Vec::clear);
        cloud.until_unknown_to_agent("i-1").await;
        assert!(!cloud.data_dir().join("instances/i-1").exists());
        assert!(cloud.volume_dir(ROOT).exists() && cloud.volume_dir(DATA).exists());

        if !point.is_empty() {
            cloud.kill_agent();
            cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", point)]);
        }
        cloud.want_snapshot(MOVE, DATA);
        if !point.is_empty() {
            cloud.agent_died().await;
            cloud.start_agent();
        }
        cloud.until_snapshot(MOVE, State::Stored).await;
        let contents = cloud.stored(MOVE).contents();
        assert!(contents[100..1100].iter().all(|byte| *byte == 7), "{point}");
        assert_eq!(
            contents.iter().filter(|byte| **byte != 0).count(),
            1000,
            "{point}"
        );
        cloud.want_snapshots(Vec::new());
        cloud.want_volumes(vec![VolumeIntent {
            volume_id: DATA.to_owned(),
            desired: Fate::Erased.into(),
            epoch: 3,
        }]);
        cloud.until_erased(&[DATA]).await;
        assert!(!cloud.volume_dir(DATA).exists(), "{point}");
        cloud.want_volumes(Vec::new());
        cloud.until_erased(&[]).await;

        // Both come back. The volume begins with something else now.
        let mut intent = cloud.intent("i-1", 64);
        intent.run = 2;
        let size = intent.volumes[0].image_size_bytes;
        let came = |base: &str, epoch| InstanceVolume {
            image_id: base.to_owned(),
            image_size_bytes: size,
            attachment_epoch: epoch,
            ..blank(epoch)
        };
        intent.volumes.push(came("move-2", 5));
        cloud.want(|all| all.push(intent));
        cloud.until_phase("i-1", Phase::Running, 2).await;
        cloud.until_state("i-1", Attachment::Attached, 5).await;
        let base = std::fs::read_to_string(cloud.volume_dir(DATA).join("image"));
        assert_eq!(base.unwrap(), "move-2");

        // What a host has of a volume that was elsewhere since is not the volume.
        cloud.alter("i-1", |volume| volume.detaching = true);
        cloud.until_state("i-1", Attachment::Detached, 5).await;
        cloud.change("i-1", |intent| drop(intent.volumes.pop()));
        cloud.attach("i-1", came("move-3", 7));
        let seen = cloud
            .until_volume("i-1", |seen| seen.message.contains("before it moved"))
            .await;
        assert_eq!(seen.state(), Attachment::Attaching);
        cloud.want_volumes(Vec::new());
    }
}
