//! Snapshots of volumes that stand-in monitors write to, or nobody.

use std::time::Duration;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::snapshot_observation::State;
use hearth_api::agent::volume_observation::State as Attachment;
use hearth_api::agent::{InstanceVolume, SnapshotIntent, VolumeIntent};

use super::{DATA, MIB, blank};
use crate::common::{Cloud, SmallDisk};

const UNIT: usize = 512 << 10;

/// A disk as it should be.
struct Model(Vec<u8>);

impl Model {
    fn blank() -> Model {
        Model(vec![0; 4 * MIB as usize])
    }

    /// Has the guest write, and follows.
    async fn write(&mut self, cloud: &Cloud, offset: usize, len: usize, byte: u8) {
        cloud.write(DATA, &format!("{offset} {len} {byte}\nflush")).await;
        self.0[offset..][..len].fill(byte);
    }
}

impl Cloud {
    async fn with_data_volume() -> Cloud {
        let mut cloud = Cloud::new().await;
        cloud.start_agent();
        cloud.run("i-1", 64).await;
        cloud.attach("i-1", blank(1));
        cloud.until_state("i-1", Attachment::Attached, 1).await;
        cloud
    }

    /// Makes a snapshot of the data volume, and answers which chunks were sent for it.
    async fn snapshot(&self, id: &str, model: &Model) -> Vec<u64> {
        self.want_snapshot(id, DATA);
        self.until_snapshot(id, State::Stored).await;
        self.until_thawed(DATA, id).await;
        let stored = self.stored(id);
        assert!(stored.contents() == model.0, "{id} is not the volume");
        stored.sent
    }

    async fn is_frozen(&self, id: &str) {
        self.want_snapshot(id, DATA);
        self.until_snapshot(id, State::Frozen).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_a_running_volume_are_of_their_time_and_send_what_changed() {
    let mut cloud = Cloud::with_data_volume().await;
    let mut model = Model::blank();
    model.write(&cloud, 100, 1000, 1).await;
    model.write(&cloud, 3 * UNIT - 5, 10, 2).await;
    assert_eq!(cloud.snapshot("snap-1", &model).await, [0, 2, 3]);
    assert_eq!(cloud.stored("snap-1").base, "");
    assert_eq!(cloud.snapshot("snap-2", &model).await, [0; 0]);
    assert_eq!(cloud.stored("snap-2").base, "snap-1");
    model.write(&cloud, UNIT, 1, 3).await;
    cloud.write(DATA, &format!("freed 0 {UNIT}\nflush")).await;
    model.0[..UNIT].fill(0);
    assert_eq!(cloud.snapshot("snap-3", &model).await, [0, 1]);

    // What is written meanwhile is not in it, and in the next.
    model.write(&cloud, 0, 2 * UNIT, 4).await;
    let then = Model(model.0.clone());
    cloud.hold_snapshots(true);
    cloud.is_frozen("snap-4").await;
    model.write(&cloud, 0, 3 * UNIT, 5).await;
    cloud.write(DATA, &format!("freed {} {UNIT}", 2 * UNIT)).await;
    model.0[2 * UNIT..3 * UNIT].fill(0);
    cloud.hold_snapshots(false);
    assert_eq!(cloud.snapshot("snap-4", &then).await, [0, 1]);
    assert_eq!(cloud.snapshot("snap-5", &model).await, [0, 1, 2]);

    // It is repeated from the beginning.
    model.write(&cloud, 4 * UNIT, UNIT, 6).await;
    model.write(&cloud, 6 * UNIT, UNIT, 7).await;
    cloud.snapshots.lock().unwrap().cut = 2;
    assert_eq!(cloud.snapshot("snap-6", &model).await, [4, 6]);

    // It grows, also while it is frozen.
    model.write(&cloud, 7 * UNIT, UNIT, 8).await;
    cloud.hold_snapshots(true);
    cloud.is_frozen("snap-7").await;
    cloud.alter("i-1", |volume| volume.size_bytes = 6 * MIB);
    cloud.until_volume("i-1", |seen| seen.size_bytes == 6 * MIB).await;
    let then = Model(model.0.clone());
    model.0.resize(6 * MIB as usize, 0);
    model.write(&cloud, 8 * UNIT - 1, UNIT, 9).await;
    cloud.hold_snapshots(false);
    assert_eq!(cloud.snapshot("snap-7", &then).await, [7]);
    assert_eq!(cloud.snapshot("snap-8", &model).await, [7, 8]);

    // The root volume has a base, whose contents are not sent.
    cloud.write("vol-of-i-1", "5 1 1").await;
    cloud.want_snapshot("snap-9", "vol-of-i-1");
    cloud.until_snapshot("snap-9", State::Stored).await;
    let stored = cloud.stored("snap-9");
    assert_eq!(
        (stored.sent.as_slice(), stored.base.as_str()),
        (&[0][..], "ami-1")
    );
    let mut expected = vec![7; MIB as usize];
    expected[5] = 1;
    expected.resize(8 * MIB as usize, 0);
    assert!(stored.contents() == expected);
    cloud.want_snapshots(Vec::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_nobody_serves_is_snapshotted_and_may_be_served_meanwhile() {
    let mut cloud = Cloud::with_data_volume().await;
    let mut model = Model::blank();
    model.write(&cloud, 0, 2 * UNIT, 1).await;
    cloud.change("i-1", |intent| intent.set_desired(Desired::Stopped));
    cloud.until_phase("i-1", Phase::Ended, 1).await;
    assert_eq!(cloud.snapshot("snap-1", &model).await, [0, 1]);

    cloud.hold_snapshots(true);
    cloud.is_frozen("snap-2").await;
    let then = Model(model.0.clone());
    cloud.change("i-1", |intent| {
        intent.run = 2;
        intent.set_desired(Desired::Running);
    });
    cloud.until_state("i-1", Attachment::Attached, 1).await;
    cloud.until_phase("i-1", Phase::Running, 2).await;
    model.write(&cloud, UNIT, 1, 2).await;
    // Whoever serves it next has to go on with it.
    cloud.change("i-1", |intent| intent.reboot = 1);
    cloud.until("i-1", |seen| seen.reboot == 1).await;
    model.write(&cloud, UNIT / 2, UNIT, 3).await;
    cloud.hold_snapshots(false);
    assert_eq!(cloud.snapshot("snap-2", &then).await, [0; 0]);
    model.write(&cloud, 7 * UNIT, 1, 4).await;
    assert_eq!(cloud.snapshot("snap-3", &model).await, [0, 1, 7]);

    // One from before there were dirty maps: what is in it, as changes of what it was laid on.
    cloud.change("i-1", |intent| intent.set_desired(Desired::Stopped));
    cloud.until_phase("i-1", Phase::Ended, 2).await;
    std::fs::remove_file(cloud.volume_dir(DATA).join("dirty")).unwrap();
    assert_eq!(cloud.snapshot("snap-4", &model).await, [0, 1, 7]);
    assert_eq!(cloud.stored("snap-4").base, "");
    // It has grown since.
    cloud.alter("i-1", |volume| volume.size_bytes = 5 * MIB);
    std::fs::File::options()
        .write(true)
        .open(cloud.volume_dir(DATA).join("data"))
        .unwrap()
        .set_len(5 * MIB)
        .unwrap();
    model.0.resize(5 * MIB as usize, 0);
    assert_eq!(cloud.snapshot("snap-5", &model).await, [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_a_snapshot_the_agent_goes_on_with_it() {
    for point in [
        "snapshot-prepared",
        "snapshot-frozen",
        "snapshot-sent",
        "snapshot-stored",
        "snapshot-commits",
    ] {
        eprintln!("{point}");
        let mut cloud = Cloud::with_data_volume().await;
        let mut model = Model::blank();
        model.write(&cloud, 0, 3 * UNIT, 1).await;
        cloud.snapshot("snap-1", &model).await;
        model.write(&cloud, UNIT, UNIT, 2).await;
        cloud.kill_agent();
        cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", point)]);
        cloud.want_snapshot("snap-2", DATA);
        cloud.agent_died().await;
        let mut then = Model(model.0.clone());
        model.write(&cloud, 2 * UNIT, UNIT, 3).await;
        if point == "snapshot-prepared" {
            // It may be frozen already, or only now.
            cloud.start_agent();
            cloud.until_snapshot("snap-2", State::Stored).await;
            then = Model(cloud.stored("snap-2").contents());
        } else {
            cloud.start_agent();
        }
        let sent = cloud.snapshot("snap-2", &then).await;
        assert!(
            sent == [1] || point == "snapshot-prepared" && sent == [1, 2],
            "{point}: {sent:?}"
        );
        model.write(&cloud, 7 * UNIT, 1, 4).await;
        cloud.snapshot("snap-3", &model).await;
        assert_eq!(cloud.stored("snap-3").base, "snap-2", "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_abandoned_or_refused_gives_its_marks_back() {
    let mut cloud = Cloud::with_data_volume().await;
    let mut model = Model::blank();
    model.write(&cloud, 0, UNIT, 1).await;
    cloud.snapshot("snap-1", &model).await;
    model.write(&cloud, 2 * UNIT, UNIT, 2).await;
    // The intent goes.
    cloud.hold_snapshots(true);
    cloud.is_frozen("snap-2").await;
    model.write(&cloud, 3 * UNIT, UNIT, 3).await;
    cloud.want_snapshots(Vec::new());
    cloud.until_thawed(DATA, "snap-2").await;
    // So it does while the agent is away, and is killed as it hears of it.
    cloud.is_frozen("snap-3").await;
    cloud.kill_agent();
    cloud.want_snapshots(Vec::new());
    cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", "snapshot-abandons")]);
    cloud.agent_died().await;
    cloud.start_agent();
    cloud.until_thawed(DATA, "snap-3").await;
    cloud.hold_snapshots(false);
    // Nobody wants it.
    cloud
        .snapshots
        .lock()
        .unwrap()
        .unwanted
        .insert("snap-4".to_owned());
    cloud.want_snapshot("snap-4", DATA);
    let message = cloud.until_snapshot("snap-4", State::Failed).await;
    assert_eq!(message, "the control plane does not take it: nobody wants it");
    // The next agent does not make another in its place.
    cloud.kill_agent();
    cloud.start_agent();
    assert_eq!(cloud.until_snapshot("snap-4", State::Failed).await, message);
    assert_eq!(cloud.snapshot("snap-5", &model).await, [2, 3]);
    assert_eq!(cloud.stored("snap-5").base, "snap-1");
    cloud.until_thawed(DATA, "snap-4").await;

    // Its base is not there any more: all of it is sent.
    cloud
        .snapshots
        .lock()
        .unwrap()
        .forgotten
        .insert("snap-5".to_owned());
    model.write(&cloud, 7 * UNIT, 1, 4).await;
    assert_eq!(cloud.snapshot("snap-6", &model).await, [0, 2, 3, 7]);
    assert_eq!(cloud.stored("snap-6").base, "");
    // Of a volume on an image that includes what the image has.
    cloud
        .snapshots
        .lock()
        .unwrap()
        .forgotten
        .insert("ami-1".to_owned());
    cloud.write("vol-of-i-1", &format!("{} 1 1", 5 * UNIT)).await;
    cloud.want_snapshot("snap-7", "vol-of-i-1");
    cloud.until_snapshot("snap-7", State::Stored).await;
    let stored = cloud.stored("snap-7");
    assert_eq!(stored.sent, [0, 1, 5]);
    let contents = stored.contents();
    assert!(contents[..MIB as usize].iter().all(|&byte| byte == 7));
    assert_eq!((contents[5 * UNIT], contents.len()), (1, 8 * MIB as usize));

    cloud.want_snapshot("snap-8", "vol-none");
    let message = cloud.until_snapshot("snap-8", State::Failed).await;
    assert_eq!(message, "its volume is not on this host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_killed_and_a_host_that_restarts_under_a_snapshot() {
    let mut cloud = Cloud::with_data_volume().await;
    let mut model = Model::blank();
    model.write(&cloud, 0, 4 * UNIT, 1).await;
    cloud.snapshot("snap-1", &model).await;
    // Written, and not flushed: it is in the snapshot, and the monitor's end loses it.
    let flushed = Model(model.0.clone());
    cloud
        .write(DATA, &format!("{} {UNIT} 2\n{UNIT} 1 3", 5 * UNIT))
        .await;
    model.0[5 * UNIT..6 * UNIT].fill(2);
    model.0[UNIT] = 3;
    cloud.hold_snapshots(true);
    cloud.is_frozen("snap-2").await;
    let then = Model(model.0.clone());
    let pid = rustix::process::Pid::from_raw(cloud.living("i-1")[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    cloud.until_phase("i-1", Phase::Ended, 1).await;
    cloud.change("i-1", |intent| intent.run = 2);
    cloud.until_phase("i-1", Phase::Running, 2).await;
    cloud.until_state("i-1", Attachment::Attached, 1).await;
    // Chunks that were there before keep what was written; the others are as they were laid.
    let mut model = flushed;
    model.0[UNIT] = 3;
    model.write(&cloud, 2 * UNIT, UNIT, 4).await;
    cloud.hold_snapshots(false);
    assert_eq!(cloud.snapshot("snap-2", &then).await, [1, 5]);
    assert_eq!(cloud.snapshot("snap-3", &model).await, [2, 5]);

    // The host restarts.
    model.write(&cloud, 3 * UNIT, 1, 6).await;
    cloud.hold_snapshots(true);
    cloud.is_frozen("snap-4").await;
    model.write(&cloud, 0, 1, 5).await;
    cloud.power_cut();
    cloud.hold_snapshots(false);
    cloud.start_agent();
    let message = cloud.until_snapshot("snap-4", State::Failed).await;
    assert_eq!(message, "its host restarted before it was stored");
    cloud.until_phase("i-1", Phase::Running, 2).await;
    cloud.until_state("i-1", Attachment::Attached, 1).await;
    // What was written since is not known: all of it is sent.
    assert_eq!(cloud.snapshot("snap-5", &model).await, [0, 1, 2, 3]);
    assert_eq!(cloud.stored("snap-5").base, "");
    assert_eq!(cloud.snapshot("snap-6", &model).await, [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_frozen_at_once_when_all_of_it_is_wanted() {
    let cloud = Cloud::with_data_volume().await;
    cloud.write(DATA, "0 1 1").await;
    cloud.write("vol-of-i-1", "0 1 1").await;
    let of = |id: &str, volume_id: &str| SnapshotIntent {
        snapshot_id: id.to_owned(),
        volume_id: volume_id.to_owned(),
        set_id: "set-1".to_owned(),
        set_size: 2,
        ..SnapshotIntent::default()
    };
    cloud.want_snapshots(vec![of("snap-1", DATA)]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(cloud.seen.borrow().snapshots.is_empty());
    cloud.want_snapshots(vec![of("snap-1", DATA), of("snap-2", "vol-of-i-1")]);
    cloud.until_snapshot("snap-1", State::Stored).await;
    cloud.until_snapshot("snap-2", State::Stored).await;
    assert_eq!(cloud.stored("snap-1").contents()[0], 1);
    assert_eq!(cloud.stored("snap-2").contents()[..2], [1, 7]);
    let said = cloud.said("i-1");
    let frozen: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("asked Freeze"))
        .collect();
    assert_eq!(frozen.len(), 1, "{said}");
    assert!(frozen[0].contains("snap-1") && frozen[0].contains("snap-2"));

    // One of it cannot be made, so none is.
    cloud.want_snapshots(vec![of("snap-3", DATA), of("snap-4", "vol-none")]);
    cloud.until_snapshot("snap-3", State::Failed).await;
    cloud.until_snapshot("snap-4", State::Failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_under_a_snapshot_fails_it_and_the_guest_goes_on() {
    let mut cloud = Cloud::new().await;
    std::fs::create_dir(cloud.data_dir()).unwrap();
    let Some(_small) = SmallDisk::mount(&cloud.data_dir(), "64m") else {
        eprintln!("SKIPPED: a_disk_that_is_full_under_a_snapshot: mounting a tmpfs needs root");
        return;
    };
    cloud.start_agent();
    cloud.run("i-1", 64).await;
    let volume = InstanceVolume {
        size_bytes: 16 * MIB,
        ..blank(1)
    };
    // More than is read ahead of what the control plane takes.
    cloud.attach("i-1", volume);
    cloud.until_state("i-1", Attachment::Attached, 1).await;
    let mut model = Model(vec![0; 16 * MIB as usize]);
    model.write(&cloud, 0, 32 * UNIT, 1).await;
    cloud.hold_snapshots(true);
    cloud.is_frozen("snap-1").await;
    let pen = cloud.volume_dir(DATA).join("pen");
    std::fs::write(pen.with_extension("half"), format!("0 {} 2", 32 * UNIT)).unwrap();
    let filler = cloud.data_dir().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    cloud.written(DATA).await;
    model.0.fill(2);
    cloud.hold_snapshots(false);
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    let message = cloud.until_snapshot("snap-1", State::Failed).await;
    assert!(message.contains("the host's disk is full"), "{message}");
    assert_eq!(cloud.snapshot("snap-2", &model).await.len(), 32);
    // Its consoles, by which its monitors are found, go with the disk.
    cloud.power_cut();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_erased_under_its_snapshot_is_stored_all_the_same() {
    let mut cloud = Cloud::with_data_volume().await;
    let mut model = Model::blank();
    model.write(&cloud, 0, 8 * UNIT, 1).await;
    cloud.alter("i-1", |volume| volume.detaching = true);
    cloud.until_state("i-1", Attachment::Detached, 1).await;
    cloud.change("i-1", |intent| drop(intent.volumes.pop()));
    cloud.hold_snapshots(true);
    cloud.is_frozen("snap-1").await;
    cloud.want_volumes(vec![VolumeIntent {
        volume_id: DATA.to_owned(),
        desired: super::Fate::Erased.into(),
        epoch: 1,
    }]);
    cloud.until_erased(&[DATA]).await;
    cloud.hold_snapshots(false);
    cloud.until_snapshot("snap-1", State::Stored).await;
    assert_eq!(cloud.stored("snap-1").sent.len(), 8);
}
