//! A guest with a shell: a test runs commands in it and sees their output and exit code.
//!
//! ```ignore
//! let Some(mut linux) = Linux::boot("disks_come_and_go", |spec, fds| spec.vcpus = 2) else { return };
//! let (code, output) = linux.run("cat /sys/block/vda/size");
//! linux.until("[ -e /dev/vdb ]");
//! assert_eq!(linux.control().request(&Request::Status), ...);
//! ```
//!
//! Commands are lines of busybox's `sh`, which knows all of busybox's applets; each that is not built in forks,
//! which is slow here. They have no input.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hearth_vmm::spec::{BootSpec, VmSpec};

use super::guest::{Guest, Inherited, cmdline, files};

/// Fifteen seconds on an idle machine whose KVM interprets the guest's kernel.
const BOOT: Duration = Duration::from_secs(500);
/// Far more than any command takes that ends at all.
const COMMAND: Duration = Duration::from_secs(200);
/// Begins what /init says (see images/shell/init): RECORD SEPARATOR, which no command prints.
const MARK: char = '\u{1e}';

pub struct Linux {
    guest: Guest,
    console: UnixStream,
    /// Output that came in, as far as no command has claimed it.
    unread: Vec<u8>,
    /// Output of a command that goes on, as far as it was waited for.
    said: String,
    commands: u64,
}

impl Linux {
    /// Boots a guest of 96 MiB with one vCPU and without disks or NICs, to which `fill` adds what the test
    /// needs, and waits for its shell. `None`, loudly, where it cannot run.
    pub fn boot(test: &str, fill: impl FnOnce(&mut VmSpec, &mut Inherited)) -> Option<Self> {
        let [kernel, initrd] = files(test, ["HEARTH_KERNEL", "HEARTH_SHELL"])?;
        let open = |path| std::fs::File::open(path).unwrap();
        let guest = Guest::launch(|spec, fds| {
            spec.memory_mib = 96;
            spec.boot = BootSpec::Kernel {
                kernel_fd: fds.give(open(kernel)),
                initrd_fd: Some(fds.give(open(initrd))),
                cmdline: cmdline(),
            };
            fill(spec, fds);
        });
        let mut linux = Self::on(guest);
        linux.wait_for_shell();
        Some(linux)
    }

    /// A guest that was booted otherwise.
    pub fn on(guest: Guest) -> Self {
        Self {
            console: guest.connect_console(),
            guest,
            unread: Vec::new(),
            said: String::new(),
            commands: 0,
        }
    }

    /// A guest that goes on from a snapshot which `fill` names, and whose shell was waiting for commands.
    pub fn restore(fill: impl FnOnce(&mut VmSpec, &mut Inherited)) -> Self {
        Self::on(Guest::launch(|spec, fds| {
            spec.memory_mib = 96;
            fill(spec, fds);
        }))
    }

    /// Waits until /init is ready for commands, after a boot.
    pub fn wait_for_shell(&mut self) {
        self.read_to(&format!("\n{MARK}ready\n"), Instant::now() + BOOT);
    }

    /// Runs one line of shell; its exit code and what it wrote to standard output and standard error.
    pub fn run(&mut self, command: &str) -> (i32, String) {
        assert!(
            !command.contains('\n') && command.len() < 4000,
            "one line of a terminal"
        );
        let id = self.start(command);
        let deadline = Instant::now() + COMMAND;
        self.read_to(&format!("\n{MARK}{id}\n"), deadline);
        let output = self.read_to(&format!("\n{MARK}{id} "), deadline);
        let code = self.read_to("\n", deadline).parse().unwrap();
        (code, output)
    }

    /// Types a command whose end nobody waits for; its number.
    pub fn start(&mut self, command: &str) -> u64 {
        self.commands += 1;
        let id = self.commands;
        self.console
            .write_all(format!("{id} {command}\n").as_bytes())
            .unwrap();
        id
    }

    /// Runs a command that succeeds; its output without white space around it.
    pub fn ok(&mut self, command: &str) -> String {
        let (code, output) = self.run(command);
        assert_eq!(code, 0, "{command}: {output}");
        output.trim().to_owned()
    }

    /// Waits until a command that goes on has said `text` once more than was waited for.
    pub fn says(&mut self, text: &str) {
        let deadline = Instant::now() + COMMAND;
        let before = self.read_to(text, deadline);
        self.said += &before;
        self.said += text;
    }

    /// Ends the monitor by SIGKILL; what the guest has said since the last command that was waited for.
    pub fn kill(self) -> String {
        let Self {
            guest,
            mut console,
            unread,
            said,
            ..
        } = self;
        drop(guest);
        let mut rest = unread;
        console.set_read_timeout(Some(COMMAND)).unwrap();
        console.read_to_end(&mut rest).unwrap();
        said + &String::from_utf8_lossy(&rest)
    }

    /// Waits in the guest until `condition`, a command, succeeds.
    pub fn until(&mut self, condition: &str) {
        self.ok(&format!("until {condition}; do usleep 100000; done"));
    }

    /// The monitor's control socket, its process id and descriptors, its outcome.
    pub fn control(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// KiB of `field` in the monitor's `/proc/PID/smaps_rollup`: `Rss`, `Pss`, ...
    pub fn memory_kib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.guest.pid());
        let rollup = std::fs::read_to_string(path).unwrap();
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What comes before `end`; both are taken out of the output.
    fn read_to(&mut self, end: &str, deadline: Instant) -> String {
        let mut from = 0;
        loop {
            let found = self.unread[from..]
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let text = String::from_utf8_lossy(&self.unread[..from + at]).into_owned();
                self.unread.drain(..from + at + end.len());
                return text;
            }
            from = self.unread.len().saturating_sub(end.len());
            self.receive(end, deadline);
        }
    }

    fn receive(&mut self, awaited: &str, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut chunk = [0; 4096];
        let received = match left.is_zero() {
            true => Err(std::io::ErrorKind::TimedOut.into()),
            false => {
                self.console.set_read_timeout(Some(left)).unwrap();
                self.console.read(&mut chunk)
            }
        };
        match received {
            Ok(len) if len > 0 => self.unread.extend_from_slice(&chunk[..len]),
            end => panic!("no {awaited:?}: {end:?}; the console:\n{}", self.guest.console()),
        }
    }
}
