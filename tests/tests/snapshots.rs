//! Snapshots of a volume that is written to, and an AMI of an instance that runs, by AWS's own command line and in real guests.
#![allow(clippy::unwrap_used)]

use hearth_tests::aws::Aws;
use hearth_tests::{Cloud, can_run};

const NAME: &str = "a_volume_is_snapshotted_while_it_is_written_and_an_instance_becomes_an_ami";

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_snapshotted_while_it_is_written_and_an_instance_becomes_an_ami() {
    if !can_run(NAME) || !Aws::is_there(NAME) {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let aws = Aws::of(&cloud).unwrap();
    let one = cloud.launch(|_| {}).await.unwrap();
    let zone = "describe-availability-zones --query AvailabilityZones[0].ZoneName";
    let zone = aws.ec2(zone).await.unwrap();
    let create = format!("create-volume --size 1 --availability-zone {zone} --query VolumeId");
    let volume = aws.ec2(&create).await.unwrap();
    let name = |volume: &str| format!("/dev/disk/by-id/virtio-{}", volume.replace('-', ""));
    let appears = |volume: &str| format!("until [ -b {} ]; do usleep 200000; done", name(volume));
    let attach = async |volume: &str, instance: &str| {
        aws.ec2(&format!("wait volume-available --volume-ids {volume}"))
            .await
            .unwrap();
        let attach = format!("attach-volume --volume-id {volume} --instance-id {instance} --device /dev/sdf");
        aws.ec2(&attach).await.unwrap();
    };

    // Numbers are written one after the other: whatever the point in time, those before it are there and none after it.
    let guest = cloud.guest(&one).await.unwrap();
    attach(&volume, &one).await;
    guest.ssh(&appears(&volume)).await.unwrap();
    let disk = name(&volume);
    let write = format!(
        "mke2fs -j {disk} && mkdir -p /mnt/data && mount -t ext4 {disk} /mnt/data && echo first >/mnt/data/first && sync && \
         echo here >/root/mark && sync"
    );
    guest.ssh(&write).await.unwrap();
    let count = "(n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo $n >>/mnt/data/numbers; sync; done) >/dev/null 2>&1 </dev/null &";
    guest.ssh(count).await.unwrap();
    guest
        .ssh("until [ $(wc -l </mnt/data/numbers) -ge 3 ]; do usleep 200000; done")
        .await
        .unwrap();
    let before: u64 = guest
        .ssh("wc -l </mnt/data/numbers")
        .await
        .unwrap()
        .parse()
        .unwrap();
    let create = format!("create-snapshot --volume-id {volume} --query SnapshotId");
    let snapshot = aws.ec2(&create).await.unwrap();
    let after: u64 = guest
        .ssh("wc -l </mnt/data/numbers")
        .await
        .unwrap()
        .parse()
        .unwrap();
    guest.ssh("echo later >/mnt/data/later && sync").await.unwrap();
    aws.ec2(&format!("wait snapshot-completed --snapshot-ids {snapshot}"))
        .await
        .unwrap();
    guest.ssh("touch /tmp/stop").await.unwrap();

    // The AMI is of the root volume alone, and of what was written to it.
    let detach = format!("detach-volume --force --volume-id {volume}");
    aws.ec2(&detach).await.unwrap();
    aws.ec2(&format!("wait volume-available --volume-ids {volume}"))
        .await
        .unwrap();
    let create = format!("create-image --no-reboot --instance-id {one} --name made --query ImageId");
    let image = aws.ec2(&create).await.unwrap();
    aws.ec2(&format!("wait image-available --image-ids {image}"))
        .await
        .unwrap();
    let root = "--query Images[0].BlockDeviceMappings[0].Ebs.SnapshotId";
    let root = aws
        .ec2(&format!("describe-images --image-ids {image} {root}"))
        .await
        .unwrap();
    let refused = aws
        .refused(&format!("delete-snapshot --snapshot-id {root}"))
        .await;
    assert!(refused.unwrap().contains("(InvalidSnapshot.InUse)"));
    let two = cloud
        .launch(|request| request.image_id.clone_from(&image))
        .await
        .unwrap();
    let guest = cloud.guest(&two).await.unwrap();
    assert_eq!(guest.ssh("cat /root/mark").await.unwrap(), "here");

    let create =
        format!("create-volume --snapshot-id {snapshot} --availability-zone {zone} --query VolumeId");
    let copy = aws.ec2(&create).await.unwrap();
    attach(&copy, &two).await;
    guest.ssh(&appears(&copy)).await.unwrap();
    let mount = format!(
        "mkdir -p /mnt/data && mount -t ext4 {} /mnt/data && cat /mnt/data/first && [ ! -e /mnt/data/later ]",
        name(&copy)
    );
    assert_eq!(guest.ssh(&mount).await.unwrap(), "first");
    let numbers = guest.ssh("cat /mnt/data/numbers").await.unwrap();
    let numbers: Vec<u64> = numbers.lines().map(|line| line.parse().unwrap()).collect();
    let found = numbers.len() as u64;
    assert_eq!(numbers, (1..=found).collect::<Vec<_>>());
    assert!(
        (before..=after).contains(&found),
        "{found} numbers, of {before} before and {after} after the call"
    );
    eprintln!("FIGURE snapshot: {before} numbers before the call, {found} in it, {after} after it");

    // What is deregistered and deleted leaves the instance and the volume as they are.
    aws.ec2(&format!("deregister-image --image-id {image}"))
        .await
        .unwrap();
    for snapshot in [&root, &snapshot] {
        aws.ec2(&format!("delete-snapshot --snapshot-id {snapshot}"))
            .await
            .unwrap();
    }
    assert_eq!(
        guest.ssh("cat /root/mark /mnt/data/first").await.unwrap(),
        "here\nfirst"
    );
}
