//! Uploads: what becomes an AMI, and that nothing else stays.

use std::io::Write as _;

use hearth_api::agent::instance_intent::BootMode;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::v1;
use hearth_api::v1::upload_image_request::{Chunk, Parameters, Part};

use crate::support::{Cloud, Hearthd, code, disk, register, register_as, seen};

#[tokio::test]
async fn what_is_no_bootable_disk_leaves_nothing() {
    let hearthd = Hearthd::start();
    let client = hearthd.client().await;
    let noise: Vec<u8> = (0..1u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut qcow2 = vec![0u8; 1 << 20];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    for (name, bytes) in [("noise", noise), ("a qcow2", qcow2), ("zeros", vec![0; 1 << 20])] {
        let status = register(&client, name, &bytes).await.unwrap_err();
        assert_eq!(code(&status), "InvalidParameterValue", "{status:?}");
        assert!(status.message().contains("cannot become an AMI"));
    }
    for (name, size, expected) in [
        ("x", 1, "InvalidAMIName.Malformed"),
        ("none", 0, "InvalidParameterValue"),
        ("huge", i64::MAX, "InvalidParameterValue"),
    ] {
        let parameters = Parameters {
            name: name.into(),
            size,
            ..Parameters::default()
        };
        let parts = vec![part(Part::Parameters(parameters))];
        let status = client
            .clone()
            .image_disks
            .upload_image(tokio_stream::iter(parts))
            .await
            .unwrap_err();
        assert_eq!(code(&status), expected, "{name}: {status:?}");
    }
    assert!(hearthd.images().is_empty());
}

#[tokio::test]
async fn names_are_unique_and_digests_are_of_the_disk() {
    let hearthd = Hearthd::start();
    let Some(bytes) = disk(hearthd.dir.path()) else {
        return;
    };
    let client = hearthd.client().await;
    let id = register(&client, "tiny", &bytes).await.unwrap();
    let status = register(&client, "tiny", &bytes).await.unwrap_err();
    assert_eq!(code(&status), "InvalidAMIName.Duplicate");
    assert!(hearthd.only_disk().await == bytes);
    let told = client
        .clone()
        .images
        .describe_images(v1::DescribeImagesRequest::default())
        .await
        .unwrap();
    let image = &told.into_inner().images[0];
    assert_eq!(image.state, "available");
    let disk = disk_of(&client, &id).await;
    assert_eq!(disk.size, bytes.len() as i64);
    assert!(disk.kernel_path.ends_with("/vmlinuz"), "{}", disk.kernel_path);
}

async fn disk_of(client: &hearth_api::Client, image_id: &str) -> v1::ImageDisk {
    let request = v1::DescribeImageDisksRequest {
        image_ids: vec![image_id.to_owned()],
        ..v1::DescribeImageDisksRequest::default()
    };
    let told = client.clone().image_disks.describe_image_disks(request).await;
    told.unwrap().into_inner().image_disks.remove(0)
}

/// An EFI system partition with this loader, a kernel, and GRUB's configuration for it.
fn efi_disk(loader: &[u8]) -> Vec<u8> {
    const START: usize = 1 << 20;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".to_vec();
    elf.resize(50_000, 7);
    let mut esp = std::io::Cursor::new(vec![0; 4 << 20]);
    fatfs::format_volume(&mut esp, fatfs::FormatVolumeOptions::new()).unwrap();
    let fs = fatfs::FileSystem::new(&mut esp, fatfs::FsOptions::new()).unwrap();
    let config: &[u8] = b"menuentry linux {\n linux /vmlinuz\n}\n";
    for (path, content) in [
        ("EFI/BOOT/BOOTX64.EFI", loader),
        ("grub/grub.cfg", config),
        ("vmlinuz", &elf),
    ] {
        let mut dir = fs.root_dir();
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
            dir = dir.create_dir(parent).unwrap();
        }
        dir.create_file(name).unwrap().write_all(content).unwrap();
    }
    drop(fs);
    let esp = esp.into_inner();
    let mut disk = vec![0; START + esp.len()];
    // One partition of the MBR: its type, first sector and sectors.
    disk[446 + 4] = 0xef;
    disk[446 + 8..446 + 12].copy_from_slice(&((START / 512) as u32).to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&((esp.len() / 512) as u32).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[START..].copy_from_slice(&esp);
    disk
}

/// A PE file with the modules of a GRUB whose prefix is "/grub".
fn grub() -> Vec<u8> {
    let mut image = vec![0; 64];
    image[..2].copy_from_slice(b"MZ");
    image[60] = 64;
    image.extend(b"PE\0\0\x64\x86\x01\0");
    image.resize(64 + 24, 0);
    image.extend(b"mods\0\0\0\0");
    image.resize(64 + 24 + 40, 0);
    let mut modules = b"mimg\0\0\0\0".to_vec();
    modules.extend(24_u64.to_le_bytes());
    modules.extend(40_u64.to_le_bytes());
    modules.extend([3, 0, 0, 0, 16, 0, 0, 0]);
    modules.extend(b"/grub\0\0\0");
    image[64 + 24 + 16..][..4].copy_from_slice(&(modules.len() as u32).to_le_bytes());
    image[64 + 24 + 20..][..4].copy_from_slice(&128_u32.to_le_bytes());
    image.extend(modules);
    image
}

#[tokio::test]
async fn a_boot_mode_is_what_is_asked_for_within_what_the_disk_can_do() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    cloud.host.uefi = true;
    let mut session = cloud.connect().await;
    let direct = disk(cloud.hearthd.dir.path()).unwrap();
    let (firmware, both) = (efi_disk(b"MZ"), efi_disk(&grub()));
    let kept = cloud.hearthd.images();
    for (boot_mode, bytes, obstacle) in [
        (
            "uefi",
            &direct,
            "no EFI system partition with EFI/BOOT/BOOTX64.EFI",
        ),
        ("uefi-preferred", &direct, "no EFI system partition"),
        (
            "legacy-bios",
            &firmware,
            "(/EFI/BOOT/BOOTX64.EFI: a loader that is not GRUB)",
        ),
        ("uefi-preferred", &firmware, "a loader that is not GRUB"),
        ("bios", &both, "Expecting legacy-bios, uefi or uefi-preferred."),
    ] {
        let status = register_as(&cloud.client, "refused", boot_mode, bytes)
            .await
            .unwrap_err();
        assert_eq!(code(&status), "InvalidParameterValue", "{status:?}");
        assert!(status.message().contains("BootMode"), "{}", status.message());
        assert!(status.message().contains(obstacle), "{}", status.message());
    }
    assert_eq!(cloud.hearthd.images(), kept);

    let mut expected = Vec::new();
    for (asked, stored, current, intended) in [
        ("", "uefi-preferred", "legacy-bios", BootMode::UefiPreferred),
        ("legacy-bios", "legacy-bios", "legacy-bios", BootMode::LegacyBios),
        ("uefi", "uefi", "uefi", BootMode::Uefi),
        (
            "uefi-preferred",
            "uefi-preferred",
            "legacy-bios",
            BootMode::UefiPreferred,
        ),
    ] {
        let mut request = cloud.request(1);
        let name = format!("asked {asked}");
        request.image_id = register_as(&cloud.client, &name, asked, &both).await.unwrap();
        let described = v1::DescribeImagesRequest {
            image_ids: vec![request.image_id.clone()],
            ..v1::DescribeImagesRequest::default()
        };
        let described = cloud.client.clone().images.describe_images(described).await;
        let image = described.unwrap().into_inner().images.remove(0);
        assert_eq!(image.boot_mode, stored);
        let disk = disk_of(&cloud.client, &image.image_id).await;
        assert_eq!(disk.kernel_path.is_empty(), stored == "uefi");
        let instance = cloud.run(request).await.unwrap().instances.remove(0);
        assert_eq!(instance.boot_mode, stored);
        assert_eq!(instance.current_instance_boot_mode, current);
        expected.push((instance.instance_id, intended));
    }
    let intents = session
        .intents_when(|intents| intents.instances.len() == expected.len())
        .await;
    for (id, mode) in &expected {
        let intent = intents.instances.iter().find(|intent| intent.instance_id == *id);
        assert_eq!(intent.unwrap().boot_mode(), *mode);
    }
    // One of them has fallen over to firmware, as its host says.
    let (id, _) = &expected[3];
    let intent = intents.instances.iter().find(|intent| intent.instance_id == *id);
    let mut booted = seen(intent.unwrap(), Phase::Running);
    booted.set_boot_mode(BootMode::Uefi);
    session.observe(vec![booted]).await;
    let running = cloud.until(id, "running").await;
    assert_eq!(running.current_instance_boot_mode, "uefi");
    assert_eq!(running.boot_mode, "uefi-preferred");
    let request = v1::DescribeInstancesRequest {
        filters: vec![v1::Filter {
            name: "current-instance-boot-mode".into(),
            values: vec!["uefi".into()],
        }],
        ..v1::DescribeInstancesRequest::default()
    };
    let told = cloud.client.clone().instances.describe_instances(request).await;
    let told = told.unwrap().into_inner().reservations;
    let found: Vec<&str> = told
        .iter()
        .flat_map(|reservation| &reservation.instances)
        .map(|instance| &*instance.instance_id)
        .collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.contains(&id.as_str()), "{found:?}");
}

#[tokio::test]
async fn an_image_that_only_firmware_boots_is_uefi_and_runs_where_firmware_is() {
    let Some(cloud) = Cloud::start().await else { return };
    let _session = cloud.connect().await;
    let image_id = register(&cloud.client, "efi", &efi_disk(b"MZ")).await.unwrap();
    let of = |name: &str, value: &str| v1::DescribeImagesRequest {
        filters: vec![v1::Filter {
            name: name.into(),
            values: vec![value.into()],
        }],
        ..v1::DescribeImagesRequest::default()
    };
    for (mode, id) in [("uefi", &image_id), ("legacy-bios", &cloud.image_id)] {
        let told = cloud
            .client
            .clone()
            .images
            .describe_images(of("boot-mode", mode))
            .await
            .unwrap();
        let images = told.into_inner().images;
        assert_eq!((images.len(), &images[0].image_id), (1, id));
        let disk = disk_of(&cloud.client, id).await;
        assert_eq!(disk.kernel_path.is_empty(), mode == "uefi");
    }
    let mut request = cloud.request(1);
    request.image_id = image_id;
    let status = cloud.run(request).await.unwrap_err();
    assert_eq!(code(&status), "InsufficientInstanceCapacity");
    assert!(
        status.message().contains("has no UEFI firmware"),
        "{}",
        status.message()
    );
    let instances = cloud.run(cloud.request(1)).await.unwrap().instances;
    let modes = (
        &*instances[0].boot_mode,
        &*instances[0].current_instance_boot_mode,
    );
    assert_eq!(modes, ("legacy-bios", "legacy-bios"));
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_what_came_for_a_day() {
    let mut hearthd = Hearthd::start();
    let client = hearthd.client().await;
    let upload = || {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let mut images = client.clone().image_disks;
        let call = tokio::spawn(async move {
            let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
            images.upload_image(stream).await.map(|_| ())
        });
        (sender, call)
    };
    let begin = |name: &str| {
        let parameters = Parameters {
            name: name.into(),
            size: 8 << 20,
            ..Parameters::default()
        };
        let chunk = Chunk {
            offset: 0,
            data: vec![1; 1 << 20].into(),
        };
        [part(Part::Parameters(parameters)), part(Part::Chunk(chunk))]
    };
    // The client goes away.
    let (sender, call) = upload();
    for part in begin("gone") {
        sender.send(part).await.unwrap();
    }
    until(|| hearthd.images().len() == 1).await;
    call.abort();
    drop(sender);
    let is_partial = |name: &String| name.ends_with(".partial");
    until(|| hearthd.images().iter().all(is_partial)).await;
    // `hearthd` goes away; its next start sweeps.
    let (sender, _call) = upload();
    for part in begin("killed") {
        sender.send(part).await.unwrap();
    }
    until(|| !hearthd.images().is_empty()).await;
    hearthd.kill();
    let stored = hearthd.repository().write(None, None).await.unwrap();
    stored.finish("snap-00000000000000001", 1 << 20).await.unwrap();
    std::fs::write(hearthd.uploads().join("notes.txt"), "somebody's").unwrap();
    hearthd.spawn();
    let mut left = hearthd.images();
    left.retain(|name| !is_partial(name));
    assert_eq!(left, ["notes.txt"]);
    assert!(hearthd.images().len() > 1, "nobody can go on");
    hearthd.kill();
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(24 * 3600);
    for file in std::fs::read_dir(hearthd.uploads()).unwrap() {
        let file = std::fs::File::open(file.unwrap().path()).unwrap();
        file.set_modified(yesterday).unwrap();
    }
    hearthd.spawn();
    until(|| hearthd.images() == ["notes.txt"]).await;
}

#[tokio::test]
async fn equal_disks_are_kept_once_and_go_with_the_last_image() {
    let hearthd = Hearthd::with(&["--terminated-visible", "1"]);
    let Some(mut bytes) = disk(hearthd.dir.path()) else {
        return;
    };
    let client = hearthd.client().await;
    let first = register(&client, "first", &bytes).await.unwrap();
    let (chunks, nodes) = (hearthd.stored("chunks"), hearthd.stored("nodes"));
    let second = register(&client, "second", &bytes).await.unwrap();
    assert_eq!(
        (hearthd.stored("chunks"), hearthd.stored("nodes")),
        (chunks, nodes)
    );
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    let third = register(&client, "third", &bytes).await.unwrap();
    assert_eq!(hearthd.stored("chunks"), chunks + 1);
    let deregister = async |image_id: String| {
        let request = v1::DeregisterImageRequest {
            image_id,
            delete_associated_snapshots: true,
            ..Default::default()
        };
        client.clone().images.deregister_image(request).await.unwrap();
    };
    deregister(first).await;
    deregister(third).await;
    until(|| hearthd.stored("chunks") == chunks).await;
    assert!(hearthd.only_disk().await.len() == bytes.len());
    deregister(second).await;
    until(|| hearthd.stored("chunks") + hearthd.stored("nodes") + hearthd.stored("pins") == 0).await;
    assert!(hearthd.images().is_empty());
}

fn part(part: Part) -> v1::UploadImageRequest {
    v1::UploadImageRequest { part: Some(part) }
}

async fn until(done: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        assert!(begin.elapsed() < crate::support::SOON, "it does not happen");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
