//! Refusals: EC2's error code, a sentence, and nothing left behind.
#![allow(clippy::unwrap_used)]

use hearth_api::v1;
use hearth_tests::{Cloud, can_run, tcp_from};
use tonic::Status;

type Change = fn(&mut v1::RunInstancesRequest);

/// EC2's code of a refusal.
fn code(status: &Status) -> String {
    let error = hearth_api::error::ApiError::from_status(status)
        .unwrap_or_else(|| panic!("no EC2 code in {status:?}"));
    assert!(status.message().len() > 10, "a sentence: {status:?}");
    error.code.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_codes_and_leave_nothing() {
    if !can_run("refusals_have_codes_and_leave_nothing") {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let mut instances = cloud.instances().await.unwrap();
    let run = |change: Change| {
        let mut request = cloud.launch_request();
        change(&mut request);
        request
    };

    let refusals: [(Change, &str); 9] = [
        (
            |r| r.image_id = "ami-00000000000000000".into(),
            "InvalidAMIID.NotFound",
        ),
        (|r| r.image_id = "hello".into(), "InvalidAMIID.Malformed"),
        (|r| r.max_count = 0, "InvalidParameterValue"),
        (
            |r| {
                r.min_count = 10_000;
                r.max_count = 10_000;
            },
            "InstanceLimitExceeded",
        ),
        (|r| r.user_data = "AAAA".repeat(5_462), "InvalidParameterValue"),
        (|r| r.instance_type = "t2.enormous".into(), "InvalidInstanceType"),
        (
            |r| r.instance_type = "r4.16xlarge".into(),
            "InsufficientInstanceCapacity",
        ),
        (|r| r.key_name = "nobody".into(), "InvalidKeyPair.NotFound"),
        (|r| r.dry_run = true, "DryRunOperation"),
    ];
    for (change, expected) in refusals {
        let status = instances.run_instances(run(change)).await.unwrap_err();
        assert_eq!(code(&status), expected, "{status:?}");
    }
    let none = instances
        .describe_instances(v1::DescribeInstancesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(none.reservations.is_empty(), "{none:?}");

    let unknown = v1::TerminateInstancesRequest {
        instance_ids: vec!["i-00000000000000000".into()],
        dry_run: false,
    };
    assert_eq!(
        code(&instances.terminate_instances(unknown).await.unwrap_err()),
        "InvalidInstanceID.NotFound"
    );

    // Security groups.
    let mut groups = cloud.security_groups().await.unwrap();
    let malformed = v1::AuthorizeSecurityGroupIngressRequest {
        group_name: "ssh".into(),
        ip_permissions: vec![tcp_from("300.0.0.0/99", 22)],
        ..Default::default()
    };
    let status = groups
        .authorize_security_group_ingress(malformed)
        .await
        .unwrap_err();
    assert_eq!(code(&status), "InvalidParameterValue", "{status:?}");

    // Key pairs.
    let duplicate = v1::CreateKeyPairRequest {
        key_name: "key".into(),
        ..Default::default()
    };
    let status = cloud
        .key_pairs()
        .await
        .unwrap()
        .create_key_pair(duplicate)
        .await
        .unwrap_err();
    assert_eq!(code(&status), "InvalidKeyPair.Duplicate");

    // Images: no disk at all, a qcow2 in disguise, a disk without a kernel.
    let noise: Vec<u8> = (0..1 << 20)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut qcow2 = vec![0u8; 1 << 20];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let empty_disk = cloud.path("empty.raw");
    std::fs::File::create(&empty_disk)
        .unwrap()
        .set_len(16 << 20)
        .unwrap();
    let made = std::process::Command::new("mke2fs")
        .args(["-q", "-t", "ext4"])
        .arg(&empty_disk)
        .status()
        .unwrap();
    assert!(made.success());
    for (name, bytes) in [
        ("noise", noise),
        ("disguise", qcow2),
        ("empty", std::fs::read(&empty_disk).unwrap()),
    ] {
        let status = cloud.register_bytes(name, bytes).await.unwrap_err();
        assert!(code(&status).starts_with("Invalid"), "{name}: {status:?}");
    }
    let left: Vec<_> = std::fs::read_dir(cloud.path("controller/repository/snapshots"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(left.len(), 1, "only the tiny AMI is kept: {left:?}");

    // A group in use cannot be deleted; nothing changes by trying.
    let id = cloud.launch(|_| {}).await.unwrap();
    let delete = v1::DeleteSecurityGroupRequest {
        group_name: "ssh".into(),
        ..Default::default()
    };
    assert_eq!(
        code(&groups.delete_security_group(delete).await.unwrap_err()),
        "DependencyViolation"
    );

    // One bad id in a batch changes nothing.
    let batch = v1::StopInstancesRequest {
        instance_ids: vec![id.clone(), "i-00000000000000000".into()],
        ..Default::default()
    };
    assert_eq!(
        code(&instances.stop_instances(batch).await.unwrap_err()),
        "InvalidInstanceID.NotFound"
    );
    let state = cloud.wait_for_state(&id, "running").await.unwrap();
    assert_eq!(state.state.unwrap().code, 16);
}

/// A file system of 16 MiB over a directory, gone with the test.
struct TinyDisk(std::path::PathBuf);

impl TinyDisk {
    fn over(path: std::path::PathBuf) -> Self {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(mount.success());
        Self(path)
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let status = std::process::Command::new("umount").arg(&self.0).status();
        assert!(
            status.is_ok_and(|s| s.success()),
            "{} is still mounted",
            self.0.display()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_while_importing_leaves_nothing() {
    if !can_run("a_full_disk_while_importing_leaves_nothing") {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let images = cloud.path("controller/repository/uploads");
    let disk = TinyDisk::over(images.clone());
    let status = cloud
        .register_bytes("large", vec![0xa5; 64 << 20])
        .await
        .unwrap_err();
    assert_eq!(code(&status), "InsufficientCapacity", "{status:?}");
    let left: Vec<_> = std::fs::read_dir(&images).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    drop(disk);
    let described = cloud
        .images()
        .await
        .unwrap()
        .describe_images(v1::DescribeImagesRequest::default())
        .await
        .unwrap();
    assert_eq!(described.into_inner().images.len(), 1, "only the tiny AMI");
    // With room again the cloud goes on as before.
    let ami = std::env::var("HEARTH_TINY_AMI").unwrap();
    cloud.register("again", std::path::Path::new(&ami)).await.unwrap();
}
