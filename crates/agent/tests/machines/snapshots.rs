//! Snapshots of volumes that real guests write to.

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::snapshot_observation::State;
use hearth_api::agent::{InstanceVolume, SnapshotIntent};

use super::{DATA, DISK, MIB, blank};
use crate::common::Cloud;

impl Cloud {
    /// Microseconds that instances were paused for, by the agent's log.
    fn pauses(&self) -> Vec<u64> {
        let logged = self.logged();
        let lines = logged.lines().filter(|line| line.contains("froze volumes"));
        let micros = lines.filter_map(|line| {
            line.split("micros=")
                .nth(1)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        });
        micros.collect()
    }
}

/// The number at the beginning of a disk.
fn number(contents: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(&contents[..512]);
    let text = text.trim_matches([' ', '\0']);
    // Before the first.
    if text.is_empty() { 0 } else { text.parse().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/test --long"]
async fn a_guest_that_writes_is_snapshotted_at_one_moment_of_all_its_volumes() {
    let Some(mut cloud) = Cloud::of_machines("a_guest_that_writes_is_snapshotted").await else {
        return;
    };
    cloud.start_agent();
    let id = cloud.boot(1).await;
    let root = cloud.machine(1).volumes[0].volume_id.clone();
    cloud.until_ready(&id, 1).await;
    let volume = InstanceVolume {
        size_bytes: 8 * MIB,
        ..blank(1)
    };
    cloud.plug(&id, volume).await;
    // Of all of the disk, as it is before anybody writes again.
    let fill = format!("dd if=/dev/urandom of={DISK} bs=256k seek=8 count=4 conv=fsync && sha256sum <{DISK}");
    let sum = cloud.ssh(&id, &fill).await;
    cloud.hold_snapshots(true);
    cloud.want_snapshot("snap-1", DATA);
    cloud.until_snapshot("snap-1", State::Frozen).await;
    cloud
        .ssh(
            &id,
            &format!("dd if=/dev/zero of={DISK} bs=256k seek=4 count=8 conv=fsync"),
        )
        .await;
    cloud.hold_snapshots(false);
    cloud.until_snapshot("snap-1", State::Stored).await;
    let stored = cloud.stored("snap-1");
    assert!(sum.starts_with(&sha256(&stored.contents())), "{sum}");
    assert_eq!(stored.sent, [4, 5]);

    // A number goes to one volume and is there, then to the other.
    let tail = 127 * MIB / 512;
    let write = |disk: &str, at: u64| {
        format!(
            "dd if=/tmp/n of={disk} bs=512 seek={at} count=1 oflag=direct conv=notrunc,fsync 2>/dev/null || touch /tmp/failed"
        )
    };
    let script = format!(
        "n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); printf '%-512s' $n >/tmp/n; {}; {}; done",
        write("/dev/vda", tail),
        write(DISK, 0)
    );
    cloud
        .ssh(
            &id,
            &format!(
                "(setsid sh -c \"{}\" >/dev/null 2>&1 &)",
                script.replace('$', "\\$")
            ),
        )
        .await;
    let begun = format!("head -c 1 {DISK} | grep -q [1-9]");
    cloud.ssh_until(&id, &begun).await;
    let mut before = 0;
    for round in 2..9 {
        let of = |id: String, volume_id: &str| SnapshotIntent {
            snapshot_id: id,
            volume_id: volume_id.to_owned(),
            set_id: format!("set-{round}"),
            set_size: 2,
            ..SnapshotIntent::default()
        };
        let (one, two) = (format!("snap-{round}a"), format!("snap-{round}b"));
        cloud.want_snapshots(vec![of(one.clone(), &root), of(two.clone(), DATA)]);
        cloud.until_snapshot(&one, State::Stored).await;
        cloud.until_snapshot(&two, State::Stored).await;
        let first = number(&cloud.stored(&one).contents()[127 * MIB as usize..]);
        let second = number(&cloud.stored(&two).contents());
        assert!(
            first == second || first == second + 1,
            "{first} and then {second}"
        );
        assert!(second >= before && second > 0, "{second} after {before}");
        before = second;
        cloud.until_thawed(&root, &one).await;
        cloud.until_thawed(DATA, &two).await;
    }
    cloud.ssh(&id, "touch /tmp/stop; [ ! -e /tmp/failed ]").await;
    eprintln!("MEASURED: paused for snapshots for {:?} µs", cloud.pauses());

    // Killed, agent and guest, while it is frozen.
    let sum = cloud.ssh(&id, &format!("sleep 1; sync; sha256sum <{DISK}")).await;
    cloud.hold_snapshots(true);
    cloud.want_snapshot("snap-8", DATA);
    cloud.until_snapshot("snap-8", State::Frozen).await;
    cloud
        .ssh(
            &id,
            &format!("dd if=/dev/urandom of={DISK} bs=256k count=8 conv=fsync"),
        )
        .await;
    cloud.kill_agent();
    for pid in cloud.monitors() {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    cloud.start_agent();
    cloud.until_phase(&id, Phase::Ended, 1).await;
    cloud.change(&id, |intent| intent.run = 2);
    cloud.until_phase(&id, Phase::Running, 2).await;
    cloud.until_ready(&id, 2).await;
    cloud
        .ssh(
            &id,
            &format!("dd if=/dev/urandom of={DISK} bs=256k seek=4 count=8 conv=fsync"),
        )
        .await;
    let now = cloud.ssh(&id, &format!("sha256sum <{DISK}")).await;
    cloud.hold_snapshots(false);
    cloud.until_snapshot("snap-8", State::Stored).await;
    assert!(
        sum.starts_with(&sha256(&cloud.stored("snap-8").contents())),
        "{sum}"
    );
    cloud.until_thawed(DATA, "snap-8").await;
    cloud.want_snapshot("snap-9", DATA);
    cloud.until_snapshot("snap-9", State::Stored).await;
    assert!(
        now.starts_with(&sha256(&cloud.stored("snap-9").contents())),
        "{now}"
    );
    cloud.change(&id, |intent| intent.set_desired(Desired::Stopped));
    cloud.until_phase(&id, Phase::Ended, 2).await;
}

pub(super) fn sha256(contents: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, contents))
}
