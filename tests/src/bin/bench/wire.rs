//! The wire between the host and a guest: a TAP in a network namespace that ends with the thread that made it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::libc::{self, linger};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};

pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const GUEST_MAC: &str = "02:00:00:00:00:01";
const NAME: &str = "hearth-bench";
/// A guest that does not answer within this time never will.
const PATIENCE: Duration = Duration::from_secs(20);

mod ioctl {
    use nix::libc;

    nix::ioctl_write_ptr_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
}

/// Runs `work` in a thread with a namespace of its own, as are the processes that it starts.
///
/// # Errors
/// Those of `work`; nobody may make a namespace.
pub fn in_a_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let thread = || {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
        work()
    };
    std::thread::scope(|scope| match scope.spawn(thread).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// A fresh TAP, removed with its owner: what one monitor left set does not help the next.
pub struct Wire(());

impl Wire {
    /// # Errors
    /// `ip` refuses.
    pub fn new() -> Result<Self> {
        let arguments = format!("tuntap add dev {NAME} mode tap vnet_hdr");
        ip(&arguments)?;
        let wire = Self(());
        ip(&format!("address add {HOST}/24 dev {NAME}"))?;
        ip(&format!("link set {NAME} up"))?;
        ip(&format!(
            "neighbour replace {GUEST} lladdr {GUEST_MAC} nud permanent dev {NAME}"
        ))?;
        Ok(wire)
    }

    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The TAP itself, for a monitor that is given descriptors.
    ///
    /// # Errors
    /// Another has it.
    pub fn open(&self) -> Result<File> {
        let tap = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .context("opening /dev/net/tun")?;
        // SAFETY: an `ifreq` is plain old data; all zeroes is a valid one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: the descriptor is open, and the kernel reads and writes a live `ifreq`.
        unsafe { ioctl::tun_set_iff(tap.as_raw_fd(), &request) }
            .with_context(|| format!("attaching to {NAME}"))?;
        Ok(tap)
    }

    /// A connection to the guest, without delays of our own.
    ///
    /// # Errors
    /// It does not answer.
    pub fn connect(&self, port: u16) -> Result<TcpStream> {
        let address = SocketAddrV4::new(GUEST, port);
        let stream = TcpStream::connect_timeout(&address.into(), PATIENCE)
            .with_context(|| format!("connecting to the guest at {address}"))?;
        stream.set_nodelay(true)?;
        // What is still on its way when a measurement ends does not disturb the next one.
        let at_once = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &at_once)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Err(error) = ip(&format!("link delete {NAME}")) {
            eprintln!("{error:#}");
        }
    }
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    let status = status.context("starting ip (apt-get install iproute2)")?;
    ensure!(status.success(), "ip {arguments}: {status}");
    Ok(())
}
