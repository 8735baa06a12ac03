//! Stop, start, reboot, power-off, terminate: states and codes as EC2's, data kept where EC2 keeps it.
#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hearth_api::v1;
use hearth_tests::{Cloud, can_run};

fn codes(changes: &[v1::InstanceStateChange]) -> Vec<(i32, i32)> {
    let code = |s: &Option<v1::InstanceState>| s.as_ref().map_or(-1, |s| s.code);
    changes
        .iter()
        .map(|c| (code(&c.previous_state), code(&c.current_state)))
        .collect()
}

/// The disk of the instance store in the guest, and what shows its beginning.
const DISK: &str = "/dev/vdb";
const BEGINNING: &str = "head -c 5 /dev/vdb";
/// What a shell makes of bytes leaves zeros out.
const ZEROS: &str = "first=$(head -c 65536 /dev/vdb) && [ -z \"$first\" ] && echo zeros";

fn entries(cloud: &Cloud, room: &str) -> usize {
    std::fs::read_dir(cloud.path(room)).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_lives_a_whole_life() {
    if !can_run("an_instance_lives_a_whole_life") {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let mut instances = cloud.instances().await.unwrap();
    let id = cloud
        .launch(|r| {
            r.instance_type = "test.store".into();
            r.block_device_mappings = vec![v1::BlockDeviceMapping {
                device_name: "/dev/sdb".into(),
                virtual_name: "ephemeral0".into(),
                ..Default::default()
            }];
            r.user_data = BASE64_STANDARD.encode("#!/bin/sh\necho user-data-ran; echo once >>/root/ran\n")
        })
        .await
        .unwrap();
    assert_eq!(
        cloud.describe(&id).await.unwrap().state.unwrap().code & !16,
        0,
        "pending or running"
    );
    let guest = cloud.guest(&id).await.unwrap();
    // The disk of the instance store begins with zeros, and IMDS names it.
    let script = format!(
        "echo kept >/root/data; sync; cat /sys/class/block/vdb/size; {ZEROS}; echo brief | dd \
         of={DISK} conv=fsync,notrunc 2>/dev/null; mkdir -p /tmp/imds; hearth-guest imds /tmp/imds \
         meta-data/block-device-mapping/ephemeral0; cat /tmp/imds/ephemeral0"
    );
    assert_eq!(guest.ssh(&script).await.unwrap(), "1953125\nzeros\nsdb");
    let told = cloud.describe(&id).await.unwrap().block_device_mappings;
    assert_eq!(
        told.len(),
        1,
        "volumes are told, and disks of the instance store are not"
    );

    // Reboot through the API: the state stays running, the disk stays, the guest is a fresh boot.
    let request = v1::RebootInstancesRequest {
        instance_ids: vec![id.clone()],
        dry_run: false,
    };
    instances.reboot_instances(request).await.unwrap();
    cloud
        .wait_for_console(&id, "hearth-tiny: ready", 2)
        .await
        .unwrap();
    assert_eq!(cloud.describe(&id).await.unwrap().state.unwrap().code, 16);
    let script = format!("cat /root/data; {BEGINNING}");
    assert_eq!(guest.ssh(&script).await.unwrap(), "kept\nbrief");

    // Reboot from inside.
    guest
        .ssh(&format!(
            "{BEGINNING} >>/root/data; echo +inside >>/root/data; sync; reboot"
        ))
        .await
        .unwrap();
    cloud
        .wait_for_console(&id, "hearth-tiny: ready", 3)
        .await
        .unwrap();
    assert_eq!(cloud.describe(&id).await.unwrap().state.unwrap().code, 16);

    // Stop: running 16 -> stopping 64 -> stopped 80; the public address goes, the private one stays.
    let request = v1::StopInstancesRequest {
        instance_ids: vec![id.clone()],
        ..Default::default()
    };
    let changes = instances.stop_instances(request).await.unwrap().into_inner();
    assert_eq!(codes(&changes.stopping_instances), [(16, 64)]);
    let stopped = cloud.wait_for_state(&id, "stopped").await.unwrap();
    assert_eq!(stopped.state.unwrap().code, 80);
    assert_eq!(stopped.state_reason.unwrap().code, "Client.UserInitiatedShutdown");
    assert_eq!(stopped.private_ip_address, guest.private_ip());
    assert!(cloud.monitors().unwrap().is_empty(), "no monitor is left");
    assert_eq!(entries(&cloud, "agent/stores"), 0, "the instance store is gone");

    // Start: the same disk; user data ran once only.
    let request = v1::StartInstancesRequest {
        instance_ids: vec![id.clone()],
        dry_run: false,
    };
    let changes = instances.start_instances(request).await.unwrap().into_inner();
    assert_eq!(codes(&changes.starting_instances), [(80, 0)]);
    let guest = cloud.guest_after(&id, 4).await.unwrap();
    let script = format!("cat /root/data /root/ran; {ZEROS}");
    assert_eq!(
        guest.ssh(&script).await.unwrap(),
        "kept\nbrief+inside\nonce\nzeros"
    );
    assert_eq!(entries(&cloud, "agent/stores"), 1);

    // Power-off from inside: stopped, by its shutdown behaviour.
    guest.ssh("sync; poweroff").await.unwrap();
    let stopped = cloud.wait_for_state(&id, "stopped").await.unwrap();
    assert_eq!(
        stopped.state_reason.unwrap().code,
        "Client.InstanceInitiatedShutdown"
    );

    // Terminate: a stopped instance is terminated at once or by way of shutting-down; it stays visible.
    let request = v1::TerminateInstancesRequest {
        instance_ids: vec![id.clone()],
        dry_run: false,
    };
    let changes = instances
        .terminate_instances(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(
        matches!(codes(&changes.terminating_instances)[..], [(80, 32 | 48)]),
        "{changes:?}"
    );
    let gone = cloud.wait_for_state(&id, "terminated").await.unwrap();
    assert_eq!(gone.state.unwrap().code, 48);
    let again = instances.terminate_instances(request).await.unwrap().into_inner();
    assert_eq!(
        codes(&again.terminating_instances),
        [(48, 48)],
        "terminating is idempotent"
    );
    assert_eq!(entries(&cloud, "agent/volumes"), 0, "DeleteOnTermination");
    assert_eq!(entries(&cloud, "agent/stores"), 0);
}
