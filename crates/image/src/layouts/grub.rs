//! `grub.cfg` without an EFI system partition.

use super::{File, Holds, check, disk, empty, grubenv, one, road, text};

pub(super) const DEBIAN: &str = include_str!("debian12.cfg");
pub(super) const UBUNTU: &str = include_str!("ubuntu.cfg");
const SUSE: &str = include_str!("suse.cfg");

pub(super) fn debian_files() -> Vec<File> {
    empty(&[
        "/boot/vmlinuz-6.1.0-28-cloud-amd64",
        "/boot/initrd.img-6.1.0-28-cloud-amd64",
        "/boot/vmlinuz-6.1.0-25-cloud-amd64",
        "/boot/initrd.img-6.1.0-25-cloud-amd64",
    ])
}

fn debian(changes: &[(&str, &str)], environment: &str, more: Vec<File>) -> String {
    let mut config = DEBIAN.to_owned();
    for (from, to) in changes {
        assert!(config.contains(from), "{from}");
        config = config.replace(from, to);
    }
    let mut files = debian_files();
    files.push(text("/boot/grub/grub.cfg", &config));
    files.push(grubenv("/boot/grub/grubenv", environment));
    files.extend(more);
    one(files)
}

pub(super) const DEBIAN_DEFAULT: &str = "/boot/vmlinuz-6.1.0-28-cloud-amd64 | BOOT_IMAGE=/boot/vmlinuz-6.1.0-28-cloud-amd64 \
     root=PARTUUID=6fd58cc4-2ca9-4a4f-8a71-1d1d0a8d1d39 ro console=tty0 console=ttyS0,115200 \
     earlyprintk=ttyS0,115200 consoleblank=0 | /boot/initrd.img-6.1.0-28-cloud-amd64";
const DEBIAN_OLD: &str = "/boot/vmlinuz-6.1.0-25-cloud-amd64 | BOOT_IMAGE=/boot/vmlinuz-6.1.0-25-cloud-amd64 \
     root=PARTUUID=6fd58cc4-2ca9-4a4f-8a71-1d1d0a8d1d39 ro console=ttyS0 | /boot/initrd.img-6.1.0-25-cloud-amd64";
const DEBIAN_ADVANCED: &str = "/boot/vmlinuz-6.1.0-28-cloud-amd64 | BOOT_IMAGE=/boot/vmlinuz-6.1.0-28-cloud-amd64 \
     root=PARTUUID=6fd58cc4-2ca9-4a4f-8a71-1d1d0a8d1d39 ro console=ttyS0 | /boot/initrd.img-6.1.0-28-cloud-amd64";

#[test]
fn debian_as_grub_mkconfig_writes_it() {
    let saved = [("set default=\"0\"", "set default=\"${saved_entry}\"")];
    let advanced = "gnulinux-advanced-8f1b9a3e-0000-4000-8000-000000000001";
    let old = "gnulinux-6.1.0-25-cloud-amd64-advanced-8f1b9a3e-0000-4000-8000-000000000001";
    let of = |entry: &str| debian(&saved, &format!("saved_entry={entry}\n"), Vec::new());
    check(vec![
        ("Debian 12", debian(&[], "", Vec::new()), DEBIAN_DEFAULT),
        ("saved: by index", of("0"), DEBIAN_DEFAULT),
        ("saved: none", debian(&saved, "", Vec::new()), DEBIAN_DEFAULT),
        ("saved: by ids", of(&format!("{advanced}>{old}")), DEBIAN_OLD),
        ("saved: by indices", of("1>1"), DEBIAN_OLD),
        (
            "saved: by titles",
            of("Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-25-cloud-amd64"),
            DEBIAN_OLD,
        ),
        (
            "saved: a submenu stands for its first entry",
            of("1"),
            DEBIAN_ADVANCED,
        ),
        (
            "saved: gone from the submenu",
            of(&format!("{advanced}>gone")),
            DEBIAN_ADVANCED,
        ),
        ("saved: gone", of("gone"), DEBIAN_DEFAULT),
        ("saved: beyond the end", of("7"), DEBIAN_DEFAULT),
        (
            "saved: an id of the submenu alone is no id of the menu",
            of(old),
            DEBIAN_DEFAULT,
        ),
        (
            "saved: digits and more",
            of("1x"),
            "refused: /boot/grub/grub.cfg: the default \"1x\", which begins with digits",
        ),
        (
            "grub-reboot",
            debian(&[], "next_entry=1>1\n", Vec::new()),
            "refused: save_env: the next boot is of /boot/vmlinuz-6.1.0-28-cloud-amd64, not of \
             /boot/vmlinuz-6.1.0-25-cloud-amd64",
        ),
        (
            "savedefault in the entry",
            debian(
                &[
                    saved[0],
                    (
                        "\tload_video\n\tinsmod gzio\n\tif [ x$grub_platform",
                        "\tsavedefault\n\tinsmod gzio\n\tif [ x$grub_platform",
                    ),
                ],
                "",
                Vec::new(),
            ),
            DEBIAN_DEFAULT,
        ),
        (
            "custom.cfg beside it changes the default",
            debian(
                &[],
                "",
                vec![text(
                    "/boot/grub/custom.cfg",
                    "menuentry mine {\n linux /boot/vmlinuz-6.1.0-25-cloud-amd64 mine\n}\nset default=mine\n",
                )],
            ),
            "/boot/vmlinuz-6.1.0-25-cloud-amd64 | BOOT_IMAGE=/boot/vmlinuz-6.1.0-25-cloud-amd64 mine | ",
        ),
        (
            "Debian 11: no test for fwsetup",
            debian(
                &[(
                    "\tfwsetup --is-supported\n\tif [ \"$?\" = 0 ]; then\n",
                    "\tif true; then\n",
                )],
                "",
                Vec::new(),
            ),
            DEBIAN_DEFAULT,
        ),
        (
            "Debian 13: two initrds",
            debian(
                &[(
                    "initrd\t/boot/initrd.img-6.1.0-28-cloud-amd64\n}",
                    "initrd\t/boot/initrd.img-6.1.0-25-cloud-amd64 /boot/initrd.img-6.1.0-28-cloud-amd64\n}",
                )],
                "",
                Vec::new(),
            ),
            &DEBIAN_DEFAULT.replace(
                "| /boot/initrd",
                "| /boot/initrd.img-6.1.0-25-cloud-amd64 /boot/initrd",
            ),
        ),
        (
            "a password",
            debian(
                &[(
                    "### BEGIN /etc/grub.d/40_custom ###",
                    "set superusers=\"root\"\npassword_pbkdf2 root grub.pbkdf2\n",
                )],
                "",
                Vec::new(),
            ),
            "refused: /boot/grub/grub.cfg: a menu entry that wants a password",
        ),
        (
            "Xen before Linux",
            debian(
                &[(
                    "### BEGIN /etc/grub.d/10_linux ###",
                    "menuentry 'Xen' {\n multiboot2 /boot/xen.gz\n}\n",
                )],
                "",
                Vec::new(),
            ),
            "refused: /boot/grub/grub.cfg: line 98: the command multiboot2",
        ),
        (
            "the kernel was removed",
            debian(&[("vmlinuz-6.1.0-28", "vmlinuz-6.1.0-29")], "", Vec::new()),
            "refused: /boot/grub/grub.cfg: line 111: /boot/vmlinuz-6.1.0-29-cloud-amd64, which is not there",
        ),
        (
            "an unknown command that decides nothing is still unknown",
            debian(
                &[("set menu_color_normal=cyan/blue", "acpi /boot/dsdt.aml")],
                "",
                Vec::new(),
            ),
            "refused: /boot/grub/grub.cfg: line 93: the command acpi",
        ),
    ]);
}

fn ubuntu(changes: &[(&str, &str)], environment: &str, more: &[&'static str]) -> String {
    let mut config = UBUNTU.to_owned();
    for (from, to) in changes {
        assert!(config.contains(from), "{from}");
        config = config.replace(from, to);
    }
    let mut files = empty(&[
        "/boot/vmlinuz-6.8.0-49-generic",
        "/boot/microcode.cpio",
        "/boot/initrd.img-6.8.0-49-generic",
    ]);
    files.extend(empty(more));
    files.push(text("/boot/grub/grub.cfg", &config));
    files.push(grubenv("/boot/grub/grubenv", environment));
    one(files)
}

#[test]
fn ubuntu_and_its_functions() {
    let cloud = [("quiet splash $vt_handoff", "console=tty1 console=ttyS0")];
    let initrds = "/boot/microcode.cpio /boot/initrd.img-6.8.0-49-generic";
    let kernel = "/boot/vmlinuz-6.8.0-49-generic";
    let expected = format!(
        "{kernel} | BOOT_IMAGE={kernel} root=LABEL=cloudimg-rootfs ro console=tty1 console=ttyS0 | {initrds}"
    );
    let after =
        format!("{kernel} | BOOT_IMAGE={kernel} root=LABEL=cloudimg-rootfs ro quiet splash | {initrds}");
    check(vec![
        ("Ubuntu cloud image", ubuntu(&cloud, "", &[]), &expected),
        (
            "Ubuntu cloud image, after a failure",
            ubuntu(&cloud, "recordfail=1\n", &[]),
            &expected,
        ),
        (
            "Ubuntu desktop, after a failure",
            ubuntu(&[], "recordfail=1\n", &[]),
            &after,
        ),
        (
            "Ubuntu desktop: what recordfail saves changes vt.handoff",
            ubuntu(&[], "", &[]),
            "refused: save_env: the next boot of /boot/vmlinuz-6.8.0-49-generic has another command line or other initrds",
        ),
        (
            "Ubuntu desktop: hwmatch asks the hardware",
            ubuntu(&[], "", &["/boot/grub/gfxblacklist.txt"]),
            "refused: /boot/grub/grub.cfg: line 119: gfxmode with the test in line 100 of /boot/grub/grub.cfg",
        ),
    ]);
}

#[test]
fn suse_with_and_without_snapshots() {
    let kernel = "/boot/vmlinuz-6.4.0-150600.23.25-default";
    let suse = |more: Vec<File>| {
        let mut files = empty(&[kernel, "/boot/initrd-6.4.0-150600.23.25-default"]);
        files.push(text("/boot/grub2/grub.cfg", SUSE));
        files.push(grubenv("/boot/grub2/grubenv", ""));
        files.extend(more);
        files
    };
    let expected = format!(
        "{kernel} | BOOT_IMAGE={kernel} root=UUID=8f1b9a3e-0000-4000-8000-000000000001 console=ttyS0 mitigations=auto | \
         /boot/initrd-6.4.0-150600.23.25-default"
    );
    let snapshots = text(
        "/.snapshots/grub-snapshot.cfg",
        "submenu \"Start bootloader from a read-only snapshot\" {\n  menuentry \"1\" { configfile /1/grub.cfg; }\n}\n",
    );
    check(vec![
        ("openSUSE on ext4", one(suse(Vec::new())), &expected),
        (
            "openSUSE with a menu of snapshots",
            one(suse(vec![snapshots])),
            &expected,
        ),
        (
            "openSUSE on btrfs",
            road(&disk(vec![Holds::Other("btrfs")])),
            "no loader",
        ),
        (
            "openSUSE whose environment is on btrfs",
            road(&disk(vec![
                Holds::Files(suse(vec![grubenv("/boot/grub2/grubenv", "env_block=64+1\n")])[..2].to_vec()),
                Holds::Other("btrfs"),
            ])),
            "no loader",
        ),
    ]);
}

/// A configuration beside the kernels `/a` and `/b` and the initrd `/i`.
fn config(content: &str) -> String {
    with(content, Vec::new())
}

fn with(content: &str, more: Vec<File>) -> String {
    let mut files = empty(&["/a", "/b", "/i"]);
    files.push(text("/boot/grub/grub.cfg", content));
    files.extend(more);
    one(files)
}

const TWO: &str = "menuentry one { linux /a 1; }\nmenuentry two --id second { linux /b 2; }\n";

#[test]
fn the_language() {
    let line = |words: &str| {
        config(&format!(
            "set x=\"a  b\"\nset empty=\nmenuentry m {{\n linux /a {words}\n}}\n"
        ))
    };
    let expect = |words: &str| format!("/a | BOOT_IMAGE=/a{words} | ");
    let cases = [
        ("q", " q"),
        ("'a b'", " \"a b\""),
        ("\"a b\"c", " \"a bc\""),
        ("memmap=128M\\$1G", " memmap=128M$1G"),
        ("\"memmap=128M\\$1G quiet\"", " \"memmap=128M$1G quiet\""),
        ("'memmap=128M$1G'", " memmap=128M$1G"),
        ("$x", " a b"),
        ("\"$x\"", " \"a  b\""),
        ("y${x}z", " ya bz"),
        ("$empty q", " q"),
        ("\"$empty\" q", "  q"),
        ("$1", " m"),
        ("a\\\n b", " a b"),
        ("\"a\\\nb\"", " ab"),
        ("a;", " a"),
        ("a # a comment", " a"),
        ("a#b", " a#b"),
        ("\"say \\\"x\\\"\"", " \"say \\\"x\\\"\""),
        ("x=\\'y\\'", " x=\\'y\\'"),
        ("C:\\\\dir", " C:\\\\dir"),
        ("a\\x41b", " ax41b"),
    ];
    for (words, expected) in cases {
        assert_eq!(line(words), expect(expected), "{words}");
    }
}

/// `$name` in a value is not looked at again.
#[test]
fn a_variable_is_expanded_once() {
    let script =
        "set options=\"root=/dev/vda1 memmap=128M\\$1G quiet\"\nmenuentry x {\n linux /a $options\n}\n";
    assert_eq!(
        config(script),
        "/a | BOOT_IMAGE=/a root=/dev/vda1 memmap=128M$1G quiet | "
    );
}

#[test]
fn statements() {
    let one = "/a | BOOT_IMAGE=/a 1 | ";
    let two = "/b | BOOT_IMAGE=/b 2 | ";
    let set = |script: &str| config(&format!("{script}\n{TWO}"));
    check(vec![
        (
            "one line",
            config("menuentry \"one\" { linux /a 1; initrd /i; }\n"),
            "/a | BOOT_IMAGE=/a 1 | /i",
        ),
        ("by number", set("set default=1"), two),
        ("an assignment without set", set("default=1"), two),
        ("by title", set("set default=two"), two),
        ("by id", set("set default=second"), two),
        (
            "of nested ifs",
            set("if true; then if false; then set default=0; else set default=1; fi; fi"),
            two,
        ),
        (
            "elif",
            set("if false; then set default=0\nelif true; then\n set default=1\nelse set default=0; fi"),
            two,
        ),
        (
            "a test",
            set("if [ -z \"$no\" -a ! \"$no\" = 1 ]; then set default=1; fi"),
            two,
        ),
        ("-o", set("if [ 1 = 2 -o 3 = 3 ]; then set default=1; fi"), two),
        (
            "parentheses",
            set("if test ( 1 = 2 ) -o ( 3 -lt 4 ); then set default=1; fi"),
            two,
        ),
        ("!", set("if ! false; then set default=1; fi"), two),
        ("$?", set("false\nif [ $? = 1 ]; then set default=1; fi"), two),
        ("for", set("for i in 0 1; do set default=$i; done"), two),
        (
            "while and break",
            set("while true; do set default=1; break; done"),
            two,
        ),
        (
            "until",
            set("set n=\nuntil [ \"$n\" = xxx ]; do set n=x$n; done\nset default=1"),
            two,
        ),
        (
            "a function",
            set("function f { set default=$2; return; set default=0; }\nf 0 1"),
            two,
        ),
        (
            "parameters of a function",
            set("function f { shift; if [ $# = 1 ]; then set default=$1; fi; }\nf 0 1"),
            two,
        ),
        (
            "-f and -d",
            set("if [ -f /a -a -d /boot -a ! -e /c ]; then set default=1; fi"),
            two,
        ),
        ("-s", set("if [ -s /a ]; then set default=1; fi"), one),
        (
            "source",
            with(&format!("source /x\n{TWO}"), vec![text("/x", "set default=1\n")]),
            two,
        ),
        ("source without a file", set("source /gone"), one),
        (
            "export and configfile",
            with(
                "set a=1\nset b=1\nexport b\nconfigfile /x\n",
                vec![text(
                    "/x",
                    &format!("if [ \"$a\" = 1 ]; then set default=0; else set default=$b; fi\n{TWO}"),
                )],
            ),
            two,
        ),
        (
            "search by label",
            config("search --label boot --set=root\nmenuentry x { linux ($root)/b $root; }\n"),
            "/b | BOOT_IMAGE=(hd0,gpt1)/b hd0,gpt1 | ",
        ),
        (
            "search by file",
            config("search -f /b --set=dev\nmenuentry x { linux ($dev)/b; }\n"),
            "/b | BOOT_IMAGE=(hd0,gpt1)/b | ",
        ),
        (
            "search for what is not there",
            config("search --fs-uuid --set=root 1-1\nmenuentry x { linux /b; }\n"),
            "/b | BOOT_IMAGE=/b | ",
        ),
        (
            "a submenu sees what is exported",
            config(
                "set a=1\nset b=1\nexport b\nset default=0\nsubmenu s { menuentry x { linux /a a$a b$b; }\n}\n",
            ),
            "/a | BOOT_IMAGE=/a a b1 | ",
        ),
        (
            "the later kernel counts",
            config("menuentry x { linux /a; initrd /i; linux /b 2; }\n"),
            two,
        ),
        (
            "boot in the middle",
            config("menuentry x { linux /a 1; boot; linux /b 2; }\n"),
            one,
        ),
        (
            "a menu entry's id with >",
            config(&format!(
                "set default='x>>y'\n{TWO}menuentry t --id 'x>y' {{ linux /b 2; }}\n"
            )),
            two,
        ),
        (
            "an entry in an unknown test, behind the default",
            set("if loadfont u; then menuentry x { linux /i; }; fi").replace("refused: ", ""),
            "/boot/grub/grub.cfg: the default entry \"\" depends on the test in line 1 of /boot/grub/grub.cfg",
        ),
        (
            "an entry in an unknown test, behind the default",
            config(&format!(
                "{TWO}if loadfont u; then menuentry x {{ linux /i; }}; fi\n"
            )),
            one,
        ),
        (
            "a variable of an unknown test that decides nothing",
            set("if loadfont u; then set gfxmode=auto; fi\nset default=1"),
            two,
        ),
    ]);
}

#[test]
fn what_is_not_certain_is_refused() {
    let set = |script: &str| config(&format!("{script}\n{TWO}"));
    let refused = |what: &str| format!("refused: /boot/grub/grub.cfg: {what}");
    check(vec![
        (
            "the default of an unknown test",
            set("if loadfont u; then set default=1; fi"),
            &refused("the test in line 1 of /boot/grub/grub.cfg"),
        ),
        (
            "a kernel of an unknown test",
            config("menuentry x {\n if cpuid -p; then linux /a; else linux /b; fi\n}\n"),
            &refused("the test in line 2 of /boot/grub/grub.cfg"),
        ),
        (
            "an operator",
            set("true && set default=1"),
            &refused("line 1: the operator &"),
        ),
        (
            "a missing fi",
            set("if true; then set default=1;"),
            &refused("line 3: the file ends within a command"),
        ),
        (
            "a brace",
            set("menuentry x {"),
            &refused("line 3: the file ends within a command"),
        ),
        (
            "an empty block",
            set("menuentry x { }"),
            &refused("line 1: a syntax error"),
        ),
        (
            "a quote",
            set("set x='"),
            &refused("line 4: a quote without its end"),
        ),
        (
            "chainloader",
            config("menuentry x { chainloader +1; }\n"),
            &refused("line 1: the command chainloader"),
        ),
        (
            "another disk",
            config("menuentry x { linux (hd1,gpt1)/a; }\n"),
            &refused("line 1: the device (hd1,gpt1)"),
        ),
        (
            "LVM",
            config("set root='lvm/vg-root'\nmenuentry x { linux /a; }\n"),
            &refused("line 2: the device (lvm/vg-root)"),
        ),
        (
            "an endless loop",
            set("while true; do true; done"),
            &refused("more than 100000 commands"),
        ),
        (
            "recursion",
            set("function f { f; }\nf"),
            &refused("more than 24 calls within each other"),
        ),
        (
            "a network variable",
            config("menuentry x { linux /a ip=$net_default_ip; }\n"),
            &refused(
                "the kernel's command line with the variable net_default_ip (line 1 of /boot/grub/grub.cfg)",
            ),
        ),
        (
            "newc",
            config("menuentry x { linux /a; initrd newc:x:/i; }\n"),
            &refused("line 1: an initrd that GRUB makes itself (newc:)"),
        ),
        (
            "no entries",
            config("set default=0\n"),
            &refused("a menu without entries"),
        ),
        (
            "an entry without a kernel",
            config("menuentry x { echo; }\n"),
            &refused("the menu entry \"x\" without a kernel"),
        ),
        (
            "a counter",
            {
                let script = "load_env\nif [ \"$n\" = 3 ]; then set default=1; fi\nset n=x$n\nif [ $n = xxx ]; then set n=3; fi\n\
                 if [ $n = x3 ]; then set n=3; fi\nsave_env n\n";
                with(&format!("{script}{TWO}"), vec![grubenv("/boot/grub/grubenv", "")])
            },
            "refused: save_env: the next boot is of /b, not of /a",
        ),
        (
            "grub.cfg and extlinux.conf",
            with(
                TWO,
                vec![text("/boot/extlinux/extlinux.conf", "label l\n kernel /a\n")],
            ),
            "refused: two configurations, /boot/grub of partition 1 and /boot/extlinux/extlinux.conf of partition 1",
        ),
        (
            "a root on XFS",
            road(&disk(vec![
                Holds::Files(
                    [
                        empty(&["/a", "/b"]),
                        vec![text(
                            "/grub/grub.cfg",
                            &format!("search --fs-uuid --set=root aa-bb\n{TWO}"),
                        )],
                    ]
                    .concat(),
                ),
                Holds::Other("XFS"),
            ])),
            "refused: /grub/grub.cfg: line 1: a search for aa-bb, which may be on partition 2 (XFS)",
        ),
    ]);
}
