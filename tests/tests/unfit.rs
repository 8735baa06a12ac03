//! Machines that are not fit to be a host, played by mount namespaces and by processes without privileges: each gets one
//! sentence that says what to do.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use hearth_tests::{binary, can_run};
use tempfile::TempDir;

const HIDE_KVM: &str =
    "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9";
/// Devices on the mount cannot be opened, whoever asks.
const FORBID_KVM: &str = "mkdir \"$T/nodev\" && mount -t tmpfs -o nodev none \"$T/nodev\" && \
                          mknod \"$T/nodev/kvm\" c 10 232 && mount --bind \"$T/nodev/kvm\" /dev/kvm";
const HIDE_NFT: &str = "mkdir \"$T/sbin\" && cp -a /usr/sbin/. \"$T/sbin\" && rm \"$T/sbin/nft\" && \
                        mount --bind \"$T/sbin\" /usr/sbin";
const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// A host on which programs are run: as this one, but for what a test hides.
struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // Nobody may read the directory that they were built in.
        for program in ["hearth-agent", "hearth-vmm"] {
            std::fs::copy(binary(program).unwrap(), dir.path().join(program)).unwrap();
        }
        Self { dir }
    }

    /// What a script that fails says, in mount and network namespaces of its own. `$T` is the host's directory, `$AGENT` the
    /// agent with a data directory, `$UP` is scripts/up.
    fn fails(&self, script: &str) -> String {
        let (succeeded, said) = self.run(script);
        assert!(!succeeded, "{script} goes on: {said}");
        said
    }

    fn run(&self, script: &str) -> (bool, String) {
        let dir = self.dir.path();
        let up = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/up");
        let output = Command::new("unshare")
            .args(["--mount", "--net", "bash", "-euc", script])
            .env("T", dir)
            .env(
                "AGENT",
                format!("{0}/hearth-agent --data-dir {0}/data", dir.display()),
            )
            .env("UP", up)
            // Neither builds nor installs anything.
            .env("HEARTH_BIN", dir)
            .env("HEARTH_TINY_AMI", "/dev/null")
            .env("HEARTH_DATA", dir.join("hearth"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    }
}

#[test]
fn an_unfit_host_is_told_what_to_do_in_one_sentence() {
    if !can_run("an_unfit_host_is_told_what_to_do_in_one_sentence") {
        return;
    }
    let agent = [
        (
            format!("{HIDE_KVM}; $AGENT"),
            "/dev/kvm is missing: enable VT-x or AMD-V in the firmware",
        ),
        (
            format!("{FORBID_KVM}; $AGENT"),
            "/dev/kvm may not be opened: check its permissions",
        ),
        (format!("{NOBODY} $AGENT"), "has to be root: run it with sudo"),
        (
            "setpriv --bounding-set=-net_admin --inh-caps=-all $AGENT".to_owned(),
            "lacks CAP_NET_ADMIN: run it outside of the container, or in a privileged one",
        ),
        (format!("{HIDE_NFT}; $AGENT"), "`apt-get install nftables`"),
        (
            "$AGENT".to_owned(),
            "has not joined a cloud: run `hearthd join-token` on the control plane's machine",
        ),
        (
            format!("mkdir -m 700 $T/data; {NOBODY} $T/hearth-agent cleanup --data-dir $T/data"),
            "hearth-agent wants root: run it with sudo",
        ),
    ];
    for (script, sentence) in agent {
        let said = Host::new().fails(&script);
        assert!(said.contains(sentence), "{script}: {said}");
        assert_eq!(said.lines().count(), 1, "{script}: {said}");
    }
    let up = [
        (format!("{NOBODY} $UP"), "this needs root (TAPs, namespaces, nftables): run it with sudo"),
        (format!("{HIDE_KVM}; $UP"), "/dev/kvm is missing: enable VT-x or AMD-V"),
        (format!("{FORBID_KVM}; $UP"), "/dev/kvm cannot be opened: check its permissions"),
        (format!("{HIDE_NFT}; $UP"), "nft is missing: apt-get install nftables"),
        (
            "mount -t tmpfs none /usr/lib/systemd/system && touch /usr/lib/systemd/system/hearth-agent.service; $UP".to_owned(),
            "a Debian package of Hearth runs hearth-agent here",
        ),
        (
            "mount -t tmpfs none /usr/lib/systemd/system && touch /usr/lib/systemd/system/hearthd.service; \
             $(dirname $UP)/down --purge"
                .to_owned(),
            "a Debian package of Hearth runs hearthd here",
        ),
    ];
    for (script, sentence) in up {
        let said = Host::new().fails(&script);
        assert!(said.contains(sentence), "{script}: {said}");
        assert_eq!(said.lines().count(), 1, "{script}: {said}");
    }
}

#[test]
fn without_cgroups_the_log_says_what_is_not_limited_and_how_to_limit_it() {
    if !can_run("without_cgroups_the_log_says_what_is_not_limited_and_how_to_limit_it") {
        return;
    }
    let host = Host::new();
    // `cleanup` looks for cgroups as the agent does, and needs no cloud.
    let cleanup = "mkdir -m 700 $T/data; $T/hearth-agent cleanup --data-dir $T/data";
    let (succeeded, said) = host.run(&format!("umount --recursive /sys/fs/cgroup; {cleanup}"));
    assert!(succeeded, "{said}");
    let sentence = "monitors are not limited: `mount -t cgroup2 none /sys/fs/cgroup`";
    assert!(said.contains(sentence), "{said}");

    let (succeeded, said) = Host::new().run(cleanup);
    assert!(succeeded, "{said}");
    assert!(!said.contains(sentence), "{said}");
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let is_old = mounts
        .lines()
        .any(|line| line.contains(" cgroup ") && line.contains("memory"));
    assert_eq!(said.contains("this host has cgroup version 1"), is_old, "{said}");
}

#[test]
fn a_package_does_not_go_over_what_scripts_up_runs() {
    if !can_run("a_package_does_not_go_over_what_scripts_up_runs") {
        return;
    }
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    for (package, daemon) in [("hearth", "hearthd"), ("hearth-agent", "hearth-agent")] {
        let preinst = packaging.join(package).join("preinst");
        let unit = packaging.join(format!("systemd/{daemon}.service"));
        let (preinst, unit) = (preinst.display(), unit.display());
        let made = "mount -t tmpfs none /etc && mkdir -p /etc/systemd/system";
        let place = format!("/etc/systemd/system/{daemon}.service");
        let host = Host::new();
        // As services.sh makes it.
        let said = host.fails(&format!(
            "{made}; sed 's|/usr/bin/hearth|/usr/local/lib/hearth/hearth|' {unit} >{place}; sh {preinst} install"
        ));
        assert_eq!(
            said,
            format!(
                "{package}: scripts/up runs {daemon} here: run scripts/down first, which keeps the data\n"
            )
        );
        // An administrator's own.
        let (succeeded, said) = host.run(&format!("{made}; cp {unit} {place}; sh {preinst} install"));
        assert!(succeeded, "{said}");
    }
}
