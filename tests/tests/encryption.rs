//! Encrypted volumes, snapshots and AMIs, by AWS's own command line and in real guests.
#![allow(clippy::unwrap_used)]

use hearth_tests::aws::Aws;
use hearth_tests::{Cloud, can_run, holds};

const NAME: &str = "what_guests_write_to_encrypted_disks_lies_nowhere_on_the_host_as_they_wrote_it";
const SECRET: &str = "a secret that is written in many places";

#[tokio::test(flavor = "multi_thread")]
async fn what_guests_write_to_encrypted_disks_lies_nowhere_on_the_host_as_they_wrote_it() {
    if !can_run(NAME) || !Aws::is_there(NAME) {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let aws = Aws::of(&cloud).unwrap();
    let id = cloud.launch(|_| {}).await.unwrap();
    let zone = "describe-availability-zones --query AvailabilityZones[0].ZoneName";
    let zone = aws.ec2(zone).await.unwrap();
    let name = |volume: &str| format!("/dev/disk/by-id/virtio-{}", volume.replace('-', ""));
    let attach = async |volume: &str, instance: &str, device: &str| {
        let available = format!("wait volume-available --volume-ids {volume}");
        aws.ec2(&available).await.unwrap();
        let attach = format!("attach-volume --volume-id {volume} --instance-id {instance} --device {device}");
        aws.ec2(&attach).await.unwrap();
    };
    let guest = cloud.guest(&id).await.unwrap();
    let appears = async |volume: &str| {
        let appears = format!("until [ -b {} ]; do usleep 200000; done", name(volume));
        guest.ssh(&appears).await.unwrap();
    };
    let mut volumes = Vec::new();
    for (how, device) in [("--no-encrypted", "/dev/sdf"), ("--encrypted", "/dev/sdg")] {
        let create = format!("create-volume --size 1 {how} --availability-zone {zone} --query VolumeId");
        let volume = aws.ec2(&create).await.unwrap();
        attach(&volume, &id, device).await;
        appears(&volume).await;
        let write = format!(
            "yes '{SECRET}' | dd of={} bs=64k count=16 iflag=fullblock conv=fsync 2>/dev/null",
            name(&volume)
        );
        guest.ssh(&write).await.unwrap();
        volumes.push(volume);
    }
    let [plain, encrypted] = &volumes[..] else {
        panic!()
    };
    let on_host = |volume: &str| cloud.path("agent/volumes").join(volume);
    assert!(
        holds(&on_host(plain), SECRET),
        "what is looked for is not found where it is"
    );
    assert!(
        !holds(&on_host(encrypted), SECRET),
        "an encrypted volume lies plain"
    );

    // A snapshot of it is encrypted, and so is a volume that is made of that.
    let create = format!("create-snapshot --volume-id {encrypted} --query [SnapshotId,Encrypted]");
    let snapshot = aws.ec2(&create).await.unwrap();
    let (snapshot, is_encrypted) = snapshot.split_once('\t').unwrap();
    assert_eq!(is_encrypted, "True");
    let completed = format!("wait snapshot-completed --snapshot-ids {snapshot}");
    aws.ec2(&completed).await.unwrap();
    let create =
        format!("create-volume --snapshot-id {snapshot} --availability-zone {zone} --query VolumeId");
    let copy = aws.ec2(&create).await.unwrap();
    attach(&copy, &id, "/dev/sdh").await;
    appears(&copy).await;
    let read = format!("dd if={} bs=64k count=16 2>/dev/null | sort -u", name(&copy));
    let read = guest.ssh(&read).await.unwrap();
    assert!(
        read.lines()
            .all(|line| SECRET.starts_with(line) || line == SECRET)
            && read.contains(SECRET),
        "{read}"
    );
    assert!(!holds(&on_host(&copy), SECRET) && !holds(&cloud.path("agent/images"), SECRET));

    // An instance whose root volume alone is encrypted, the AMI of it, and an instance of that.
    let two = cloud
        .launch(|request| {
            let ebs = hearth_api::v1::EbsBlockDevice {
                encrypted: Some(true),
                ..Default::default()
            };
            request.block_device_mappings = vec![hearth_api::v1::BlockDeviceMapping {
                device_name: "/dev/vda".into(),
                ebs: Some(ebs),
                ..Default::default()
            }];
        })
        .await
        .unwrap();
    let guest = cloud.guest(&two).await.unwrap();
    let write = format!("yes '{SECRET}' | head -n 9999 >/root/secret && sync");
    guest.ssh(&write).await.unwrap();
    let root = format!(
        "describe-instances --instance-ids {two} --query Reservations[0].Instances[0].BlockDeviceMappings[0].Ebs.VolumeId"
    );
    let root = aws.ec2(&root).await.unwrap();
    assert!(
        !holds(&on_host(&root), SECRET),
        "an encrypted root volume lies plain"
    );
    let create = format!("create-image --no-reboot --instance-id {two} --name made --query ImageId");
    let image = aws.ec2(&create).await.unwrap();
    let available = format!("wait image-available --image-ids {image}");
    aws.ec2(&available).await.unwrap();
    let three = cloud
        .launch(|request| request.image_id.clone_from(&image))
        .await
        .unwrap();
    let guest = cloud.guest(&three).await.unwrap();
    assert_eq!(guest.ssh("wc -l </root/secret").await.unwrap(), "9999");
    assert!(
        !holds(&cloud.path("agent/images"), SECRET),
        "an encrypted AMI lies plain"
    );
    assert!(!holds(&cloud.path("agent/volumes").join(&root), SECRET));
}
