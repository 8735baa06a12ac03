//! Real guests whose disks lie encrypted.

use hearth_api::agent::InstanceVolume;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::snapshot_observation::State;

use super::snapshots::sha256;
use super::{DATA, MIB, blank};
use crate::common::Cloud;
use crate::common::keys::{MARK, files_with};

/// The guest's second disk.
const DISK: &str = "/dev/vdb";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/test --long"]
async fn a_guest_works_on_encrypted_disks_and_the_host_has_no_plaintext_of_it() {
    let test = "a_guest_works_on_encrypted_disks";
    let Some(mut cloud) = Cloud::of_machines(test).await else {
        return;
    };
    let mut intent = cloud.machine(1);
    let (id, root) = (intent.instance_id.clone(), intent.volumes[0].volume_id.clone());
    let base = cloud.encrypt("ami-1");
    cloud.encrypt(&root);
    cloud.encrypt(DATA);
    (intent.volumes[0].encrypted, intent.volumes[0].image_encrypted) = (true, true);
    cloud.start_agent();
    cloud.want(|all| all.push(intent));
    cloud.until_phase(&id, Phase::Running, 1).await;
    cloud.until_ready(&id, 1).await;
    let volume = InstanceVolume {
        size_bytes: 8 * MIB,
        encrypted: true,
        ..blank(1)
    };
    cloud.attach(&id, volume);
    cloud.ssh_until(&id, &format!("[ -b {DISK} ]")).await;

    let mark = String::from_utf8_lossy(MARK);
    // Past the guest's cache and through it, in pieces of all sizes.
    let script = format!(
        "yes '{mark}' | head -c {} >/root/marks && sync && \
         dd if=/root/marks of={DISK} bs=64k oflag=direct && dd if=/root/marks of={DISK} bs=1M seek=3 conv=fsync && \
         dd if=/root/marks of={DISK} bs=512 seek=8191 count=333 oflag=direct && sync && sha256sum <{DISK}",
        2 * MIB
    );
    let sum = cloud.ssh(&id, &script).await;
    let rooms = ["volumes", "images"].map(|room| cloud.data_dir().join(room));
    for room in &rooms {
        assert_eq!(files_with(room, MARK), [""; 0]);
    }
    cloud.want_snapshot("snap-1", DATA);
    cloud.until_snapshot("snap-1", State::Stored).await;
    let contents = cloud.stored("snap-1").contents();
    assert!(sum.starts_with(&sha256(&contents)), "{sum}");
    assert!(contents.starts_with(MARK));
    cloud.until_thawed(DATA, "snap-1").await;

    // The base, as far as it has come, is ciphertext of the AMI.
    let home = cloud.data_dir().join("images/ami-1");
    let whole = home.join("disk.raw");
    while !whole.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let mut found = std::fs::read(whole).unwrap();
    base.decrypt(&mut found, 0).unwrap();
    assert!(found == *cloud.image.lock().unwrap());
    let monitors = cloud.monitors();
    let keys = cloud.keys.lock().unwrap().all();
    for key in &keys {
        for secret in [key.clone(), hex::encode(key).into_bytes()] {
            assert_eq!(files_with(cloud.dir.path(), &secret), [""; 0]);
            for file in ["cmdline", "environ"] {
                let told = std::fs::read(format!("/proc/{}/{file}", monitors[0])).unwrap();
                assert!(!told.windows(secret.len()).any(|window| window == secret));
            }
        }
    }

    // Whoever is killed, the guest or the agent, what was flushed is there.
    cloud.kill_agent();
    for pid in monitors {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    cloud.start_agent();
    cloud.until_phase(&id, Phase::Ended, 1).await;
    cloud.change(&id, |intent| intent.run = 2);
    cloud.until_phase(&id, Phase::Running, 2).await;
    cloud.until_ready(&id, 2).await;
    assert_eq!(cloud.ssh(&id, &format!("sha256sum <{DISK}")).await, sum);
    assert_eq!(
        cloud.ssh(&id, "sha256sum </root/marks").await[..64],
        sha256(&mark_file(2 * MIB as usize))
    );
}

/// What `yes` writes.
fn mark_file(len: usize) -> Vec<u8> {
    let line = [MARK, b"\n"].concat();
    line.into_iter().cycle().take(len).collect()
}
