//! Guests that read what has not come.

use std::process::{Command, Stdio};
use std::time::Duration;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;

use crate::common::{CHUNK, Cloud, Pace};

/// Bytes behind the tiny AMI that no file system knows.
const TAIL: usize = 12 * CHUNK;

fn sha256(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout)[..64].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_boots_and_works_on_a_base_that_comes_as_it_reads() {
    let Some(mut cloud) = Cloud::of_machines("a_guest_boots_and_works_on_a_base_that_comes").await else {
        return;
    };
    // Whole chunks of the AMI, and behind them some that nobody reads by chance.
    let mut image = cloud.image.lock().unwrap().clone();
    image.resize(image.len().next_multiple_of(CHUNK), 0);
    let tail = image.len() / CHUNK;
    image.extend((0..TAIL).map(|at| (at / 512 * 31 + at / CHUNK + 1) as u8));
    let sum_of = |first: usize, count: usize| {
        let from = (tail + first) * CHUNK;
        sha256(&image[from..from + count * CHUNK])
    };
    let (early, late) = (sum_of(0, 2), sum_of(8, 2));
    cloud.image.lock().unwrap().clone_from(&image);
    cloud.pace.send_replace(Pace {
        stream_is_held: true,
        held_from: Some(tail as u64),
        pause: Duration::from_millis(2),
        ..Pace::default()
    });
    cloud.start_agent();
    let intent = cloud.machine(1);
    let id = intent.instance_id.clone();
    cloud.want(|all| all.push(intent));
    let seen = cloud.until_phase(&id, Phase::Running, 1).await;
    let at_entry = cloud.told.lock().unwrap().chunks.len();
    cloud.until_ready(&id, 1).await;
    assert!(cloud.base("map").exists(), "the base has not come");
    let asked = cloud.told.lock().unwrap().chunks.clone();
    let mut once = asked.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), asked.len(), "a chunk is fetched once: {asked:?}");
    eprintln!(
        "MEASURED: first entry after {} us with {at_entry} chunks, ready with {} of {}",
        seen.start_micros,
        asked.len(),
        image.len() / CHUNK
    );

    // One read waits for what does not come; the guest works on.
    let read = |first: usize, name: &str| {
        format!(
            "(dd if=/dev/vda bs=64k skip={} count=16 iflag=direct 2>/tmp/{name}.said | sha256sum >/tmp/{name}.sum; \
             mv /tmp/{name}.sum /tmp/{name}) >/dev/null 2>&1 &",
            (tail + first) * 8
        )
    };
    cloud.ssh(&id, &read(0, "early")).await;
    cloud
        .ssh_until(&id, "grep -q '[1-9]' /sys/block/vda/inflight")
        .await;
    cloud
        .ssh(&id, "echo written >/root/file && sync && cat /root/file")
        .await;
    // Whoever was to bring it is killed.
    cloud.kill_agent();
    cloud.start_agent();
    cloud.until_phase(&id, Phase::Running, 1).await;
    cloud
        .ssh(&id, "[ ! -e /tmp/early ] && echo more >>/root/file && sync")
        .await;
    let waits = |seen: &hearth_api::agent::InstanceObservation| {
        seen.volumes.iter().any(|root| {
            root.message
                .starts_with("waiting for the control plane to tell chunk")
        })
    };
    cloud.until(&id, waits).await;
    cloud.pace.send_modify(|pace| pace.held_from = None);
    cloud.ssh_until(&id, "[ -e /tmp/early ]").await;
    assert_eq!(cloud.ssh(&id, "head -c 64 /tmp/early").await, early);

    // What cannot be told fails, and only that.
    cloud
        .pace
        .send_modify(|pace| pace.lost_from = Some(tail as u64 + 8));
    cloud.ssh(&id, &read(8, "late")).await;
    cloud.ssh_until(&id, "[ -e /tmp/late ]").await;
    let said = cloud.ssh(&id, "cat /tmp/late.said").await;
    assert!(said.contains("Input/output error"), "{said}");
    cloud.pace.send_modify(|pace| pace.lost_from = None);
    cloud.ssh(&id, &read(8, "again")).await;
    cloud.ssh_until(&id, "[ -e /tmp/again ]").await;
    assert_eq!(cloud.ssh(&id, "head -c 64 /tmp/again").await, late);

    // The rest comes by itself, and a second guest begins with a plain file.
    cloud.pace.send_replace(Pace::default());
    cloud.until_whole().await;
    let asked = cloud.told.lock().unwrap().chunks.len();
    let second = cloud.machine(2);
    let other = second.instance_id.clone();
    cloud.want(|all| all.push(second));
    let seen = cloud.until_phase(&other, Phase::Running, 1).await;
    eprintln!(
        "MEASURED: first entry after {} us on a whole base",
        seen.start_micros
    );
    cloud.until_ready(&other, 1).await;
    assert_eq!(cloud.told.lock().unwrap().chunks.len(), asked);
    assert_eq!(cloud.ssh(&id, "cat /root/file").await, "written\nmore");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_the_kernel_is_read_lets_the_guest_boot_all_the_same() {
    let Some(mut cloud) = Cloud::of_machines("an_agent_killed_while_the_kernel_is_read").await else {
        return;
    };
    cloud.pace.send_replace(Pace {
        stream_is_held: true,
        // The first look at the disk succeeds, and what follows waits.
        held_from: Some(1),
        ..Pace::default()
    });
    cloud.start_agent();
    let intent = cloud.machine(1);
    let id = intent.instance_id.clone();
    cloud.want(|all| all.push(intent));
    let begun = std::time::Instant::now();
    while !cloud.told.lock().unwrap().chunks.iter().any(|chunk| *chunk > 0) {
        assert!(begun.elapsed() < crate::common::PATIENCE, "{}", cloud.logged());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let monitors = cloud.monitors();
    cloud.kill_agent();
    cloud.pace.send_modify(|pace| pace.held_from = None);
    cloud.start_agent();
    cloud.until_phase(&id, Phase::Running, 1).await;
    cloud.until_ready(&id, 1).await;
    assert_eq!(cloud.monitors(), monitors, "it is the same machine");

    // A guest that waits for its base is stopped at once all the same.
    cloud.pace.send_modify(|pace| pace.held_from = Some(0));
    cloud
        .ssh(
            &id,
            "dd if=/dev/vda of=/dev/null bs=1M iflag=direct >/dev/null 2>&1 &",
        )
        .await;
    cloud
        .ssh_until(&id, "grep -q '[1-9]' /sys/block/vda/inflight")
        .await;
    cloud.change(&id, |intent| {
        intent.set_desired(Desired::Stopped);
        intent.force = true;
    });
    cloud.until_phase(&id, Phase::Ended, 1).await;
    let logged = cloud.logged();
    assert!(!logged.contains("its monitor does not end"), "{logged}");
    cloud.pace.send_modify(|pace| pace.held_from = None);

    // A base that nobody can tell fails the launch, and the reason is told.
    cloud.pace.send_modify(|pace| pace.lost_from = Some(0));
    let mut lost = cloud.machine(2);
    lost.volumes[0].image_id = "ami-2".to_owned();
    let other = lost.instance_id.clone();
    cloud.want(|all| all.push(lost));
    let end = cloud.until_phase(&other, Phase::Ended, 1).await.end.unwrap();
    assert!(
        end.message.contains("the chunk cannot be read"),
        "{}",
        end.message
    );
}

/// Sparse AMIs, with data all over, that are new on the host each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_launch_costs_the_same_from_a_small_and_a_large_ami() {
    const GIB: u64 = 1 << 30;
    const ROUNDS: u8 = 5;
    let Some(mut cloud) = Cloud::of_machines("a_launch_costs_the_same_from_a_small_and_a_large_ami").await
    else {
        return;
    };
    cloud.pace.send_replace(Pace {
        stream_is_held: true,
        every: Some(64),
        ..Pace::default()
    });
    cloud.start_agent();
    let mut micros = [(GIB, "new"), (100 * GIB, "new"), (100 * GIB, "again")].map(|kind| (kind, Vec::new()));
    for round in 0..ROUNDS {
        for (place, ((size, what), found)) in micros.iter_mut().enumerate() {
            let mut intent = cloud.machine(1 + round * 3 + place as u8);
            let root = &mut intent.volumes[0];
            root.size_bytes = *size;
            root.image_size_bytes = *size;
            let number = if *what == "new" { u64::from(round) } else { 0 };
            root.image_id = format!("ami-{:017x}", *size + number);
            let id = intent.instance_id.clone();
            cloud.want(|all| all.push(intent));
            let seen = cloud.until_phase(&id, Phase::Running, 1).await;
            found.push(seen.start_micros);
            cloud.change(&id, |intent| {
                intent.set_desired(Desired::Terminated);
                intent.force = true;
            });
            cloud.until_phase(&id, Phase::Gone, 1).await;
        }
    }
    let median = |found: &[u64]| {
        let mut found = found.to_vec();
        found.sort_unstable();
        found[found.len() / 2]
    };
    for ((size, what), found) in &micros {
        eprintln!(
            "MEASURED: {} GiB, {what}: first entry after {} us (median of {found:?})",
            size / GIB,
            median(found)
        );
    }
    // Far apart enough not to fail by chance; what is copied would be a thousand times more.
    assert!(median(&micros[1].1) < 3 * median(&micros[0].1));
}
