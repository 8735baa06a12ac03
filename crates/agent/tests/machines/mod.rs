//! Volumes of real guests: what the tiny AMI sees of them, and what is on them afterwards.

mod encryption;
mod snapshots;

use std::time::Instant;

use hearth_api::agent::InstanceVolume;
use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::volume_observation::State;

use crate::common::Cloud;

const MIB: u64 = 1 << 20;
const DATA: &str = "vol-0123456789abcdef0";
/// As stock systems name it.
const DISK: &str = "/dev/disk/by-id/virtio-vol0123456789abcdef0";

fn blank(epoch: u64) -> InstanceVolume {
    InstanceVolume {
        volume_id: DATA.to_owned(),
        size_bytes: 64 * MIB,
        attachment_epoch: epoch,
        device_name: "/dev/sdf".to_owned(),
        ..InstanceVolume::default()
    }
}

impl Cloud {
    /// Attaches the data volume, and waits until the guest has its disk.
    async fn plug(&mut self, id: &str, volume: InstanceVolume) {
        let epoch = volume.attachment_epoch;
        self.attach(id, volume);
        self.until_state(id, State::Attached, epoch).await;
        self.ssh_until(id, &format!("[ -b {DISK} ]")).await;
    }

    /// Asks the guest for the data volume, and waits until it is gone.
    async fn unplug(&mut self, id: &str, epoch: u64) {
        self.alter(id, |volume| volume.detaching = true);
        self.until_state(id, State::Detached, epoch).await;
        self.ssh_until(id, &format!("[ ! -e {DISK} ]")).await;
        self.change(id, |intent| drop(intent.volumes.pop()));
    }

    async fn boot(&mut self, number: u8) -> String {
        let intent = self.machine(number);
        let id = intent.instance_id.clone();
        self.want(|all| all.push(intent));
        self.until_phase(&id, Phase::Running, 1).await;
        id
    }

    /// Seconds that a command takes in the guest.
    async fn seconds(&self, id: &str, command: &str) -> f64 {
        let script = format!(
            "read -r a _ </proc/uptime; {command} >/dev/null 2>&1 || exit 1; read -r b _ </proc/uptime; echo $a $b"
        );
        let said = self.ssh(id, &script).await;
        let (begin, end) = said.split_once(' ').unwrap();
        end.parse::<f64>().unwrap() - begin.parse::<f64>().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/test --long"]
async fn a_volume_goes_from_guest_to_guest_with_all_that_was_written() {
    let test = "a_volume_goes_from_guest_to_guest";
    let Some(mut cloud) = Cloud::of_machines(test).await else {
        return;
    };
    cloud.start_agent();
    let (one, two) = (cloud.boot(1).await, cloud.boot(2).await);
    cloud.until_ready(&one, 1).await;

    let begun = Instant::now();
    cloud.plug(&one, blank(1)).await;
    eprintln!(
        "MEASURED: attached, and seen by its name in the guest, after {:?}",
        begun.elapsed()
    );
    assert_eq!(
        cloud.ssh(&one, "ls /dev/disk/by-id").await.lines().count(),
        2,
        "the root disk's too"
    );
    let script = format!(
        "mke2fs {DISK} && mkdir -p /mnt/data && mount -t ext4 {DISK} /mnt/data && echo first >/mnt/data/first && sync"
    );
    cloud.ssh(&one, &script).await;
    assert_eq!(
        cloud
            .ssh(
                &one,
                "mkdir -p /tmp/imds && hearth-guest imds /tmp/imds meta-data/block-device-mapping/ebs1 && cat /tmp/imds/ebs1"
            )
            .await,
        "sdf"
    );

    // It grows under the mounted file system.
    cloud.alter(&one, |volume| volume.size_bytes = 96 * MIB);
    cloud.until_volume(&one, |seen| seen.size_bytes == 96 * MIB).await;
    let grown = format!("[ $(cat /sys/class/block/vdb/size) = {} ]", 96 * MIB / 512);
    cloud.ssh_until(&one, &grown).await;
    let script = format!(
        "dd if=/dev/urandom of=/tmp/r bs=1M count=1; dd if=/tmp/r of={DISK} bs=1M seek=90 conv=fsync; sha256sum </tmp/r"
    );
    let sum = cloud.ssh(&one, &script).await;

    // Taken away by force, while it is mounted. The guest goes on, without what it had not flushed.
    let begun = Instant::now();
    cloud.alter(&one, |volume| {
        volume.detaching = true;
        volume.force_detach = true;
    });
    cloud.until_state(&one, State::Detached, 1).await;
    eprintln!("MEASURED: detached by force after {:?}", begun.elapsed());
    cloud.ssh_until(&one, &format!("[ ! -e {DISK} ]")).await;
    let fails = "timeout 60 sh -c '! echo lost >/mnt/data/lost || ! sync /mnt/data/lost'";
    cloud.ssh(&one, fails).await;
    cloud.ssh(&one, "umount -l /mnt/data").await;
    cloud.change(&one, |intent| drop(intent.volumes.pop()));

    cloud.until_ready(&two, 1).await;
    let size_bytes = 96 * MIB;
    cloud
        .plug(
            &two,
            InstanceVolume {
                size_bytes,
                has_run: true,
                ..blank(2)
            },
        )
        .await;
    let read = format!("dd if={DISK} bs=1M skip=90 count=1 2>/dev/null | sha256sum");
    assert_eq!(cloud.ssh(&two, &read).await, sum);
    let mount = format!(
        "mkdir -p /mnt/data && mount -t ext4 {DISK} /mnt/data && cat /mnt/data/first && umount /mnt/data"
    );
    assert_eq!(cloud.ssh(&two, &mount).await, "first");

    // A reboot keeps it.
    cloud.change(&two, |intent| intent.reboot = 1);
    cloud.until(&two, |seen| seen.reboot == 1).await;
    cloud.until_ready(&two, 2).await;
    assert_eq!(cloud.ssh(&two, &read).await, sum);
    let begun = Instant::now();
    cloud.unplug(&two, 2).await;
    eprintln!("MEASURED: let go by the guest after {:?}", begun.elapsed());
    cloud.want(|all| {
        all.iter_mut()
            .for_each(|intent| intent.set_desired(Desired::Stopped))
    });
    cloud.until_phase(&two, Phase::Ended, 1).await;
    cloud.until_phase(&one, Phase::Ended, 1).await;
    assert!(cloud.monitors().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/test --long"]
async fn a_real_guest_keeps_its_volume_whenever_the_agent_is_killed() {
    let test = "a_real_guest_keeps_its_volume_whenever_the_agent_is_killed";
    let Some(mut cloud) = Cloud::of_machines(test).await else {
        return;
    };
    cloud.start_agent();
    let id = cloud.boot(1).await;
    cloud.until_ready(&id, 1).await;
    let monitors = cloud.monitors();
    assert_eq!(monitors.len(), 1);
    let points = [
        "volume-laid",
        "volume-recorded",
        "volume-attached",
        "volume-grown",
        "volume-detached",
    ];
    for (round, point) in (0_u64..).zip(points) {
        let epoch = round + 1;
        let attaches = round < 3;
        let size_bytes = (64 + round) * MIB;
        let volume = InstanceVolume {
            size_bytes,
            has_run: round > 0,
            ..blank(epoch)
        };
        if !attaches {
            cloud.plug(&id, volume.clone()).await;
        }
        cloud.kill_agent();
        cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", point)]);
        match point {
            "volume-grown" => cloud.alter(&id, |volume| volume.size_bytes += MIB),
            "volume-detached" => cloud.alter(&id, |volume| volume.detaching = true),
            _ => cloud.attach(&id, volume),
        }
        cloud.agent_died().await;
        cloud.start_agent();
        if point == "volume-detached" {
            cloud.until_state(&id, State::Detached, epoch).await;
        } else {
            let size_bytes = size_bytes + if attaches { 0 } else { MIB };
            cloud
                .until_volume(&id, |seen| seen.size_bytes == size_bytes)
                .await;
            cloud.ssh_until(&id, &format!("[ -b {DISK} ]")).await;
            let size = format!("[ $(cat /sys/class/block/vdb/size) = {} ]", size_bytes / 512);
            cloud.ssh_until(&id, &size).await;
            // What was written before is there, and the end can be written.
            let script = format!(
                "{} echo {point} | dd of={DISK} bs=512 conv=sync,fsync 2>/dev/null && \
                 dd if=/dev/zero of={DISK} bs=512 seek={} count=1 conv=fsync 2>/dev/null",
                match round {
                    0 => String::new(),
                    _ => format!(
                        "[ \"$(head -c {} {DISK})\" = {} ] &&",
                        points[round as usize - 1].len(),
                        points[round as usize - 1]
                    ),
                },
                size_bytes / 512 - 1
            );
            cloud.ssh(&id, &script).await;
            cloud.unplug(&id, epoch).await;
        }
        assert_eq!(cloud.monitors(), monitors, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/test --long"]
async fn the_limits_of_a_volume_hold_in_a_real_guest() {
    let Some(mut cloud) = Cloud::of_machines("the_limits_of_a_volume_hold_in_a_real_guest").await else {
        return;
    };
    cloud.start_agent();
    let id = cloud.boot(1).await;
    cloud.until_ready(&id, 1).await;
    // Low enough that a guest on a busy machine, with one request at a time, could do several times as much.
    let limited = InstanceVolume {
        throughput_mib: 1,
        ..blank(1)
    };
    cloud.plug(&id, limited).await;
    let within = |what: &str, measured: f64| {
        eprintln!("MEASURED: {what}: {measured:.2} s, 5 s by its limit");
        assert!((4.3..5.9).contains(&measured), "{what}: {measured} s and not 5 s");
    };
    let write = format!("dd if=/dev/zero of={DISK} bs=256k count=20 oflag=direct");
    within("5 MiB written at 1 MiB/s", cloud.seconds(&id, &write).await);
    let read = format!("dd if={DISK} of=/dev/null bs=256k count=20 iflag=direct");
    within("5 MiB read at 1 MiB/s", cloud.seconds(&id, &read).await);
    // Changed while it runs: requests are counted, and those of 512 KiB twice.
    cloud.alter(&id, |volume| (volume.throughput_mib, volume.iops) = (0, 5));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let read = format!("dd if={DISK} of=/dev/null bs=4k count=25 iflag=direct");
    within(
        "25 requests of 4 KiB at 5 a second",
        cloud.seconds(&id, &read).await,
    );
    let read = format!("dd if={DISK} of=/dev/null bs=512k count=13 iflag=direct");
    within(
        "13 requests of 512 KiB at 5 a second",
        cloud.seconds(&id, &read).await,
    );
    // The root volume's too.
    cloud.change(&id, |intent| intent.volumes[0].throughput_mib = 1);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let read = "dd if=/dev/vda of=/dev/null bs=256k count=20 iflag=direct";
    within(
        "5 MiB of the root volume read at 1 MiB/s",
        cloud.seconds(&id, read).await,
    );
}
