//! Disks with an EFI system partition.

use super::bls::FEDORA;
use super::grub::{DEBIAN, DEBIAN_DEFAULT, debian_files};
use super::{ESP_UUID, File, Holds, UUID, check, disk, empty, grubenv, road, text};

/// A PE file with these sections.
pub(super) fn pe(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..2].copy_from_slice(b"MZ");
    file[60] = 64;
    file.extend(b"PE\0\0");
    let mut coff = [0; 20];
    coff[2] = sections.len() as u8;
    file.extend(coff);
    let mut at = file.len() + 40 * sections.len();
    for (name, content) in sections {
        let mut header = [0; 40];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[16..20].copy_from_slice(&(content.len() as u32).to_le_bytes());
        header[20..24].copy_from_slice(&(at as u32).to_le_bytes());
        file.extend(header);
        at += content.len();
    }
    file.extend(sections.iter().flat_map(|(_, content)| content.clone()));
    file
}

/// A GRUB with a prefix, and a script if it is not empty.
pub(super) fn grub(prefix: &str, script: &str) -> Vec<u8> {
    grub_with(&[], prefix, script)
}

/// The same with a memory disk if it is not empty.
pub(super) fn grub_with(memory_disk: &[u8], prefix: &str, script: &str) -> Vec<u8> {
    let mut modules = Vec::new();
    let mut module = |kind: u32, content: &[u8]| {
        let mut content = content.to_vec();
        content.push(0);
        content.resize(content.len().next_multiple_of(8), 0);
        modules.extend(kind.to_le_bytes());
        modules.extend((content.len() as u32 + 8).to_le_bytes());
        modules.extend(content);
    };
    module(0, b"\x7fELF");
    if !memory_disk.is_empty() {
        module(1, memory_disk);
    }
    if !script.is_empty() {
        module(2, script.as_bytes());
    }
    module(3, prefix.as_bytes());
    let mut section = b"mimg\0\0\0\0".to_vec();
    section.extend(24_u64.to_le_bytes());
    section.extend((24 + modules.len() as u64).to_le_bytes());
    section.extend(modules);
    pe(&[(".text", vec![0x90; 32]), ("mods", section)])
}

pub(super) fn shim() -> Vec<u8> {
    pe(&[(".text", vec![0x90; 8]), ("/4", vec![1; 8])])
}

fn root() -> Vec<File> {
    let mut files = debian_files();
    files.push(text("/boot/grub/grub.cfg", DEBIAN));
    files.push(grubenv("/boot/grub/grubenv", ""));
    files
}

fn with(esp: Vec<File>, second: Holds) -> String {
    road(&disk(vec![Holds::Esp(esp), second]))
}

const BOOT: &str = "/EFI/BOOT/BOOTX64.EFI";

#[test]
fn grub_from_firmware() {
    let stub =
        format!("search.fs_uuid {UUID} root \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n");
    let debian = |esp: Vec<File>| with(esp, Holds::Files(root()));
    let fallback = |more: Vec<File>| {
        let mut files = vec![
            (BOOT, shim()),
            ("/EFI/BOOT/fbx64.efi", pe(&[])),
            ("/EFI/debian/BOOTX64.CSV", Vec::new()),
            ("/EFI/debian/shimx64.efi", shim()),
            ("/EFI/debian/grubx64.efi", grub("/EFI/debian", "")),
            text("/EFI/debian/grub.cfg", &stub),
        ];
        files.extend(more);
        files
    };
    let load = format!("search.fs_uuid {UUID} root hd0,gpt2 \nset prefix=($root)'/boot/grub'\n");
    check(vec![
        ("Debian's cloud image: shim, fallback, GRUB, a stub", debian(fallback(Vec::new())), DEBIAN_DEFAULT),
        ("shim beside GRUB", debian(vec![(BOOT, shim()), ("/EFI/BOOT/grubx64.efi", grub("/EFI/debian", "")),
            text("/EFI/debian/grub.cfg", &stub)]), DEBIAN_DEFAULT),
        ("grub-install --removable: an embedded script", debian(vec![(BOOT, grub("(,gpt2)/boot/grub", &load))]), DEBIAN_DEFAULT),
        ("a prefix on another partition", debian(vec![(BOOT, grub("(,gpt2)/boot/grub", ""))]), DEBIAN_DEFAULT),
        ("two vendors", debian(fallback(vec![("/EFI/fedora/BOOTX64.CSV", Vec::new()), ("/EFI/fedora/grubx64.efi", grub("/x", ""))])),
            "firmware: /EFI/BOOT/BOOTX64.EFI: shim that may start /EFI/debian/grubx64.efi or /EFI/fedora/grubx64.efi"),
        ("shim without GRUB", debian(vec![(BOOT, shim())]), "firmware: /EFI/BOOT/BOOTX64.EFI: shim without a grubx64.efi"),
        ("a stub that searches for something else", debian(vec![(BOOT, grub("/EFI/x", "")),
            text("/EFI/x/grub.cfg", "search.fs_uuid aaaa root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n")]),
            "firmware: /EFI/x/grub.cfg: (hd0,gpt1)/boot/grub/grub.cfg: a configuration file that is not there"
            .replace("/EFI/x/grub.cfg: (", "(").as_str()),
        ("no configuration", debian(vec![(BOOT, grub("/EFI/x", ""))]),
            "firmware: (hd0,gpt1)/EFI/x/grub.cfg: a configuration file that is not there"),
        ("a root on btrfs", with(fallback(Vec::new()), Holds::Other("btrfs")),
            "firmware: /EFI/debian/grub.cfg: line 1: a search for 8f1b9a3e-0000-4000-8000-000000000001, which may be on partition 2 \
             (btrfs)"),
        ("GRUB's platform decides the kernel", with(vec![(BOOT, grub("/g", "")), text("/g/grub.cfg",
            "menuentry x { if [ $grub_platform = efi ]; then linux /k efi; else linux /k pc; fi; }\n"), ("/k", Vec::new())],
            Holds::Files(Vec::new())), "/k | BOOT_IMAGE=/k efi | "),
        ("Windows beside it", with(vec![(BOOT, grub("/g", "")), text("/g/grub.cfg",
            "menuentry x { chainloader /EFI/Microsoft/Boot/bootmgfw.efi; }\n")], Holds::Other("NTFS")),
            "firmware: /g/grub.cfg: line 1: the command chainloader"),
    ]);
}

#[test]
fn fedora_from_firmware() {
    let stub = format!(
        "search --no-floppy --root-dev-only --fs-uuid --set=dev {UUID}\nset prefix=($dev)/grub2\nexport $prefix\nconfigfile \
         $prefix/grub.cfg\n"
    );
    let mut boot = empty(&["/vmlinuz-6.11.4", "/initramfs-6.11.4.img"]);
    boot.push(text("/grub2/grub.cfg", FEDORA));
    boot.push(grubenv("/grub2/grubenv", "saved_entry=f00d-6.11.4\n"));
    boot.push(text("/loader/entries/f00d-6.11.4.conf",
        "title Fedora\nversion 6.11.4\nlinux /vmlinuz-6.11.4\ninitrd /initramfs-6.11.4.img\noptions root=UUID=9 ro rootflags=subvol=root\n"));
    let esp = vec![
        (BOOT, shim()),
        ("/EFI/BOOT/fbx64.efi", pe(&[])),
        ("/EFI/fedora/BOOTX64.CSV", Vec::new()),
        ("/EFI/fedora/grubx64.efi", grub("/EFI/fedora", "")),
        text("/EFI/fedora/grub.cfg", &stub),
    ];
    let found = road(&disk(vec![
        Holds::Esp(esp),
        Holds::Files(boot),
        Holds::Other("btrfs"),
    ]));
    assert_eq!(
        found,
        "/vmlinuz-6.11.4 | BOOT_IMAGE=/vmlinuz-6.11.4 root=UUID=9 ro rootflags=subvol=root | /initramfs-6.11.4.img"
    );
}

#[test]
fn other_loaders_of_firmware() {
    let other = |loader: Vec<u8>, more: Vec<File>| {
        let mut esp = vec![(BOOT, loader)];
        esp.extend(more);
        // What is left over beside them is not booted.
        with(esp, Holds::Files(root()))
    };
    let systemd_boot = pe(&[
        (".text", vec![0; 8]),
        (".sdmagic", b"#### LoaderInfo: systemd-boot 252 ####".to_vec()),
    ]);
    let uki = pe(&[
        (".linux", vec![0; 8]),
        (".initrd", vec![0; 8]),
        (".cmdline", b"root=x".to_vec()),
    ]);
    let entry = text(
        "/loader/entries/arch.conf",
        "title Arch\nlinux /vmlinuz-linux\noptions root=x\n",
    );
    check(vec![
        (
            "Arch with systemd-boot",
            other(systemd_boot, vec![entry]),
            "firmware: /EFI/BOOT/BOOTX64.EFI: systemd-boot",
        ),
        (
            "a unified kernel image",
            other(uki, Vec::new()),
            "firmware: /EFI/BOOT/BOOTX64.EFI: a unified kernel image",
        ),
        (
            "FreeBSD's loader.efi",
            other(pe(&[(".text", vec![0; 8])]), Vec::new()),
            "firmware: /EFI/BOOT/BOOTX64.EFI: a loader that is not GRUB",
        ),
        (
            "a damaged loader",
            other(b"garbage".to_vec(), Vec::new()),
            "firmware: /EFI/BOOT/BOOTX64.EFI: a loader that is not GRUB",
        ),
        (
            "an empty loader is none",
            other(Vec::new(), Vec::new()),
            DEBIAN_DEFAULT,
        ),
        (
            "an ESP without a loader",
            with(vec![text("/EFI/readme.txt", ESP_UUID)], Holds::Files(root())),
            DEBIAN_DEFAULT,
        ),
        (
            "FreeBSD on UFS, without an ESP",
            road(&disk(vec![Holds::Other("UFS")])),
            "no loader",
        ),
        (
            "LVM alone",
            road(&disk(vec![Holds::Other("an LVM physical volume")])),
            "no loader",
        ),
    ]);
}
