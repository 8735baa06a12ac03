//! Cloud images as their distributions publish them: the order of their partitions, loaders and configurations.

use std::io::{Cursor, Write as _};

use super::bls::FEDORA;
use super::efi::{grub, grub_with, pe, shim};
use super::grub::UBUNTU;
use super::{File, Holds, UUID, check, disk, empty, grubenv, road, text};

const ALPINE: &str = include_str!("alpine.cfg");
const DEBIAN_12: &str = include_str!("debian12-cloud.cfg");
const DEBIAN_13: &str = include_str!("debian13-cloud.cfg");

/// `grub.cfg` in the memory disk of Debian 12's signed GRUB.
const MEMORY_DISK: &str = r#"if [ -z "$prefix" -o ! -e "$prefix" ]; then
	if ! search --file --set=root /.disk/info; then
		search --file --set=root /.disk/mini-info
	fi
	set prefix=($root)/boot/grub
fi
if [ -e $prefix/x86_64-efi/grub.cfg ]; then
	source $prefix/x86_64-efi/grub.cfg
elif [ -e $prefix/grub.cfg ]; then
	source $prefix/grub.cfg
else
	source $cmdpath/grub.cfg
fi
"#;

/// Signed GRUBs have their fonts in a memory disk, for they load none from elsewhere: FAT in Debian 12, where the embedded
/// script is there too, and SquashFS in Debian 13.
fn signed_grub(release: u8) -> Vec<u8> {
    if release > 12 {
        return grub_with(&[b"hsqs".as_slice(), &[0; 4092]].concat(), "/EFI/debian", "");
    }
    let mut fat = Cursor::new(vec![0; 1 << 20]);
    fatfs::format_volume(&mut fat, fatfs::FormatVolumeOptions::new()).unwrap();
    let fs = fatfs::FileSystem::new(&mut fat, fatfs::FsOptions::new()).unwrap();
    let mut file = fs.root_dir().create_file("grub.cfg").unwrap();
    file.write_all(MEMORY_DISK.as_bytes()).unwrap();
    drop(file);
    drop(fs);
    grub_with(&fat.into_inner(), "/EFI/debian", "normal (memdisk)/grub.cfg\n")
}

/// What `grub-install --force-extra-removable` leaves in a Debian's EFI system partition.
fn debian_esp(release: u8) -> Vec<File> {
    let stub =
        format!("search.fs_uuid {UUID} root \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n");
    vec![
        ("/EFI/BOOT/BOOTX64.EFI", shim()),
        ("/EFI/BOOT/grubx64.efi", signed_grub(release)),
        ("/EFI/BOOT/mmx64.efi", pe(&[])),
        ("/EFI/debian/BOOTX64.CSV", Vec::new()),
        ("/EFI/debian/shimx64.efi", shim()),
        ("/EFI/debian/grubx64.efi", signed_grub(release)),
        ("/EFI/debian/fbx64.efi", pe(&[])),
        ("/EFI/debian/mmx64.efi", pe(&[])),
        text("/EFI/debian/grub.cfg", &stub),
    ]
}

fn debian(release: u8, config: &str, kernel: &'static str, initrd: &'static str) -> String {
    let mut root = empty(&[kernel, initrd]);
    root.push(text("/boot/grub/grub.cfg", config));
    root.push(grubenv("/boot/grub/grubenv", ""));
    road(&disk(vec![
        Holds::Files(root),
        Holds::Nothing,
        Holds::Esp(debian_esp(release)),
    ]))
}

#[test]
fn debian_of_images_debian() {
    check(vec![
        (
            "Debian 12",
            debian(
                12,
                DEBIAN_12,
                "/boot/vmlinuz-6.1.0-56-cloud-amd64",
                "/boot/initrd.img-6.1.0-56-cloud-amd64",
            ),
            "/boot/vmlinuz-6.1.0-56-cloud-amd64 | BOOT_IMAGE=/boot/vmlinuz-6.1.0-56-cloud-amd64 \
             root=PARTUUID=79fcc8fd-85e9-452d-9fe0-b8b19d7b9bfe ro console=tty0 console=ttyS0,115200 \
             earlyprintk=ttyS0,115200 consoleblank=0 | /boot/initrd.img-6.1.0-56-cloud-amd64",
        ),
        (
            "Debian 13",
            debian(
                13,
                DEBIAN_13,
                "/boot/vmlinuz-6.12.118+deb13-cloud-amd64",
                "/boot/initrd.img-6.12.118+deb13-cloud-amd64",
            ),
            "/boot/vmlinuz-6.12.118+deb13-cloud-amd64 | BOOT_IMAGE=/boot/vmlinuz-6.12.118+deb13-cloud-amd64 \
             root=PARTUUID=f00883a0-fadb-4808-a970-05505597451c ro console=tty0 console=ttyS0,115200 \
             earlyprintk=ttyS0,115200 consoleblank=0 | /boot/initrd.img-6.12.118+deb13-cloud-amd64",
        ),
        (
            "a configuration on a memory disk that is not read",
            debian(
                13,
                "source (memdisk)/more.cfg\nmenuentry x { linux /boot/k; }\n",
                "/boot/k",
                "/boot/i",
            ),
            "firmware: /boot/grub/grub.cfg: the device (memdisk), which is SquashFS",
        ),
        (
            "a search that the memory disk may answer",
            debian(
                13,
                "search --file --set=root /marker\nmenuentry x { linux /boot/k; }\n",
                "/boot/k",
                "/boot/i",
            ),
            "firmware: /boot/grub/grub.cfg: line 1: a search for /marker, which may be on the memory disk of \
             /EFI/BOOT/grubx64.efi (SquashFS)",
        ),
    ]);
}

/// Two variants: a GPT with GRUB on 512 KiB of FAT for UEFI, one file system without a partition table for BIOS.
#[test]
fn alpine() {
    let mut root = empty(&["/boot/vmlinuz-virt", "/boot/initramfs-virt"]);
    root.push(text("/boot/grub/grub.cfg", ALPINE));
    root.push(grubenv("/boot/grub/grubenv", ""));
    let esp = vec![
        ("/EFI/boot/bootx64.efi", grub("(,gpt2)/boot/grub", "")),
        ("/EFI/alpine/grubx64.efi", grub("(,gpt2)/boot/grub", "")),
    ];
    let extlinux = "# Generated by update-extlinux 6.04_pre1-r15\nDEFAULT menu.c32\nPROMPT 0\nMENU TITLE Alpine/Linux Boot Menu\n\
         MENU HIDDEN\nMENU AUTOBOOT Alpine will be booted automatically in # seconds.\nTIMEOUT 1\nLABEL virt\n  MENU DEFAULT\n  \
         MENU LABEL Linux virt\n  LINUX vmlinuz-virt\n  INITRD initramfs-virt\n  \
         APPEND root=LABEL=/ modules=sd-mod,usb-storage,ext4 console=ttyS0,115200n8\n\nMENU SEPARATOR\n";
    let mut bios = empty(&[
        "/boot/ldlinux.sys",
        "/boot/ldlinux.c32",
        "/boot/menu.c32",
        "/boot/vmlinuz-virt",
        "/boot/initramfs-virt",
    ]);
    bios.push(text("/boot/extlinux.conf", extlinux));
    check(vec![
        (
            "UEFI",
            road(&disk(vec![Holds::Esp(esp), Holds::Files(root)])),
            "/boot/vmlinuz-virt | BOOT_IMAGE=/boot/vmlinuz-virt root=UUID=8f1b9a3e-0000-4000-8000-000000000001 ro \
             modules=sd-mod,usb-storage,ext4 console=ttyS0,115200n8 | /boot/initramfs-virt",
        ),
        (
            "BIOS",
            road(&disk(vec![Holds::Files(bios)])),
            "/boot/vmlinuz-virt | root=LABEL=/ modules=sd-mod,usb-storage,ext4 console=ttyS0,115200n8 | /boot/initramfs-virt",
        ),
    ]);
}

/// A Fedora's EFI system partition with this stub.
fn fedora_esp(stub: &str) -> Holds {
    Holds::Esp(vec![
        ("/EFI/BOOT/BOOTX64.EFI", shim()),
        ("/EFI/BOOT/fbx64.efi", pe(&[])),
        ("/EFI/fedora/BOOTX64.CSV", Vec::new()),
        ("/EFI/fedora/shimx64.efi", shim()),
        ("/EFI/fedora/grubx64.efi", grub("/EFI/fedora", "")),
        text("/EFI/fedora/grub.cfg", &stub.replace("UUID", UUID)),
    ])
}

#[test]
fn fedora_and_its_kin() {
    let stub = "search --no-floppy --fs-uuid --set=dev UUID\nset prefix=($dev)/grub2\nexport $prefix\nconfigfile $prefix/grub.cfg\n";
    let version = "6.17.1-300.fc43.x86_64";
    let mut boot = empty(&[
        "/vmlinuz-6.17.1-300.fc43.x86_64",
        "/initramfs-6.17.1-300.fc43.x86_64.img",
    ]);
    boot.push(text("/grub2/grub.cfg", FEDORA));
    boot.push(grubenv("/grub2/grubenv", ""));
    boot.push(text(
        "/loader/entries/0123456789abcdef-6.17.1-300.fc43.x86_64.conf",
        &format!(
            "title Fedora Linux ({version}) 43 (Cloud Edition)\nversion {version}\nlinux /vmlinuz-{version}\n\
             initrd /initramfs-{version}.img\noptions no_timer_check console=tty1 console=ttyS0,115200n8 \
             systemd.firstboot=off rootflags=subvol=root root=UUID=9\ngrub_users $grub_users\ngrub_arg --unrestricted\n\
             grub_class fedora\n"
        ),
    ));
    check(vec![
        (
            "Fedora 35 to 43: /boot on ext4, the root on btrfs",
            road(&disk(vec![
                Holds::Nothing,
                fedora_esp(stub),
                Holds::Files(boot),
                Holds::Other("btrfs"),
            ])),
            "/vmlinuz-6.17.1-300.fc43.x86_64 | BOOT_IMAGE=/vmlinuz-6.17.1-300.fc43.x86_64 no_timer_check console=tty1 \
             console=ttyS0,115200n8 systemd.firstboot=off rootflags=subvol=root root=UUID=9 | \
             /initramfs-6.17.1-300.fc43.x86_64.img",
        ),
        (
            "Fedora 44: /boot is a subvolume of btrfs",
            road(&disk(vec![
                Holds::Nothing,
                fedora_esp(
                    "set btrfs_relative_path=\"yes\"\nsearch --no-floppy --fs-uuid --set=dev UUID\n\
                     set prefix=($dev)/boot/grub2\nexport $prefix\nconfigfile $prefix/grub.cfg\n",
                ),
                Holds::Other("btrfs"),
            ])),
            "firmware: /EFI/fedora/grub.cfg: line 2: a search for 8f1b9a3e-0000-4000-8000-000000000001, which may be on \
             partition 3 (btrfs)",
        ),
        (
            "Rocky 9 and RHEL 9: /boot and the root on XFS",
            road(&disk(vec![
                Holds::Nothing,
                fedora_esp(stub),
                Holds::Other("XFS"),
                Holds::Other("XFS"),
            ])),
            "firmware: /EFI/fedora/grub.cfg: line 1: a search for 8f1b9a3e-0000-4000-8000-000000000001, which may be on \
             partition 3 (XFS)",
        ),
        (
            "Arch: grub-install --removable, all on btrfs",
            road(&disk(vec![
                Holds::Nothing,
                Holds::Esp(vec![(
                    "/EFI/BOOT/BOOTX64.EFI",
                    grub(
                        "(,gpt3)/boot/grub",
                        "search.fs_uuid 9 root \nset prefix=($root)/boot/grub\n",
                    ),
                )]),
                Holds::Other("btrfs"),
            ])),
            "firmware: /EFI/BOOT/BOOTX64.EFI: line 1: a search for 9, which may be on partition 3 (btrfs)",
        ),
    ]);
}

/// Ubuntu 24.04: the root, a BIOS boot partition, an EFI system partition, `/boot` on ext4.
#[test]
fn ubuntu() {
    let stub =
        format!("search.fs_uuid {UUID} root \nset prefix=($root)'/grub'\nconfigfile $prefix/grub.cfg\n");
    let image = |config: &str, environment: &str| {
        let mut boot = empty(&[
            "/vmlinuz-6.8.0-49-generic",
            "/microcode.cpio",
            "/initrd.img-6.8.0-49-generic",
        ]);
        boot.push(text("/grub/grub.cfg", &config.replace("/boot/", "/")));
        boot.push(grubenv("/grub/grubenv", environment));
        let esp = vec![
            ("/EFI/BOOT/BOOTX64.EFI", shim()),
            ("/EFI/BOOT/fbx64.efi", pe(&[])),
            ("/EFI/BOOT/mmx64.efi", pe(&[])),
            ("/EFI/ubuntu/BOOTX64.CSV", Vec::new()),
            ("/EFI/ubuntu/shimx64.efi", shim()),
            ("/EFI/ubuntu/grubx64.efi", grub("/EFI/ubuntu", "")),
            text("/EFI/ubuntu/grub.cfg", &stub),
        ];
        road(&disk(vec![
            Holds::Others(empty(&["/etc/fstab"])),
            Holds::Nothing,
            Holds::Esp(esp),
            Holds::Files(boot),
        ]))
    };
    let generic = UBUNTU.replace("quiet splash $vt_handoff", "console=tty1 console=ttyS0");
    // GRUB_FORCE_PARTUUID, as in the minimal images and those for EC2: no initrd, and one after a boot that failed.
    let entry = generic
        .lines()
        .position(|line| line.starts_with("\tlinux"))
        .unwrap();
    let lines: Vec<&str> = generic.lines().collect();
    let partuuid = format!(
        "{}\n\tif [ \"${{initrdfail}}\" = 1 ]; then\n\t  linux\t/boot/vmlinuz-6.8.0-49-generic root=PARTUUID=7 ro  \
         console=tty1 console=ttyS0\n\t  initrd\t/boot/initrd.img-6.8.0-49-generic\n\telse\n\t  \
         linux\t/boot/vmlinuz-6.8.0-49-generic root=PARTUUID=7 ro  console=tty1 console=ttyS0 panic=-1\n\tfi\n\t\
         initrdfail\n{}\n",
        lines[..entry].join("\n"),
        lines[entry + 2..].join("\n"),
    );
    let forced = format!("set partuuid=7\n{partuuid}");
    check(vec![
        (
            "Ubuntu 24.04",
            image(&generic, ""),
            "/vmlinuz-6.8.0-49-generic | BOOT_IMAGE=/vmlinuz-6.8.0-49-generic root=LABEL=cloudimg-rootfs ro console=tty1 \
             console=ttyS0 | /microcode.cpio /initrd.img-6.8.0-49-generic",
        ),
        (
            "Ubuntu 24.04 without an initrd: GRUB notes each boot, and the next one differs unless it succeeded",
            image(&forced, ""),
            "firmware: save_env: the next boot of /vmlinuz-6.8.0-49-generic has another command line or other initrds",
        ),
    ]);
}
