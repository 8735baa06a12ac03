//! A volume, which is encrypted, and a stopped instance that change hosts: two agents on this machine, and real guests.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hearth_api::v1;
use hearth_tests::{BOOT, Cloud, Guest, Second, can_run, holds, hosts};

const NAME: &str = "what_was_written_on_one_host_is_read_on_another";
/// MiB that are written, no two chunks of which are alike.
const MIB: usize = 8;
/// Each of them begins with this.
const SECRET: &str = "what nobody reads on a host or in the repository";

async fn launch_on(cloud: &Cloud, host_id: &str) -> String {
    let placement = v1::Placement {
        host_id: host_id.into(),
        ..Default::default()
    };
    cloud
        .launch(|request| request.placement = Some(placement))
        .await
        .unwrap()
}

async fn attach(cloud: &Cloud, volume: &str, instance: &str) {
    let request = v1::AttachVolumeRequest {
        volume_id: volume.into(),
        instance_id: instance.into(),
        device: "/dev/sdf".into(),
        dry_run: false,
    };
    cloud
        .volumes()
        .await
        .unwrap()
        .attach_volume(request)
        .await
        .unwrap();
}

async fn until(cloud: &Cloud, volume: &str, state: &str, attachment: &str) {
    let deadline = Instant::now() + BOOT;
    loop {
        let request = v1::DescribeVolumesRequest {
            volume_ids: vec![volume.into()],
            ..Default::default()
        };
        let told = cloud.volumes().await.unwrap().describe_volumes(request).await;
        let told = told.unwrap().into_inner().volumes.remove(0);
        let is = told.attachments.first().map_or("", |it| it.state.as_str());
        if (told.state.as_str(), is) == (state, attachment) {
            return;
        }
        assert!(Instant::now() < deadline, "{told:?}\n{}", cloud.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn digest(guest: &Guest, disk: &str) -> String {
    guest
        .ssh(&format!("dd if={disk} bs=1M count={MIB} 2>/dev/null | sha256sum"))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_on_one_host_is_read_on_another() {
    if !can_run(NAME) {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let first = hosts(&cloud).await.unwrap().remove(0);
    let second = Second::join(&cloud).await.unwrap();
    let (one, two) = (
        launch_on(&cloud, &first.host_id).await,
        launch_on(&cloud, &second.host_id).await,
    );
    let request = v1::CreateVolumeRequest {
        availability_zone: first.availability_zone.clone(),
        size: Some(1),
        volume_type: "gp3".into(),
        encrypted: Some(true),
        ..Default::default()
    };
    let volume = cloud.volumes().await.unwrap().create_volume(request).await;
    let volume = volume.unwrap().into_inner().volume_id;
    // The only one beside the root volume, in either guest.
    let disk = "/dev/vdb";
    let appears = format!("until [ -b {disk} ]; do usleep 200000; done");

    let guest = cloud.guest(&one).await.unwrap();
    attach(&cloud, &volume, &one).await;
    until(&cloud, &volume, "in-use", "attached").await;
    guest.ssh(&appears).await.unwrap();
    let write = format!(
        "echo '{SECRET}' >/root/file; sync; dd if=/dev/urandom of=/tmp/piece bs=1M count=1 2>/dev/null; i=0; \
         while [ $i -lt {MIB} ]; do (echo '{SECRET}' $i; cat /tmp/piece) | dd of={disk} bs=1M seek=$i conv=notrunc 2>/dev/null; \
         i=$((i+1)); done; sync"
    );
    guest.ssh(&write).await.unwrap();
    let written = digest(&guest, disk).await;
    // The root volume is plain.
    let on_first = cloud.path("agent/volumes");
    assert!(
        holds(&on_first, SECRET),
        "what is looked for is not found where it is"
    );
    assert!(
        !holds(&on_first.join(&volume), SECRET),
        "an encrypted volume lies plain"
    );
    let request = v1::DetachVolumeRequest {
        volume_id: volume.clone(),
        ..Default::default()
    };
    cloud
        .volumes()
        .await
        .unwrap()
        .detach_volume(request)
        .await
        .unwrap();
    until(&cloud, &volume, "available", "").await;

    let begin = Instant::now();
    attach(&cloud, &volume, &two).await;
    until(&cloud, &volume, "in-use", "attached").await;
    eprintln!(
        "FIGURE a volume of which {MIB} MiB are written is attached on another host after {:.2?}",
        begin.elapsed()
    );
    let guest = cloud.guest_on(&second.namespace, &two, 1).await.unwrap();
    guest.ssh(&appears).await.unwrap();
    assert_eq!(digest(&guest, disk).await, written);
    for sealed in ["second", "controller/repository"] {
        let sealed = cloud.path(sealed);
        assert!(!holds(&sealed, SECRET), "it lies plain in {}", sealed.display());
    }
    let left = on_first.join(&volume);
    cloud
        .wait_for("the old copy to go", BOOT, || (!left.exists()).then_some(()))
        .await
        .unwrap();
    assert!(cloud.path("second/volumes").join(&volume).exists());

    // The instance of the first host is stopped, and starts on the second.
    let request = v1::StopInstancesRequest {
        instance_ids: vec![one.clone()],
        ..Default::default()
    };
    let mut instances = cloud.instances().await.unwrap();
    instances.stop_instances(request).await.unwrap();
    cloud.wait_for_state(&one, "stopped").await.unwrap();
    let request = v1::DrainHostRequest {
        host_id: first.host_id.clone(),
        ..Default::default()
    };
    cloud.hosts().await.unwrap().drain_host(request).await.unwrap();
    let begin = Instant::now();
    let request = v1::StartInstancesRequest {
        instance_ids: vec![one.clone()],
        ..Default::default()
    };
    instances.start_instances(request).await.unwrap();
    let runs = cloud.wait_for_state(&one, "running").await.unwrap();
    eprintln!(
        "FIGURE a stopped instance runs on another host after {:.2?}",
        begin.elapsed()
    );
    assert_eq!(runs.placement.unwrap().host_id, second.host_id);
    let guest = cloud.guest_on(&second.namespace, &one, 1).await.unwrap();
    assert_eq!(guest.ssh("cat /root/file").await.unwrap(), SECRET);
    let gone = |name: &str| std::fs::read_dir(cloud.path(name)).unwrap().count() == 0;
    cloud
        .wait_for("nothing to be left on the first host", BOOT, || {
            (gone("agent/volumes") && gone("agent/instances")).then_some(())
        })
        .await
        .unwrap();
}
