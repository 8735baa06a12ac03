//! GRUB itself, in user space (Debian's package `grub-emu`), says what scripts do; the reader here has to agree.

use std::process::{Command, Stdio};

use super::{Holds, disk, empty, road, text};
use crate::entry::grub::quoted;

/// Scripts that leave something in `r`.
const SCRIPTS: &[&str] = &[
    "set r=a",
    "r=a",
    "set r='a b'",
    "set r=\"a  b\"",
    "set x=\"a  b\"\nset r=$x",
    "set x=\"a  b\"\nset r=\"$x\"",
    "set x=\" a\"\nset r=\"[${x}]\"",
    "set r=\"memmap=128M\\$1G\"",
    "set x=\"128M\\$1G\"\nset r=\"$x\"",
    "set r='$x'",
    "set r=a\\ b",
    "set r=a\\\nb",
    "set r=\"a\\\nb\"",
    "set r=\"\\a\\\\b\\\"\"",
    "set r=a#b # c",
    "set r=C:\\\\x\\yz",
    "set r=a'b'\"c\"d",
    "function f { set r=\"$# $1 $2\"; }\nf 'x y' z",
    "function f { set r=\"$*\"; }\nf 'x y' z",
    "function f { for i in \"$@\"; do set r=\"$r<$i>\"; done; }\nf 'x y' z",
    "function f { for i in $@; do set r=\"$r<$i>\"; done; }\nf 'x y' z",
    "function f { shift; set r=$1; }\nf a b",
    "function f { setparams p q; set r=$2; }\nf a b",
    "function f { set r=a; return; set r=b; }\nf",
    "function f { return 1; }\nif f; then set r=yes; else set r=no; fi",
    "function f { false; }\nf\nset r=\"$?\"",
    "if [ ]; then set r=1; else set r=0; fi",
    "if [ \"\" ]; then set r=1; else set r=0; fi",
    "if [ a = b -o a = a -a b = c ]; then set r=1; else set r=0; fi",
    "if [ ! a = b -a ! -z x ]; then set r=1; else set r=0; fi",
    "if test ( a = b -o a = a ) -a ( b = b ); then set r=1; else set r=0; fi",
    "if [ 10 -gt 9 -a 10 -ge 10 -a -1 -lt 0 ]; then set r=1; else set r=0; fi",
    "if [ abc \\< abd ]; then set r=1; else set r=0; fi",
    "if [ -n \"$nothing\" ]; then set r=1; else set r=0; fi",
    "if [ -n $nothing ]; then set r=1; else set r=0; fi",
    "if [ x$nothing = x ]; then set r=1; else set r=0; fi",
    "if ! true; then set r=1; else set r=0; fi",
    "if false; then set r=1; elif true; then set r=2; else set r=3; fi",
    "if true; then if false; then set r=1; else set r=2; fi; else set r=3; fi",
    "if false; then set r=1; fi\nset r=\"$?\"",
    "for i in a b c; do if [ $i = b ]; then continue; fi; set r=\"$r$i\"; done",
    "for i in a b; do for j in 1 2; do if [ $j = 2 ]; then break 2; fi; set r=\"$r$i$j\"; done; done",
    "set x=\"a b\"\nfor i in $x \"$x\"; do set r=\"$r<$i>\"; done",
    "set n=\nwhile [ \"$n\" != xxx ]; do set n=x$n; done\nset r=$n",
    "set n=\nuntil [ \"$n\" = xx ]; do set n=x$n; done\nset r=$n",
    "set c=set\n$c r=a",
    "set c='set r=a'\n$c",
    "set r=a\nunset r",
    "set r=a=b=c",
    "true; set r=\"$?\"",
    "set r=$feature_timeout_style",
];

#[test]
fn grub_itself_runs_scripts_as_they_are_run_here() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut config = String::new();
    for (i, script) in SCRIPTS.iter().enumerate() {
        // What one leaves is no business of the next.
        config.push_str(&format!(
            "unset r\nunset x\nunset n\nunset i\nunset j\n{script}\necho \"@{i}<$r>@\"\n"
        ));
    }
    config.push_str("exit\n");
    std::fs::write(dir.path().join("grub.cfg"), config).unwrap();
    // It wants a terminal.
    let command = format!("grub-emu -d {}", dir.path().display());
    let run = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output();
    let said = match run {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).replace('\r', ""),
        other => {
            eprintln!("SKIPPED: grub_itself_runs_scripts_as_they_are_run_here: install grub-emu ({other:?})");
            return;
        }
    };
    let mut wrong = Vec::new();
    for (i, script) in SCRIPTS.iter().enumerate() {
        let begin = format!("@{i}<");
        let behind = said
            .split_once(&begin)
            .unwrap_or_else(|| panic!("{i} is not in {said}"))
            .1;
        let theirs = behind.split_once(">@").unwrap().0;
        let mut files = empty(&["/k"]);
        let config = format!("{script}\nmenuentry m {{\n linux /k \"<$r>\"\n}}\nset default=0\n");
        files.push(text("/grub/grub.cfg", &config));
        let ours = road(&disk(vec![Holds::Files(files)]));
        let expected = format!("/k | BOOT_IMAGE=/k {} | ", quoted(&format!("<{theirs}>")));
        if ours != expected {
            wrong.push(format!("{script}\n  GRUB {expected}\n  here {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
