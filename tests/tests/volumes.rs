//! A volume's whole life, by AWS's own command line and in real guests.
#![allow(clippy::unwrap_used)]

use hearth_tests::aws::Aws;
use hearth_tests::{Cloud, can_run};

const NAME: &str = "a_volume_is_made_written_moved_grown_and_deleted_by_aws";

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_written_moved_grown_and_deleted_by_aws() {
    if !can_run(NAME) {
        return;
    }
    if !Aws::is_there(NAME) {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let aws = Aws::of(&cloud).unwrap();
    let (one, two) = (
        cloud.launch(|_| {}).await.unwrap(),
        cloud.launch(|_| {}).await.unwrap(),
    );
    let zone = aws
        .ec2("describe-availability-zones --query AvailabilityZones[0].ZoneName")
        .await
        .unwrap();
    let volume = aws
        .ec2(&format!(
            "create-volume --size 1 --availability-zone {zone} --query VolumeId"
        ))
        .await
        .unwrap();
    aws.ec2(&format!("wait volume-available --volume-ids {volume}"))
        .await
        .unwrap();
    let disk = format!("/dev/disk/by-id/virtio-{}", volume.replace('-', ""));
    let appears = format!("until [ -b {disk} ]; do usleep 200000; done");

    let guest = cloud.guest(&one).await.unwrap();
    aws.ec2(&format!(
        "attach-volume --volume-id {volume} --instance-id {one} --device /dev/sdf"
    ))
    .await
    .unwrap();
    aws.ec2(&format!("wait volume-in-use --volume-ids {volume}"))
        .await
        .unwrap();
    guest.ssh(&appears).await.unwrap();
    let write = format!(
        "mke2fs {disk} && mkdir -p /mnt/data && mount -t ext4 {disk} /mnt/data && echo kept >/mnt/data/file && \
         umount /mnt/data"
    );
    guest.ssh(&write).await.unwrap();
    aws.ec2(&format!("modify-volume --volume-id {volume} --size 2"))
        .await
        .unwrap();
    let grown = format!(
        "until [ $(cat /sys/class/block/vdb/size) = {} ]; do usleep 200000; done",
        2 << 21
    );
    guest.ssh(&grown).await.unwrap();
    aws.ec2(&format!("detach-volume --volume-id {volume}"))
        .await
        .unwrap();
    aws.ec2(&format!("wait volume-available --volume-ids {volume}"))
        .await
        .unwrap();
    guest.ssh(&format!("[ ! -e {disk} ]")).await.unwrap();

    let guest = cloud.guest(&two).await.unwrap();
    aws.ec2(&format!(
        "attach-volume --volume-id {volume} --instance-id {two} --device /dev/sdg"
    ))
    .await
    .unwrap();
    aws.ec2(&format!("wait volume-in-use --volume-ids {volume}"))
        .await
        .unwrap();
    guest.ssh(&appears).await.unwrap();
    let read = format!("mkdir -p /mnt/data && mount -t ext4 {disk} /mnt/data && cat /mnt/data/file");
    assert_eq!(guest.ssh(&read).await.unwrap(), "kept");
    // It is mounted, and goes all the same.
    aws.ec2(&format!("detach-volume --force --volume-id {volume}"))
        .await
        .unwrap();
    aws.ec2(&format!("wait volume-available --volume-ids {volume}"))
        .await
        .unwrap();
    aws.ec2(&format!("delete-volume --volume-id {volume}"))
        .await
        .unwrap();
    aws.ec2(&format!("wait volume-deleted --volume-ids {volume}"))
        .await
        .unwrap();
    let file = cloud.path("agent/volumes").join(&volume);
    cloud
        .wait_for(
            "the volume's files to go",
            std::time::Duration::from_secs(60),
            || (!file.exists()).then_some(()),
        )
        .await
        .unwrap();
}
