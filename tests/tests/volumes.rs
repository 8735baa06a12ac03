//! A volume's whole life, by AWS's own command line and in real guests.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use hearth_tests::{Cloud, can_run, skipped};

const NAME: &str = "a_volume_is_made_written_moved_grown_and_deleted_by_aws";

/// AWS's command line, as root of the cloud.
struct Aws {
    python: OsString,
    endpoint: String,
    credentials: PathBuf,
}

impl Aws {
    /// What a command of `aws ec2` prints as text, without the last newline.
    async fn ec2(&self, words: &str) -> String {
        // Its own script names the interpreter by the path at which it was installed.
        let mut command = Command::new(&self.python);
        command
            .args([
                "-m",
                "awscli",
                "ec2",
                "--output",
                "text",
                "--region",
                "local-1",
                "--endpoint-url",
            ])
            .arg(&self.endpoint)
            .args(words.split_whitespace())
            .env("AWS_SHARED_CREDENTIALS_FILE", &self.credentials)
            .env("AWS_EC2_METADATA_DISABLED", "true");
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "aws ec2 {words}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_written_moved_grown_and_deleted_by_aws() {
    if !can_run(NAME) {
        return;
    }
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        return skipped(NAME, "HEARTH_PYTHON is not set (scripts/test sets it)");
    };
    let cloud = Cloud::start().await.unwrap();
    let aws = Aws {
        python,
        endpoint: cloud.ec2_endpoint().unwrap(),
        credentials: cloud.path("controller/credentials"),
    };
    let (one, two) = (
        cloud.launch(|_| {}).await.unwrap(),
        cloud.launch(|_| {}).await.unwrap(),
    );
    let zone = aws
        .ec2("describe-availability-zones --query AvailabilityZones[0].ZoneName")
        .await;
    let volume = aws
        .ec2(&format!(
            "create-volume --size 1 --availability-zone {zone} --query VolumeId"
        ))
        .await;
    aws.ec2(&format!("wait volume-available --volume-ids {volume}"))
        .await;
    let disk = format!("/dev/disk/by-id/virtio-{}", volume.replace('-', ""));
    let appears = format!("until [ -b {disk} ]; do usleep 200000; done");

    let guest = cloud.guest(&one).await.unwrap();
    aws.ec2(&format!(
        "attach-volume --volume-id {volume} --instance-id {one} --device /dev/sdf"
    ))
    .await;
    aws.ec2(&format!("wait volume-in-use --volume-ids {volume}"))
        .await;
    guest.ssh(&appears).await.unwrap();
    let write = format!(
        "mke2fs {disk} && mkdir -p /mnt/data && mount -t ext4 {disk} /mnt/data && echo kept >/mnt/data/file && \
         umount /mnt/data"
    );
    guest.ssh(&write).await.unwrap();
    aws.ec2(&format!("modify-volume --volume-id {volume} --size 2"))
        .await;
    let grown = format!(
        "until [ $(cat /sys/class/block/vdb/size) = {} ]; do usleep 200000; done",
        2 << 21
    );
    guest.ssh(&grown).await.unwrap();
    aws.ec2(&format!("detach-volume --volume-id {volume}")).await;
    aws.ec2(&format!("wait volume-available --volume-ids {volume}"))
        .await;
    guest.ssh(&format!("[ ! -e {disk} ]")).await.unwrap();

    let guest = cloud.guest(&two).await.unwrap();
    aws.ec2(&format!(
        "attach-volume --volume-id {volume} --instance-id {two} --device /dev/sdg"
    ))
    .await;
    aws.ec2(&format!("wait volume-in-use --volume-ids {volume}"))
        .await;
    guest.ssh(&appears).await.unwrap();
    let read = format!("mkdir -p /mnt/data && mount -t ext4 {disk} /mnt/data && cat /mnt/data/file");
    assert_eq!(guest.ssh(&read).await.unwrap(), "kept");
    // It is mounted, and goes all the same.
    aws.ec2(&format!("detach-volume --force --volume-id {volume}"))
        .await;
    aws.ec2(&format!("wait volume-available --volume-ids {volume}"))
        .await;
    aws.ec2(&format!("delete-volume --volume-id {volume}")).await;
    aws.ec2(&format!("wait volume-deleted --volume-ids {volume}"))
        .await;
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
