//! Volumes that come, go, grow and are limited while instances run, with monitors that have no machines.

mod encryption;
mod moves;
mod snapshots;

use std::path::PathBuf;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::volume_intent::Desired as Fate;
use hearth_api::agent::volume_observation::State;
use hearth_api::agent::{InstanceIntent, InstanceVolume, VolumeIntent, VolumeObservation};

use crate::common::{Cloud, PATIENCE, SmallDisk};

const MIB: u64 = 1 << 20;
const DATA: &str = "vol-data";

/// A blank one.
fn blank(epoch: u64) -> InstanceVolume {
    InstanceVolume {
        volume_id: DATA.to_owned(),
        size_bytes: 4 * MIB,
        attachment_epoch: epoch,
        device_name: "/dev/sdf".to_owned(),
        iops: 100,
        throughput_mib: 1,
        ..InstanceVolume::default()
    }
}

impl Cloud {
    async fn run(&mut self, id: &str, memory_mib: u64) {
        let intent = self.intent(id, memory_mib);
        self.want(|all| all.push(intent));
        self.until_phase(id, Phase::Running, 1).await;
    }

    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut InstanceIntent)) {
        self.want(|all| change(all.iter_mut().find(|intent| intent.instance_id == id).unwrap()));
    }

    pub(crate) fn attach(&self, id: &str, volume: InstanceVolume) {
        self.change(id, |intent| intent.volumes.push(volume));
    }

    /// Changes the instance's second volume.
    pub(crate) fn alter(&self, id: &str, change: impl FnOnce(&mut InstanceVolume)) {
        self.change(id, |intent| change(&mut intent.volumes[1]));
    }

    /// Waits until the agent says of the instance's second volume what `is` wants to hear.
    pub(crate) async fn until_volume(
        &mut self,
        id: &str,
        is: impl Fn(&VolumeObservation) -> bool,
    ) -> VolumeObservation {
        let second = self.volume_id(id);
        let is = |seen: &VolumeObservation| seen.volume_id == second && is(seen);
        let seen = self.until(id, |seen| seen.volumes.iter().any(&is)).await;
        seen.volumes.into_iter().find(is).unwrap()
    }

    fn volume_id(&self, id: &str) -> String {
        let intents = self.intents.borrow();
        let intent = intents.instances.iter().find(|intent| intent.instance_id == id);
        intent.unwrap().volumes[1].volume_id.clone()
    }

    pub(crate) async fn until_state(&mut self, id: &str, state: State, epoch: u64) -> VolumeObservation {
        self.until_volume(id, |it| it.state() == state && it.attachment_epoch == epoch)
            .await
    }

    async fn until_message(&mut self, id: &str, words: &str) {
        let seen = self.until_volume(id, |it| it.message.contains(words)).await;
        assert_eq!(seen.state(), State::Attaching);
    }

    fn volume(&self) -> PathBuf {
        self.data_dir().join("volumes").join(DATA)
    }

    /// Waits until the instance's newest monitor has said it.
    async fn until_said(&self, id: &str, words: &str) {
        let saying = async {
            while !self.said(id).contains(words) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, saying).await;
        assert!(said.is_ok(), "{words}: {}", self.said(id));
    }

    fn said(&self, id: &str) -> String {
        std::fs::read_to_string(self.data_dir().join("instances").join(id).join("monitor.log")).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_come_grow_are_limited_and_go_while_their_instance_runs() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    cloud.run("i-1", 64).await;
    cloud.attach("i-1", blank(1));
    let seen = cloud.until_state("i-1", State::Attached, 1).await;
    assert_eq!((seen.size_bytes, seen.message.as_str()), (4 * MIB, ""));
    assert_eq!(std::fs::read_to_string(cloud.volume().join("image")).unwrap(), "");

    cloud.alter("i-1", |volume| volume.size_bytes = 6 * MIB);
    let grown = |seen: &VolumeObservation| seen.size_bytes == 6 * MIB;
    assert_eq!(cloud.until_volume("i-1", grown).await.state(), State::Attached);
    cloud.alter("i-1", |volume| volume.iops = 200);
    cloud.change("i-1", |intent| intent.volumes[0].throughput_mib = 3);
    for limit in [
        "operations: Some(Rate { per_second: 200, burst: 0 }), bytes: Some(Rate { per_second: 1048576, burst: 0 })",
        "operations: None, bytes: Some(Rate { per_second: 3145728, burst: 0 })",
    ] {
        cloud.until_said("i-1", limit).await;
    }
    // Nothing is asked for that is done.
    cloud.kill_agent();
    cloud.start_agent();
    cloud.until_state("i-1", State::Attached, 1).await;
    let said = cloud.said("i-1");
    for (request, times) in [
        ("AttachDisk", 1),
        ("Resize", 1),
        ("SetRateLimit", 2),
        ("Detach", 0),
    ] {
        assert_eq!(said.matches(&format!("asked {request}")).count(), times, "{said}");
    }

    cloud.alter("i-1", |volume| volume.detaching = true);
    cloud.until_state("i-1", State::Detached, 1).await;
    // Somewhere else, where it is there after a reboot, and after a stop and a start.
    cloud.run("i-2", 64).await;
    cloud.change("i-1", |intent| drop(intent.volumes.pop()));
    let volume = InstanceVolume {
        size_bytes: 6 * MIB,
        has_run: true,
        ..blank(2)
    };
    cloud.attach("i-2", volume);
    cloud.until_state("i-2", State::Attached, 2).await;
    cloud.change("i-2", |intent| intent.reboot = 1);
    cloud.until("i-2", |seen| seen.reboot == 1).await;
    cloud.until_said("i-2", "has vol-of-i-2 vol-data and").await;
    cloud.change("i-2", |intent| intent.set_desired(Desired::Stopped));
    cloud.until_phase("i-2", Phase::Ended, 1).await;
    let seen = cloud.until_state("i-2", State::Attached, 2).await;
    assert_eq!(seen.size_bytes, 0);
    // It grows while nobody has it open.
    cloud.change("i-2", |intent| {
        intent.run = 2;
        intent.set_desired(Desired::Running);
        intent.volumes[1].size_bytes = 8 * MIB;
    });
    cloud.until_volume("i-2", |seen| seen.size_bytes == 8 * MIB).await;
    // Who stops does not have to ask the guest.
    cloud.change("i-2", |intent| intent.set_desired(Desired::Stopped));
    cloud.until_phase("i-2", Phase::Ended, 2).await;
    cloud.alter("i-2", |volume| volume.detaching = true);
    cloud.until_state("i-2", State::Detached, 2).await;

    cloud.change("i-2", |intent| intent.set_desired(Desired::Terminated));
    cloud.until_phase("i-2", Phase::Gone, 2).await;
    assert!(cloud.volume().exists(), "it is not deleted on termination");
    cloud.change("i-2", |intent| drop(intent.volumes.pop()));
    cloud.want_volumes(vec![VolumeIntent {
        volume_id: DATA.to_owned(),
        desired: Fate::Erased.into(),
        epoch: 2,
    }]);
    cloud.until_erased(&[DATA]).await;
    assert!(!cloud.volume().exists());
}

/// Dies at each step of an attachment, of a growth, and of a detachment.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_a_volume_is_attached_once_grown_and_let_go() {
    for point in [
        "volume-laid",
        "volume-recorded",
        "volume-attached",
        "volume-grown",
        "volume-detached",
    ] {
        let mut cloud = Cloud::new().await;
        cloud.start_agent();
        cloud.run("i-1", 64).await;
        let monitor = cloud.living("i-1");
        if ["volume-grown", "volume-detached"].contains(&point) {
            cloud.attach("i-1", blank(1));
            cloud.until_state("i-1", State::Attached, 1).await;
        }
        cloud.kill_agent();
        cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", point)]);
        match point {
            "volume-grown" => cloud.alter("i-1", |volume| volume.size_bytes = 8 * MIB),
            "volume-detached" => cloud.alter("i-1", |volume| volume.detaching = true),
            _ => cloud.attach("i-1", blank(1)),
        }
        cloud.agent_died().await;
        cloud.start_agent();
        match point {
            "volume-grown" => {
                cloud.until_volume("i-1", |seen| seen.size_bytes == 8 * MIB).await;
            }
            "volume-detached" => {
                cloud.until_state("i-1", State::Detached, 1).await;
            }
            _ => {
                cloud.until_state("i-1", State::Attached, 1).await;
            }
        }
        assert_eq!(cloud.living("i-1"), monitor, "{point}");
        let said = cloud.said("i-1");
        assert_eq!(said.matches("asked AttachDisk").count(), 1, "{point}: {said}");
        let volumes = std::fs::read_dir(cloud.data_dir().join("volumes")).unwrap();
        assert_eq!(volumes.count(), 2, "{point}: half-made volumes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_attached_says_why_and_no_other_takes_its_place() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    cloud.run("i-1", 64).await;
    cloud.run("i-2", 64).await;
    // It had data, and they are not here.
    cloud.attach(
        "i-1",
        InstanceVolume {
            has_run: true,
            ..blank(1)
        },
    );
    cloud.until_message("i-1", "volume vol-data, with which").await;
    assert!(!cloud.volume().exists());
    // It is another's.
    cloud.alter("i-1", |volume| *volume = blank(3));
    cloud.until_state("i-1", State::Attached, 3).await;
    cloud.attach("i-2", blank(4));
    cloud
        .until_message("i-2", "volume vol-data is in use by another process")
        .await;
    // An older attachment.
    cloud.alter("i-2", |volume| volume.attachment_epoch = 2);
    cloud
        .until_message("i-2", "was attached again since: this host has seen attachment")
        .await;
    // It is tried again.
    cloud.alter("i-2", |volume| volume.attachment_epoch = 5);
    cloud.until_message("i-2", "is in use").await;
    cloud.alter("i-1", |volume| volume.detaching = true);
    cloud.until_state("i-1", State::Detached, 3).await;
    cloud.until_state("i-2", State::Attached, 5).await;
    // What has its data here does not come back without them, though nobody says that it had any.
    cloud.alter("i-2", |volume| volume.detaching = true);
    cloud.until_state("i-2", State::Detached, 5).await;
    let aside = cloud.data_dir().join("aside");
    std::fs::rename(cloud.volume(), &aside).unwrap();
    cloud.alter("i-2", |volume| *volume = blank(6));
    cloud.until_message("i-2", "volume vol-data, with which").await;
    assert!(!cloud.volume().exists());
    // Nor without one of its files.
    std::fs::rename(&aside, cloud.volume()).unwrap();
    let (data, kept) = (cloud.volume().join("data"), cloud.volume().join("kept"));
    std::fs::rename(&data, &kept).unwrap();
    cloud
        .until_message("i-2", "volumes/vol-data/data: No such file")
        .await;
    assert!(!data.exists());
    std::fs::rename(&kept, &data).unwrap();
    cloud.until_state("i-2", State::Attached, 6).await;
    assert_eq!(cloud.living("i-2").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_the_full_disk_has_no_room_for_is_attached_when_it_has() {
    let mut cloud = Cloud::new().await;
    std::fs::create_dir(cloud.data_dir()).unwrap();
    let Some(_small) = SmallDisk::mount(&cloud.data_dir(), "64m") else {
        eprintln!("SKIPPED: a_volume_that_the_full_disk_has_no_room_for: mounting a tmpfs needs root");
        return;
    };
    cloud.start_agent();
    cloud.run("i-1", 64).await;
    // The map of so large a volume takes 2 MiB, and as many are left at most.
    let filler = cloud.data_dir().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    file.set_len(file.metadata().unwrap().len() - MIB - MIB / 2)
        .unwrap();
    cloud.attach(
        "i-1",
        InstanceVolume {
            size_bytes: 256 << 30,
            ..blank(1)
        },
    );
    cloud.until_message("i-1", "No space left on device").await;
    let volumes = std::fs::read_dir(cloud.data_dir().join("volumes")).unwrap();
    assert_eq!(volumes.count(), 1, "half-made volumes");
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    cloud.until_state("i-1", State::Attached, 1).await;
    // Its consoles, by which its monitors are found, go with the disk.
    cloud.power_cut();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_let_a_volume_go_is_busy_until_it_is_forced() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    cloud.run("i-1", 33).await;
    cloud.attach("i-1", blank(1));
    cloud.until_state("i-1", State::Attached, 1).await;
    cloud.alter("i-1", |volume| volume.detaching = true);
    let seen = cloud.until_state("i-1", State::Busy, 1).await;
    assert_eq!(seen.size_bytes, 4 * MIB);
    cloud.kill_agent();
    cloud.start_agent();
    cloud.until_state("i-1", State::Busy, 1).await;
    let is_told =
        |seen: &VolumeObservation| seen.message.contains("the guest was asked to let the volume go");
    cloud.until_volume("i-1", is_told).await;
    // Asked again.
    let before = cloud.said("i-1").matches("asked Detach").count();
    let again = async {
        while cloud.said("i-1").matches("asked Detach").count() == before {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .expect("the guest is not asked again");
    cloud.alter("i-1", |volume| volume.force_detach = true);
    cloud.until_state("i-1", State::Detached, 1).await;
    assert_eq!(cloud.living("i-1").len(), 1);
}
