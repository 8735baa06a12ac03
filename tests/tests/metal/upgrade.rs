//! The agent's package is upgraded, and downgraded, while a database in a guest writes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hearth_tests::metal::Rack;
use tempfile::TempDir;

use crate::ledger::Ledger;
use crate::packages::{build, package};
use crate::site::{LONG, ROUNDS, Site};

/// Commits before, and after, each upgrade.
const COMMITS: u64 = 25;

/// Makes the package $1 into its version $2, with other programs; its file is $3.
const REVISE: &str = r#"
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
dpkg-deb --raw-extract "$1" "$dir/package"
sed -i "s/^Version: .*/Version: $2/" "$dir/package/DEBIAN/control"
for program in hearth-agent hearth-vmm; do
    # The kernel reads nothing of what follows an ELF file's sections.
    printf '\nrevision %s\n' "$2" >>"$dir/package/usr/bin/$program"
done
dpkg-deb --root-owner-group -Zgzip -z1 --build "$dir/package" "$3" >/dev/null
"#;

fn revise(package: &Path, version: &str, file: &Path) -> Result<()> {
    let made = Command::new("bash")
        .args(["-c", REVISE, "revise"])
        .args([package.as_os_str(), version.as_ref(), file.as_os_str()])
        .output()?;
    ensure!(made.status.success(), "{made:?}");
    Ok(())
}

/// Installs a package over another version of it; the time until the new agent is connected.
fn change(site: &mut Site, file: &Path, version: &str) -> Result<Duration> {
    let main_pid = "systemctl show --property MainPID --value hearth-agent";
    let before = site.run(main_pid)?;
    let start = Instant::now();
    site.run(&format!("dpkg --install {}", file.display()))?;
    let now = site.machine.wait_for(
        "another agent",
        LONG,
        &format!("p=$({main_pid}); [ $p != 0 ] && [ $p != {before} ] && tail -n 1 /proc/$p/exe"),
    )?;
    ensure!(now == format!("revision {version}"), "the agent is {now:?}");
    site.connected()?;
    Ok(start.elapsed())
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn a_database_goes_on_through_ten_upgrades_of_the_agent_and_a_downgrade() {
    let Some(mut rack) =
        Rack::new("a_database_goes_on_through_ten_upgrades_of_the_agent_and_a_downgrade").unwrap()
    else {
        return;
    };
    let built = build();
    let agent = package(&built, "hearth-agent");
    let control = package(&built, "hearth");
    let upgrades = (1..=ROUNDS).map(|round| format!("0.1.0-{}", round + 1));
    let versions: Vec<String> = upgrades.chain(["0.1.0-2".to_owned()]).collect();
    let revised = TempDir::with_prefix("hearth-revised-").unwrap();
    let file = |version: &str| revised.path().join(format!("{version}.deb"));
    for version in &versions {
        revise(&agent, version, &file(version)).unwrap();
    }
    rack.share(revised.path());
    let mut site = Site::packaged(&rack, "alpha", &[&control, &agent]).unwrap();
    let instance = site
        .run(
            "image=$(hearth upload-image --name tiny --disk-image $HEARTH_TINY_AMI --query ImageId --output text) && \
             hearth run-instances --image-id $image --instance-type t2.nano --key-name mine --security-groups ssh \
             --wait --query 'Instances[0].InstanceId' --output text",
        )
        .unwrap();
    let ledger = Ledger::open(&mut site, &instance).unwrap();
    let monitors = site.monitors().unwrap();
    let boot_id = "cat /proc/sys/kernel/random/boot_id";
    let boot = site.ssh(&instance, boot_id).unwrap();

    ledger.write(&mut site, "wal", 4 * COMMITS).unwrap();
    let quiet = ledger.longest_gap(&mut site, 1).unwrap();
    println!(
        "without an upgrade {:.2} s pass between two commits at most",
        quiet.as_secs_f32()
    );
    for version in &versions {
        let first = ledger.acknowledged(&site).unwrap();
        ledger.wait_for(&mut site, first + COMMITS).unwrap();
        let took = change(&mut site, &file(version), version).unwrap();
        let after = ledger.acknowledged(&site).unwrap();
        ledger.wait_for(&mut site, after + COMMITS).unwrap();
        let gap = ledger.longest_gap(&mut site, first).unwrap();
        let acknowledged = ledger.acknowledged(&site).unwrap();
        let last = ledger.check(&mut site).unwrap();
        println!(
            "to {version}: {:.1} s, {:.2} s between two commits at most; {acknowledged} acknowledged, {last} found",
            took.as_secs_f32(),
            gap.as_secs_f32()
        );
        assert_eq!(site.monitors().unwrap(), monitors);
        assert_eq!(site.ssh(&instance, boot_id).unwrap(), boot);
        assert!(ledger.writes_on(&mut site).unwrap(), "its connection was cut");
        // An upgrade keeps the machine busy, and writes to its disk; the guest is slowed down and not stopped.
        assert!(
            gap < quiet * 10 + Duration::from_secs(10),
            "{gap:?} and not {quiet:?}"
        );
    }
    let state = site.field(&instance, "State.Name").unwrap();
    assert_eq!(state, "running");
}
