use proptest::prelude::*;

use super::*;

fn grub(text: &str, environment: &str) -> Option<BootEntry> {
    let mut variables = Variables::from_grubenv(environment);
    variables.set("menuentry_id_option", "--id");
    grub::parse(text, variables)
}

const DEBIAN_GRUB: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
else
   set default="0"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
  fi
}
function gfxmode {
	set gfxpayload="${1}"
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root 1
	echo	'Loading Linux 6.1.0-10-amd64 ...'
	linux	/boot/vmlinuz-6.1.0-10-amd64 root=UUID=1 ro  console=ttyS0 $extra
	initrd	/boot/initrd.img-6.1.0-10-amd64
}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-1' {
	menuentry 'Linux 6.1.0-10' --class debian $menuentry_id_option 'adv-10' {
		linux	/boot/vmlinuz-6.1.0-10-amd64 root=UUID=1 ro single
	}
	menuentry "Linux 6.1.0-9" --class debian $menuentry_id_option 'adv-9' {
		linux	(hd0,gpt1)/boot/vmlinuz-6.1.0-9-amd64 root=UUID=1 "a b"
		initrd	(hd0,gpt1)/a /b
	}
}
"#;

#[test]
fn grub_boots_the_first_entry_of_debian() {
    let entry = grub(DEBIAN_GRUB, "").unwrap();
    assert_eq!(
        entry,
        BootEntry {
            kernel: "/boot/vmlinuz-6.1.0-10-amd64".to_owned(),
            initrds: vec!["/boot/initrd.img-6.1.0-10-amd64".to_owned()],
            cmdline: "root=UUID=1 ro console=ttyS0".to_owned(),
        }
    );
}

#[test]
fn grub_finds_the_saved_entry_by_every_name() {
    let text = DEBIAN_GRUB.replace(r#"set default="0""#, r#"set default="${saved_entry}""#);
    let ids = [
        "gnulinux-advanced-1>adv-9",
        "1>1",
        "adv-9",
        "Advanced options>Linux 6.1.0-9",
        "Linux 6.1.0-9",
    ];
    for id in ids {
        let entry = grub(
            &text,
            &format!("# GRUB Environment Block\nsaved_entry={id}\n####"),
        )
        .unwrap();
        assert_eq!(entry.kernel, "/boot/vmlinuz-6.1.0-9-amd64", "{id}");
        assert_eq!(entry.initrds, ["/a", "/b"]);
        assert_eq!(entry.cmdline, "root=UUID=1 \"a b\"");
    }
    // A submenu stands for its first entry; what is unknown, for the first of all.
    assert_eq!(
        grub(&text, "saved_entry=1").unwrap().cmdline,
        "root=UUID=1 ro single"
    );
    assert_eq!(
        grub(&text, "saved_entry=gone").unwrap().cmdline,
        "root=UUID=1 ro console=ttyS0"
    );
}

#[test]
fn grub_variables_cannot_grow_without_bound() {
    let mut text = String::from("set a=0123456789\n");
    for _ in 0..200 {
        text.push_str("set a=\"$a$a\"\n");
    }
    text.push_str("menuentry x {\n linux /k $a\n}\n");
    assert!(grub(&text, "").unwrap().cmdline.len() <= 1 << 20);
}

#[test]
fn extlinux_boots_its_default() {
    let text = "
        # comment
        DEFAULT second
        APPEND quiet
        LABEL first
            KERNEL vmlinuz
        LABEL second
            MENU LABEL The second
            LINUX ../vmlinuz-2
            INITRD /initrd-a,initrd-b
            APPEND root=/dev/vda1   ro
        ";
    let entry = extlinux::parse(text, "/boot/extlinux").unwrap();
    assert_eq!(entry.kernel, "/boot/extlinux/../vmlinuz-2");
    assert_eq!(entry.initrds, ["/initrd-a", "/boot/extlinux/initrd-b"]);
    assert_eq!(entry.cmdline, "root=/dev/vda1   ro");

    let entry = extlinux::parse(&text.replace("DEFAULT second", "default gone"), "/x").unwrap();
    assert_eq!(
        (entry.kernel.as_str(), entry.cmdline.as_str()),
        ("/x/vmlinuz", "quiet")
    );
    let entry = extlinux::parse("label a\nkernel /k\nappend initrd=/i root=x", "").unwrap();
    assert_eq!(entry.initrds, ["/i"]);
    assert_eq!(extlinux::parse("default x\n", ""), None);
}

fn bls_entries(environment: &mut Variables) -> Vec<bls::BlsEntry> {
    let file = |version: &str| {
        format!(
            "title T\nversion {version}\nlinux /vmlinuz-{version}\ninitrd /i-{version} $tuned_initrd\noptions root=x\noptions $kernelopts\n"
        )
    };
    ["0-rescue", "5.9.1", "5.10.0~rc1", "5.10.0"]
        .map(|version| bls::parse(&format!("m-{version}+3-0.conf"), &file(version), environment).unwrap())
        .into()
}

#[test]
fn bls_boots_the_newest_or_the_default() {
    let mut environment = Variables::from_grubenv("kernelopts=ro quiet\n");
    let newest = bls::choose(bls_entries(&mut environment), None).unwrap();
    assert_eq!(
        (newest.kernel.as_str(), newest.cmdline.as_str()),
        ("/vmlinuz-5.10.0", "root=x ro quiet")
    );
    assert_eq!(newest.initrds, ["/i-5.10.0"]);
    for (default, version) in [
        ("m-5.9*", "5.9.1"),
        ("m-0-rescue.conf", "0-rescue"),
        ("gone", "5.10.0"),
    ] {
        let chosen = bls::choose(bls_entries(&mut environment), Some(default)).unwrap();
        assert_eq!(chosen.kernel, format!("/vmlinuz-{version}"), "{default}");
    }
    assert_eq!(
        bls::loader_default("timeout 3\ndefault  m-5.9*\n"),
        Some("m-5.9*")
    );
    assert!(bls::parse("a.conf", "title only\n", &mut environment).is_none());
    assert_eq!(bls::choose(Vec::new(), Some("x")), None);
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in "(menuentry|submenu|linux|initrd|set|default|label|kernel|append|options|[ \n{}'\"$;#>=\\\\*a0é])*") {
        let _ = grub(&text, &text);
        let _ = extlinux::parse(&text, "/x");
        let mut variables = Variables::from_grubenv(&text);
        let entry = bls::parse("x+1.conf", &text, &mut variables);
        let _ = bls::choose(entry.into_iter().collect(), Some(&text));
        let _ = version::compare(&text, "5.10.0-é1");
    }
}
