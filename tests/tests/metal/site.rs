//! A cloud that `scripts/up` has installed on a machine.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hearth_tests::binary;
use hearth_tests::metal::{Ended, Machine, Rack};

use crate::packages;

/// How long an installation, a start of an instance, or a stop may take on a host under load.
pub const LONG: Duration = Duration::from_secs(600);

/// How often a blow is repeated.
pub const ROUNDS: u32 = 10;

pub struct Site {
    pub machine: Machine,
    environment: String,
}

impl Site {
    /// Nothing is installed yet.
    pub fn new(rack: &Rack, machine: Machine) -> Result<Self> {
        let hearth = binary("hearth")?;
        let bin = hearth.parent().context("a binary without a directory")?.display();
        let ami = rack.ami().display();
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../scripts")
            .canonicalize()?;
        let scripts = scripts.display();
        let environment = format!(
            "export HEARTH_BIN='{bin}' HEARTH_TINY_AMI='{ami}' HEARTH_SCRIPTS='{scripts}'; PATH='{bin}':$PATH; "
        );
        Ok(Self { machine, environment })
    }

    /// A machine with a cloud on it, and the instance that `scripts/up` launches, which answers ssh.
    pub fn up(rack: &Rack, name: &str) -> Result<(Self, String)> {
        let mut site = Self::new(rack, rack.machine(name)?)?;
        site.script("up")?;
        let instance = site.named("hello", "InstanceId")?;
        Ok((site, instance))
    }

    /// A machine with a cloud of these packages on it, as docs/homelab.md makes it.
    pub fn packaged(rack: &Rack, name: &str, packages: &[&Path]) -> Result<Self> {
        let mut site = Self::new(rack, rack.machine(name)?)?;
        let files: Vec<String> = packages.iter().map(|path| path.display().to_string()).collect();
        let start = Instant::now();
        site.run(&packages::install(&files.join(" ")))?;
        println!("apt install {:.1} s", start.elapsed().as_secs_f32());
        let start = Instant::now();
        site.run(packages::JOIN)?;
        println!("a cloud {:.1} s later", start.elapsed().as_secs_f32());
        site.run(packages::ACCESS)?;
        Ok(site)
    }

    /// Runs one of `scripts/`, with arguments.
    pub fn script(&mut self, command: &str) -> Result<String> {
        self.run(&format!("$HEARTH_SCRIPTS/{command}"))
    }

    /// Runs a bash script that knows Hearth's programs.
    pub fn run(&mut self, script: &str) -> Result<String> {
        self.machine
            .run_for(LONG, &format!("{}{script}", self.environment))
    }

    /// As [`Site::run`], whatever it ends with.
    pub fn try_run(&mut self, script: &str) -> Result<Ended> {
        self.machine
            .try_run(LONG, &format!("{}{script}", self.environment))
    }

    /// A field of the instance of this name.
    pub fn named(&mut self, name: &str, field: &str) -> Result<String> {
        self.run(&format!(
            "hearth describe-instances --filters Name=tag:Name,Values={name} \
             --query 'Reservations[0].Instances[0].{field}' --output text"
        ))
    }

    /// A field of an instance.
    pub fn field(&mut self, instance: &str, field: &str) -> Result<String> {
        self.run(&format!(
            "hearth describe-instances --instance-ids {instance} \
             --query 'Reservations[0].Instances[0].{field}' --output text"
        ))
    }

    /// Runs a script in an instance; it may still be booting.
    pub fn ssh(&mut self, instance: &str, script: &str) -> Result<String> {
        self.run(&format!("hearth ssh {instance} --wait 300 -- '{script}'"))
    }

    /// The process ids of all monitors.
    pub fn monitors(&mut self) -> Result<String> {
        Ok(self.try_run("pgrep -x hearth-vmm")?.stdout)
    }

    /// Until `hearthd` answers and the host is connected.
    pub fn connected(&mut self) -> Result<()> {
        self.run("hearth wait-until-up --zones 1 --timeout 300").map(drop)
    }
}
