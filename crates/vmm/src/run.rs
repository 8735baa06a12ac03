//! `hearth-vmm run`: a machine from files, on the terminal.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use argh::FromArgs;
use hearth_block::RawDisk;
use hearth_log::chain;
use hearth_vmm::bases::Bases;
use hearth_vmm::boot::Source;
use hearth_vmm::console::Console;
use hearth_vmm::cpu::{CpuSpec, Model};
use hearth_vmm::devices::{Backend, Devices, DiskPlan, NicPlan, VsockPlan};
use hearth_vmm::jail::{self, Role};
use hearth_vmm::lifecycle::{self, Surroundings};
use hearth_vmm::limits::{Limiter, RateLimit};
use hearth_vmm::machine::Plan;
use hearth_vmm::metrics::Registry;
use hearth_vmm::open;
use hearth_vmm::spec::{BalloonOptions, Cache, HugePages, Outcome};
use hearth_vmm::virtio::balloon;
use hearth_vmm::virtio::net::{NetConfig, NetLimits};
use kvm_ioctls::Kvm;

use nix::sys::termios::{self, LocalFlags, OutputFlags, SetArg, Termios};
use rustix::fs::MemfdFlags;

use crate::{abandon, report};

/// Run a machine on this terminal until it powers off
#[derive(FromArgs)]
#[argh(subcommand, name = "run")]
pub(crate) struct Arguments {
    /// an ELF or bzImage kernel; without it, the first disk's boot loader configuration decides
    #[argh(option)]
    kernel: Option<PathBuf>,
    /// a UEFI firmware (images/firmware); it boots disks whose kernel cannot be booted directly
    #[argh(option)]
    firmware: Option<PathBuf>,
    /// let the firmware boot whatever the disk has
    #[argh(switch)]
    uefi: bool,
    /// the kernel's initrd
    #[argh(option)]
    initrd: Option<PathBuf>,
    /// the kernel's command line (console=ttyS0 reboot=k panic=-1)
    #[argh(option, default = "DEFAULT_CMDLINE.to_owned()")]
    cmdline: String,
    /// a raw disk image, written to; give it again for more disks
    #[argh(option)]
    disk: Vec<PathBuf>,
    /// guest memory (128)
    #[argh(option, default = "128", arg_name = "mib")]
    memory_mib: u64,
    /// under it: transparent (which is the default) or none
    #[argh(option, default = "HugePages::default()", from_str_fn(parse_huge_pages))]
    huge_pages: HugePages,
    /// gives the guest a balloon, by which free memory goes back to the host
    #[argh(switch)]
    balloon: bool,
    /// gives the guest a vsock device on this Unix socket, which is made and must not exist yet; the guest's
    /// connections to port P of the host go to the socket PATH_P
    #[argh(option, arg_name = "path")]
    vsock: Option<PathBuf>,
    /// the guest's vsock context id (3)
    #[argh(option, default = "3")]
    vsock_cid: u32,
    /// processors, 1 to 32 (1)
    #[argh(option, default = "1")]
    vcpus: u8,
    /// host (which is the default), or a baseline: x86-64-v1 to x86-64-v4
    #[argh(option, default = "Model::Host", from_str_fn(parse_model))]
    cpu_model: Model,
    /// of the processors, 1 or 2 (1)
    #[argh(option, default = "1")]
    threads_per_core: u8,
    /// an existing TAP interface; give it again for more NICs
    #[argh(option)]
    tap: Vec<String>,
    /// the MAC address of each TAP's NIC, in the same order
    #[argh(option)]
    mac: Vec<String>,
    /// of the NICs (1500)
    #[argh(option, default = "1500")]
    mtu: u16,
    /// let every thread make any system call: to debug, or to learn which ones a new device needs
    #[argh(switch)]
    no_seccomp: bool,
}

const DEFAULT_CMDLINE: &str = "console=ttyS0 reboot=k panic=-1";

/// A balloon that nobody inflates: what the guest frees is all that comes back.
const OPEN_HANDED: BalloonOptions = BalloonOptions {
    target_mib: 0,
    deflate_on_oom: true,
    free_page_reporting: true,
};

pub(crate) fn run(arguments: Arguments, started: Instant) -> ExitCode {
    let outcome = on_terminal(arguments, started).unwrap_or_else(|error| Outcome::StartFailed {
        message: chain(error.as_ref()),
    });
    report(&outcome)
}

type Error = Box<dyn std::error::Error>;

fn on_terminal(arguments: Arguments, started: Instant) -> Result<Outcome, Error> {
    if arguments.kernel.is_none() && arguments.disk.is_empty() {
        return Err("what shall it boot? --kernel or --disk is needed".into());
    }
    if arguments.kernel.is_none() && arguments.initrd.is_some() {
        return Err("an --initrd needs its --kernel: a disk's boot entry names its own".into());
    }
    if arguments.kernel.is_some() && arguments.firmware.is_some() {
        return Err("either a --kernel or a --firmware".into());
    }
    if arguments.uefi && arguments.firmware.is_none() {
        return Err("--uefi needs a --firmware".into());
    }
    let filtered = !arguments.no_seccomp;
    let plan = plan(arguments)?;
    let history = File::from(rustix::fs::memfd_create("console", MemfdFlags::CLOEXEC)?);
    let (connection, terminal) = UnixStream::pair()?;
    let _mode = RawMode::new();
    if filtered {
        jail::filter_threads(Role::Terminal)?;
    }
    let output = connect(terminal)?;
    let outcome = lifecycle::run(
        plan,
        Surroundings {
            started,
            control: None,
            console: Console::start(history, None, Some(connection))?,
            abandon,
        },
    );
    // The console has ended, and with it the connection: this is the last of the output.
    let _ = output.join();
    Ok(outcome)
}

fn plan(arguments: Arguments) -> Result<Plan, Error> {
    open::check_shape(arguments.vcpus, arguments.memory_mib)?;
    let mut devices = Devices::default();
    for (path, index) in arguments.disk.iter().zip(0..) {
        let file = open_file(path, true)?;
        let serial = format!("disk{index}");
        let plan = DiskPlan {
            disk: Arc::new(RawDisk::new(file)?),
            limiter: Limiter::new(&RateLimit::default()),
            serial: serial.clone(),
            read_only: false,
            cache: Cache::default(),
        };
        devices.add(&serial, Backend::Disk(plan))?;
    }
    for (name, index) in arguments.tap.iter().zip(0_u8..) {
        let mac = match arguments.mac.get(usize::from(index)) {
            Some(mac) => open::parse_mac(mac)?,
            None => [0x02, 0, 0, 0, 0, index + 1],
        };
        let plan = NicPlan {
            taps: vec![open_tap(name)?],
            config: NetConfig {
                mac,
                mtu: arguments.mtu,
            },
            limits: NetLimits::default(),
        };
        devices.add(name, Backend::Nic(plan))?;
    }
    devices.add("rng", Backend::Rng(Limiter::new(&RateLimit::default())))?;
    if arguments.balloon {
        let handle = balloon::Handle::new(OPEN_HANDED, arguments.memory_mib)?;
        devices.add("balloon", Backend::Balloon(handle))?;
    }
    if let Some(path) = arguments.vsock {
        let failed = |error| format!("making the socket {}: {error}", path.display());
        let plan = VsockPlan {
            guest_cid: arguments.vsock_cid,
            listener: UnixListener::bind(&path).map_err(failed)?,
            prefix: path,
        };
        devices.add("vsock", Backend::Vsock(plan))?;
    }
    let source = match (&arguments.kernel, devices.first_disk()) {
        (Some(kernel), _) => Source::Files {
            kernel: Arc::new(open_file(kernel, false)?),
            initrd: match &arguments.initrd {
                Some(initrd) => Some(Arc::new(open_file(initrd, false)?)),
                None => None,
            },
            cmdline: arguments.cmdline,
        },
        (None, Some((_, root))) => {
            let firmware = match &arguments.firmware {
                Some(firmware) => Some(Arc::new(open_file(firmware, false)?)),
                None => None,
            };
            match firmware {
                Some(firmware) if arguments.uefi => Source::Firmware(firmware),
                firmware => Source::Disk {
                    disk: Arc::clone(&root.disk),
                    firmware,
                },
            }
        }
        (None, None) => return Err("neither a kernel nor a disk".into()),
    };
    Ok(Plan {
        kvm: Kvm::new().map_err(|error| format!("opening /dev/kvm: {error}"))?,
        instance_id: "i-00000000000000000".into(),
        uuid: "ec200000-0000-4000-8000-000000000000".into(),
        vcpus: arguments.vcpus,
        cpus: Vec::new(),
        cpu: CpuSpec {
            model: arguments.cpu_model,
            threads_per_core: arguments.threads_per_core,
        },
        memory_mib: arguments.memory_mib,
        huge_pages: arguments.huge_pages,
        source,
        restore: None,
        devices,
        // Nobody could ask for it: there is no control socket.
        hotplug: false,
        bases: Bases::default(),
        metrics: Registry::default(),
    })
}

fn parse_model(name: &str) -> Result<Model, String> {
    let found = Model::ALL.into_iter().find(|model| model.name() == name);
    found.ok_or_else(|| format!("the models are {}", Model::ALL.map(Model::name).join(", ")))
}

fn parse_huge_pages(name: &str) -> Result<HugePages, String> {
    let found = HugePages::ALL.into_iter().find(|it| it.name() == name);
    found.ok_or_else(|| format!("it may be {}", HugePages::ALL.map(HugePages::name).join(" or ")))
}

fn open_file(path: &Path, write: bool) -> Result<File, Error> {
    File::options()
        .read(true)
        .write(write)
        .open(path)
        .map_err(|error| format!("opening {}: {error}", path.display()).into())
}

/// Attaches to a TAP as [`hearth_vmm::spec::NicSpec::tap_fds`] wants them.
fn open_tap(name: &str) -> Result<File, Error> {
    let failed = |error: io::Error| -> Error { format!("opening TAP {name}: {error}").into() };
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(failed)?;
    // SAFETY: all-zero is a valid `ifreq`: integers and bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the request is valid for the call, which reads and writes an `ifreq`.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) } < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(file)
}

/// Makes standard input and output a connection to the console: two threads copy, and may wait for a slow
/// pipe. The second, which is returned, ends with the connection.
fn connect(mut console: UnixStream) -> io::Result<JoinHandle<()>> {
    let mut keys = console.try_clone()?;
    jail::spawn(Role::Terminal, Builder::new().name("stdin".into()), move || {
        let _ = copy(&mut io::stdin(), &mut keys);
        let _ = keys.shutdown(Shutdown::Write);
    })?;
    jail::spawn(Role::Terminal, Builder::new().name("stdout".into()), move || {
        let _ = copy(&mut console, &mut io::stdout());
    })
}

/// Passes on what comes at once, also half a line.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut chunk = [0; 4096];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => to.write_all(&chunk[..len]).and_then(|()| to.flush())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Standard input in raw mode, so that the guest sees each key; restored on drop. Ctrl-C still ends us.
struct RawMode {
    before: Option<Termios>,
}

impl RawMode {
    fn new() -> Self {
        let before = termios::tcgetattr(io::stdin()).ok();
        if let Some(mut raw) = before.clone() {
            termios::cfmakeraw(&mut raw);
            raw.local_flags |= LocalFlags::ISIG;
            raw.output_flags |= OutputFlags::OPOST;
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &raw);
        }
        Self { before }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}
