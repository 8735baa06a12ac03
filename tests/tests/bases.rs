//! An AMI that is new on a host: guests work on it while it comes, whoever is killed meanwhile.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use hearth_tests::{Cloud, Daemon, can_run};

const NAME: &str = "a_guest_works_on_an_ami_that_is_still_coming";
const MIB: usize = 1 << 20;
const SIZE: usize = 512 * MIB;
/// Where the AMI has data that its guest does not read by itself.
const FILLED: std::ops::Range<usize> = 256 * MIB..384 * MIB;

fn sha256(bytes: &[u8]) -> String {
    let mut command = Command::new("sha256sum");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout)[..64].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_works_on_an_ami_that_is_still_coming() {
    if !can_run(NAME) {
        return;
    }
    let mut cloud = Cloud::start().await.unwrap();
    let mut ami = std::fs::read(std::env::var_os("HEARTH_TINY_AMI").unwrap()).unwrap();
    ami.resize(SIZE, 0);
    for (at, word) in ami[FILLED].chunks_exact_mut(8).enumerate() {
        // No chunk is like another, nor easily compressed.
        word.copy_from_slice(&(at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    }
    let image_id = cloud.register_bytes("large", ami.clone()).await.unwrap();
    let id = cloud
        .launch(|request| request.image_id = image_id.clone())
        .await
        .unwrap();
    cloud
        .wait_for("a monitor", Duration::from_secs(60), || {
            cloud.monitors().ok().filter(|monitors| !monitors.is_empty())
        })
        .await
        .unwrap();
    cloud.kill(Daemon::Agent).unwrap();
    cloud.start_agent().await.unwrap();
    let guest = cloud.guest(&id).await.unwrap();
    cloud.kill(Daemon::Hearthd).unwrap();
    cloud.start_hearthd().await.unwrap();
    for at in [FILLED.end - MIB, FILLED.start, SIZE - MIB] {
        let read = format!(
            "dd if=/dev/vda bs=1M skip={} count=1 2>/dev/null | sha256sum",
            at / MIB
        );
        let sum = guest.ssh(&read).await.unwrap();
        assert_eq!(sum[..64], sha256(&ami[at..at + MIB]), "at {at}\n{}", cloud.logs());
    }
    let base = cloud.path("agent/images").join(&image_id);
    cloud
        .wait_for("all of the AMI", Duration::from_secs(120), || {
            (base.join("disk.raw").exists() && !base.join("map").exists()).then_some(())
        })
        .await
        .unwrap();
    assert!(
        std::fs::read(base.join("disk.raw")).unwrap() == ami,
        "it is another one"
    );
}
