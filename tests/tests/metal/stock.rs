//! Debian's cloud image: by both roads, with disks and network interfaces that come and go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hearth_tests::metal::{Machine, Rack};
use hearth_tests::skipped;

use crate::packages::{build, package};
use crate::site::Site;

/// A whole boot of Debian with cloud-init takes two minutes in two emulations, one in the other.
const BOOT: Duration = Duration::from_secs(1800);
const DISK: &str = "vol-0aaaaaaaaaaaaaaa1";
const NIC: &str = "eni-0cccccccccccccccc";
const MAC: &str = "02:00:00:00:77:02";

/// What an instance tells of itself, `NAME=VALUE` a line, once cloud-init is done.
const FACTS: &str = r#"
set -u
cloud-init status --wait >/dev/null
echo "status=$(cloud-init status)"
echo "cloud=$(cat /run/cloud-init/cloud-id)"
echo "datasource=$(cat /var/lib/cloud/instance/datasource)"
echo "instance=$(cloud-init query instance_id)"
echo "cmdline=$(cat /proc/cmdline)"
echo "kernel=$(uname -rv)"
echo "hostname=$(hostname)"
echo "fqdn=$(hostname --fqdn)"
echo "root=$(df --output=size --block-size=1 / | tail -n 1)"
echo "firmware=$([ -d /sys/firmware/efi ] && echo uefi)"
echo "failed=$(systemctl --failed --no-legend --plain | cut -d ' ' -f 1 | xargs)"
echo "boot=$(systemd-analyze time | head -n 1)"
"#;

/// What an instance that did not come up whole says of it.
const WHY: &str = r"
cloud-init status --long
systemctl --failed --no-pager
for unit in $(systemctl --failed --no-legend --plain | cut -d ' ' -f 1); do
    systemctl status --no-pager --full --lines 60 $unit
done
sudo grep -E 'WARN|ERR|Traceback|[Ff]ail' /var/log/cloud-init.log | tail -n 60
sudo tail -n 40 /var/log/cloud-init-output.log
cat /etc/hosts /etc/resolv.conf
true
";

/// A disk comes: no rescan, its serial, what is written is read.
const DISK_COMES: &str = r"
set -eu
for i in $(seq 600); do [ ! -b /dev/vdb ] || break; sleep 0.1; done
udevadm settle
[ $(readlink -f /dev/disk/by-id/virtio-vol0aaaaaaaaaaaaaaa1) = /dev/vdb ]
sudo mkfs.ext4 -q /dev/vdb
sudo mount /dev/vdb /mnt
head -c 4000000 /dev/urandom | sudo tee /mnt/file | sha256sum >/tmp/sum
sync
echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null
sha256sum </mnt/file | cmp - /tmp/sum
sudo umount /mnt
";

/// The same disk came again.
const DISK_IS_BACK: &str = r"
set -eu
for i in $(seq 600); do [ ! -b /dev/vdb ] || break; sleep 0.1; done
sudo mount /dev/vdb /mnt
sha256sum </mnt/file | cmp - /tmp/sum
sudo umount /mnt
";

const NIC_COMES: &str = r"
set -eu
for i in $(seq 600); do
    link=$(ip -o link | sed -n 's/^[0-9]*: \([^:]*\):.*02:00:00:00:77:02.*/\1/p')
    [ -z $link ] || break
    sleep 0.1
done
udevadm settle
link=$(ip -o link | sed -n 's/^[0-9]*: \([^:]*\):.*02:00:00:00:77:02.*/\1/p')
sudo ip address add 10.77.0.2/24 dev $link
sudo ip link set $link up
for i in $(seq 100); do [ $(cat /sys/class/net/$link/carrier) != 1 ] || break; sleep 0.1; done
ping -c 3 -W 20 10.77.0.1
echo $link
";

struct Cloud {
    machine: Machine,
    image: PathBuf,
}

impl Cloud {
    /// On a machine as released, with the packages and nothing else.
    fn up(mut rack: Rack, image: &Path) -> (Rack, Self) {
        let built = build();
        let files = ["hearth", "hearth-agent", "hearth-firmware"].map(|name| package(&built, name));
        rack.share(image.parent().unwrap());
        let site = Site::packaged(&rack, "alpha", &files.each_ref().map(PathBuf::as_path)).unwrap();
        let cloud = Self {
            machine: site.machine,
            image: image.to_owned(),
        };
        (rack, cloud)
    }

    fn run(&mut self, script: &str) -> String {
        self.machine.run_for(BOOT, script).unwrap()
    }

    /// Runs a script in an instance, which may still be booting.
    fn ssh(&mut self, instance: &str, script: &str) -> String {
        self.machine.put("/run/script", script.as_bytes()).unwrap();
        let ended = self
            .machine
            .try_run(
                BOOT,
                &format!("hearth ssh admin@{instance} --wait 1700 -- bash -s </run/script"),
            )
            .unwrap();
        if !ended.status.success() {
            let console = self.run(&format!("hearth console {instance} | tail -n 60"));
            panic!("{script}\n{ended}\n{console}");
        }
        ended.stdout.trim_end().to_owned()
    }

    /// Registers the image with a boot mode, and launches an instance of it.
    fn launch(&mut self, boot_mode: &str) -> String {
        let image = self.image.display().to_string();
        let start = Instant::now();
        let ami = self.run(&format!(
            "hearth upload-image --name {boot_mode} --disk-image {image} --boot-mode {boot_mode} --query ImageId --output text"
        ));
        println!(
            "{boot_mode}: registered in {:.1} s",
            start.elapsed().as_secs_f32()
        );
        let start = Instant::now();
        let instance = self.run(&format!(
            "hearth run-instances --image-id {ami} --instance-type t2.micro --key-name mine --security-groups ssh \
             --block-device-mappings DeviceName=/dev/xvda,Ebs={{VolumeSize=6}} \
             --query 'Instances[0].InstanceId' --output text"
        ));
        let running = format!(
            "hearth describe-instances --instance-ids {instance} --query 'Reservations[0].Instances[0].State.Name' | grep running"
        );
        self.machine
            .wait_for("the image to come to its host", BOOT, &running)
            .unwrap();
        println!(
            "{boot_mode}: running after {:.1} s",
            start.elapsed().as_secs_f32()
        );
        let start = Instant::now();
        self.ssh(&instance, "true");
        println!("{boot_mode}: ssh {:.1} s later", start.elapsed().as_secs_f32());
        instance
    }

    fn facts(&mut self, instance: &str) -> BTreeMap<String, String> {
        let text = self.ssh(instance, FACTS);
        println!("{text}");
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    }

    fn attach(&mut self, instance: &str, arguments: &str) {
        self.run(&format!(
            "python3 /run/attach.py $(ls -d /var/lib/hearth/agent/instances/{instance}/launch-*/control.sock) {arguments}"
        ));
    }

    /// A disk and a network interface come and go, without a rescan in the guest.
    fn plug(&mut self, instance: &str) {
        self.machine
            .put("/run/attach.py", include_bytes!("attach.py"))
            .unwrap();
        self.run("truncate --size 64M /root/plugged.raw");
        let start = Instant::now();
        self.attach(instance, &format!("disk {DISK} /root/plugged.raw"));
        self.ssh(instance, DISK_COMES);
        self.attach(instance, &format!("detach {DISK}"));
        self.ssh(instance, "! [ -e /sys/block/vdb ]");
        self.run("e2fsck -fn /root/plugged.raw");
        self.attach(instance, &format!("disk {DISK} /root/plugged.raw"));
        self.ssh(instance, DISK_IS_BACK);
        self.attach(instance, &format!("detach {DISK}"));
        println!(
            "a disk came, went, and came again {:.1} s",
            start.elapsed().as_secs_f32()
        );

        let start = Instant::now();
        self.attach(instance, &format!("nic {NIC} {MAC} plugged0"));
        self.run("ip address add 10.77.0.1/24 dev plugged0 && ip link set plugged0 up");
        let link = self.ssh(instance, NIC_COMES);
        let link = link.lines().last().unwrap();
        self.attach(instance, &format!("detach {NIC}"));
        self.ssh(instance, &format!("! [ -e /sys/class/net/{link} ]"));
        println!(
            "a network interface {link} came and went {:.1} s",
            start.elapsed().as_secs_f32()
        );
        self.ssh(
            instance,
            "sudo dmesg --level=emerg,alert,crit,err >/tmp/errors; ! grep -E 'vdb|virtio|pci|BUG|Call Trace' /tmp/errors",
        );
    }
}

fn debian(test: &str, variable: &str) {
    let Some(rack) = Rack::new(test).unwrap() else {
        return;
    };
    let Some(image) = std::env::var_os(variable).map(PathBuf::from) else {
        skipped(
            test,
            &format!("{variable} is not set (scripts/test --metal sets it)"),
        );
        return;
    };
    let (_rack, mut cloud) = Cloud::up(rack, &image);
    let mut facts = Vec::new();
    for (boot_mode, firmware) in [("legacy-bios", ""), ("uefi", "uefi")] {
        let instance = cloud.launch(boot_mode);
        let told = cloud.facts(&instance);
        if told["status"] != "status: done" || !told["failed"].is_empty() {
            panic!("{}", cloud.ssh(&instance, WHY));
        }
        assert_eq!(told["cloud"], "aws");
        assert!(told["datasource"].starts_with("DataSourceEc2"), "{told:?}");
        assert_eq!(told["instance"], instance);
        assert_eq!(told["firmware"], firmware);
        // Six GiB less partition 15 and what ext4 takes for itself.
        assert!(told["root"].parse::<u64>().unwrap() > 5_500_000_000, "{told:?}");
        let name = cloud.run(&format!(
            "hearth describe-instances --instance-ids {instance} \
             --query 'Reservations[0].Instances[0].PrivateDnsName' --output text"
        ));
        assert_eq!(told["fqdn"], name);
        assert_eq!(told["hostname"], name.split('.').next().unwrap());
        cloud.plug(&instance);
        let start = Instant::now();
        cloud.run(&format!(
            "hearth stop-instances --instance-ids {instance} --wait && hearth terminate-instances --instance-ids {instance} --wait"
        ));
        println!(
            "{boot_mode}: stopped and terminated in {:.1} s",
            start.elapsed().as_secs_f32()
        );
        facts.push(told);
    }
    // The kernel that GRUB boots, with GRUB's command line.
    for fact in ["cmdline", "kernel"] {
        assert_eq!(facts[0][fact], facts[1][fact]);
    }
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn debian_12_boots_directly_and_by_firmware() {
    debian(
        "debian_12_boots_directly_and_by_firmware",
        "HEARTH_DEBIAN_BOOKWORM",
    );
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn debian_13_boots_directly_and_by_firmware() {
    debian("debian_13_boots_directly_and_by_firmware", "HEARTH_DEBIAN_TRIXIE");
}
