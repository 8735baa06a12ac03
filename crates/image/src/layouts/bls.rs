//! Boot Loader Specification entries: of Fedora, Rocky and RHEL, and without GRUB.

use super::{File, Holds, check, disk, empty, grubenv, one, road, text};

pub(super) const FEDORA: &str = include_str!("fedora.cfg");
const A: &str = "title A\nversion 6.11.4\nlinux /vmlinuz-6.11.4\ninitrd /initramfs-6.11.4.img $tuned_initrd\noptions $kernelopts $tuned_params\n\
     grub_users $grub_users\ngrub_arg --unrestricted\ngrub_class fedora\n";

/// Two kernels on a boot partition.
fn fedora(config: &str, environment: &str, options: &str) -> Vec<File> {
    let entry = |version: &str| {
        A.replace("6.11.4", version)
            .replace("$kernelopts $tuned_params", options)
    };
    let mut files = empty(&[
        "/vmlinuz-6.11.4",
        "/initramfs-6.11.4.img",
        "/vmlinuz-6.9.1",
        "/initramfs-6.9.1.img",
        "/vmlinuz-0-rescue",
        "/initramfs-0-rescue.img",
    ]);
    files.push(text(
        "/loader/entries/f00d-6.9.1-1.fc41.x86_64.conf",
        &entry("6.9.1"),
    ));
    files.push(text(
        "/loader/entries/f00d-6.11.4-301.fc41.x86_64.conf",
        &entry("6.11.4"),
    ));
    files.push(text("/loader/entries/f00d-0-rescue.conf", &entry("0-rescue")));
    if !config.is_empty() {
        files.push(text("/grub2/grub.cfg", config));
    }
    files.push(grubenv("/grub2/grubenv", environment));
    files
}

fn kernel(version: &str, options: &str) -> String {
    format!("/vmlinuz-{version} | BOOT_IMAGE=/vmlinuz-{version} {options} | /initramfs-{version}.img")
}

#[test]
fn fedora_and_its_blscfg() {
    let of = |environment: &str| one(fedora(FEDORA, environment, "$kernelopts $tuned_params"));
    let options = "root=/dev/vda1 ro net.ifnames=0 console=ttyS0";
    let (new, old) = (kernel("6.11.4", options), kernel("6.9.1", options));
    let from_environment = kernel("6.11.4", "root=UUID=1 ro");
    let plain = one(fedora(FEDORA, "", "root=UUID=2 ro crashkernel=1G-4G:192M"));
    check(vec![
        ("kernelopts of grub.cfg alone, under a test", of(""), &new),
        (
            "kernelopts of grubenv",
            of("kernelopts=root=UUID=1 ro\n"),
            &from_environment,
        ),
        ("saved by id", of("saved_entry=f00d-6.9.1-1.fc41.x86_64\n"), &old),
        ("saved by index", of("saved_entry=1\n"), &old),
        ("saved by title", of("saved_entry=A\n"), &new),
        ("saved and gone", of("saved_entry=f00d-6.8.0\n"), &new),
        ("boot_success", of("boot_success=1\nboot_indeterminate=1\n"), &new),
        (
            "boot counting has not begun",
            of("saved_entry=f00d-6.9.1-1.fc41.x86_64\nboot_success=1\nboot_counter=0\n"),
            &old,
        ),
        (
            "boot counting: the rollback's number",
            of("saved_entry=f00d-6.11.4-301.fc41.x86_64\nboot_success=0\nboot_counter=-1\n"),
            &old,
        ),
        (
            "boot counting: three tries left",
            of("boot_success=0\nboot_counter=3\n"),
            "refused: save_env: the next boot is of /vmlinuz-6.9.1, not of /vmlinuz-6.11.4",
        ),
        (
            "next_entry",
            of("next_entry=1\n"),
            "refused: save_env: the next boot is of /vmlinuz-6.11.4, not of /vmlinuz-6.9.1",
        ),
        (
            "Fedora 41: options without variables",
            plain,
            &kernel("6.11.4", "root=UUID=2 ro crashkernel=1G-4G:192M"),
        ),
        (
            "Rocky 9: root on XFS",
            road(&disk(vec![
                Holds::Files(fedora(FEDORA, "", "root=UUID=3 ro rd.lvm.lv=rl/root")),
                Holds::Other("an LVM physical volume"),
            ])),
            &kernel("6.11.4", "root=UUID=3 ro rd.lvm.lv=rl/root"),
        ),
    ]);
}

#[test]
fn entries_beside_other_configurations() {
    let menu = "menuentry mine { linux /vmlinuz-6.9.1 mine; }\n";
    check(vec![
        (
            "left over beside a menu without blscfg",
            one(fedora(menu, "", "x=1")),
            "/vmlinuz-6.9.1 | BOOT_IMAGE=/vmlinuz-6.9.1 mine | ",
        ),
        (
            "grubenv alone, saved by index",
            one(fedora("", "saved_entry=1\nkernelopts=quiet ro\n", "$kernelopts")),
            &kernel("6.9.1", "quiet ro"),
        ),
        (
            "an escaped dollar",
            one(fedora(FEDORA, "", "memmap=128M\\$1G quiet")),
            &kernel("6.11.4", "memmap=128M$1G quiet"),
        ),
        (
            "variables in variables are parameters of the entry",
            one(fedora(
                &FEDORA.replace(
                    "set kernelopts=\"root=/dev/vda1 ro",
                    "set kernelopts=\"memmap=128M\\$1G ro",
                ),
                "",
                "$kernelopts",
            )),
            &kernel("6.11.4", "memmap=128MAG ro net.ifnames=0 console=ttyS0"),
        ),
        (
            "custom.cfg with another default",
            {
                let mut files = fedora(FEDORA, "", "a=b");
                files.push(text("/grub2/custom.cfg", "set default=f00d-0-rescue\n"));
                one(files)
            },
            &kernel("0-rescue", "a=b"),
        ),
        (
            "two lines of options",
            one(fedora(FEDORA, "", "a=b\noptions c=d")),
            "refused: the entry f00d-6.11.4-301.fc41.x86_64: several lines of options",
        ),
        (
            "an unlocked password does not matter",
            {
                let mut files = fedora(FEDORA, "", "a=b");
                files.push(text("/grub2/user.cfg", "GRUB2_PASSWORD=grub.pbkdf2.sha512\n"));
                one(files)
            },
            "refused: the entry f00d-6.11.4-301.fc41.x86_64: a menu entry that wants a password",
        ),
    ]);
}

#[test]
fn the_specification_alone() {
    let entries = |loader: &str, entries: &[(&'static str, &str)]| {
        let mut files = empty(&["/linux-a", "/linux-b", "/initrd"]);
        files.push(text("/loader/loader.conf", loader));
        files.extend(entries.iter().map(|(path, content)| text(path, content)));
        one(files)
    };
    let (a, b) = ("/loader/entries/a.conf", "/loader/entries/b.conf");
    let first = "linux /linux-a\ninitrd /initrd\noptions root=x\noptions quiet\n";
    check(vec![
        (
            "options are joined",
            entries("", &[(a, first)]),
            "/linux-a | root=x quiet | /initrd",
        ),
        (
            "by version",
            entries(
                "",
                &[
                    (a, "linux /linux-a\nsort-key s\nversion 5.9\n"),
                    (b, "linux /linux-b\nsort-key s\nversion 5.10\n"),
                ],
            ),
            "/linux-b |  | ",
        ),
        (
            "a release candidate is older",
            entries(
                "",
                &[
                    (a, "linux /linux-a\nsort-key s\nversion 5.10~rc1\n"),
                    (b, "linux /linux-b\nsort-key s\nversion 5.10\n"),
                ],
            ),
            "/linux-b |  | ",
        ),
        (
            "by sort key",
            entries(
                "",
                &[
                    (a, "linux /linux-a\nsort-key a\nversion 1\n"),
                    (b, "linux /linux-b\nsort-key b\nversion 2\n"),
                ],
            ),
            "/linux-a |  | ",
        ),
        (
            "loader.conf",
            entries(
                "timeout 3\ndefault a*\n",
                &[(a, "linux /linux-a\n"), (b, "linux /linux-b\n")],
            ),
            "/linux-a |  | ",
        ),
        (
            "loader.conf names the saved one",
            entries("default @saved\n", &[(a, "linux /linux-a\n")]),
            "refused: /loader/entries: the default @saved of loader.conf",
        ),
        (
            "no tries left",
            entries(
                "",
                &[
                    ("/loader/entries/z+0-3.conf", "linux /linux-a\n"),
                    (a, "linux /linux-b\n"),
                ],
            ),
            "/linux-b |  | ",
        ),
        (
            "an EFI program",
            entries("", &[(a, "efi /EFI/tool.efi\n")]),
            "refused: /loader/entries/a.conf: an entry that is no Linux kernel",
        ),
        (
            "a variable that nothing sets",
            entries("", &[(a, "linux /linux-a\noptions $kernelopts\n")]),
            "refused: /loader/entries/a.conf: a variable, and no grub.cfg nor grubenv that sets it",
        ),
    ]);
}
