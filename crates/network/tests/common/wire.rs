//! A guest with a real TCP/IP stack: a namespace whose `eth0` is joined to the guest's TAP by a thread.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe;

use super::{Guest, VNET_HEADER, inside, run};

nix::ioctl_write_ptr_bad!(tun_set_iff, nix::request_code_write!(b'T', 202, 4), libc::ifreq);

pub struct WiredGuest {
    pub netns: String,
    /// The lowest IP TTL of packets from IMDS that the guest got.
    pub lowest_imds_ttl: Arc<AtomicU8>,
    stop: Option<std::os::fd::OwnedFd>,
    pump: Option<std::thread::JoinHandle<()>>,
}

impl WiredGuest {
    pub fn new(guest: Guest, router: Ipv4Addr) -> Self {
        let netns = format!("hnt-guest-{:012x}", rand::random::<u64>() >> 16);
        run(&format!("ip netns add {netns} && ip -n {netns} link set lo up"));
        let eth0 = inside(&netns, || open_tap("eth0"));
        let mac: Vec<String> = guest.mac.iter().map(|b| format!("{b:02x}")).collect();
        run(&format!(
            "ip -n {netns} link set eth0 address {} up && ip -n {netns} addr add {}/20 dev eth0 \
             && ip -n {netns} route add default via {router}",
            mac.join(":"),
            guest.ip
        ));
        let lowest_imds_ttl = Arc::new(AtomicU8::new(u8::MAX));
        let (stopped, stop) = pipe().unwrap();
        let lowest = lowest_imds_ttl.clone();
        let pump = std::thread::spawn(move || {
            let mut buffer = [0; 65_600];
            loop {
                let mut ready = [
                    PollFd::new(guest.tap.as_fd(), PollFlags::POLLIN),
                    PollFd::new(eth0.as_fd(), PollFlags::POLLIN),
                    PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
                ];
                poll(&mut ready, PollTimeout::NONE).unwrap();
                if ready[2].any().unwrap() {
                    return;
                }
                while let Ok(length) = (&guest.tap).read(&mut buffer) {
                    let frame = &buffer[VNET_HEADER..length];
                    if frame[12..14] == [8, 0] && frame[26..30] == [169, 254, 169, 254] {
                        lowest.fetch_min(frame[22], Ordering::Relaxed);
                    }
                    let _ = (&eth0).write(&buffer[..length]);
                }
                while let Ok(length) = (&eth0).read(&mut buffer) {
                    let _ = (&guest.tap).write(&buffer[..length]);
                }
            }
        });
        Self {
            netns,
            lowest_imds_ttl,
            stop: Some(stop),
            pump: Some(pump),
        }
    }
}

impl Drop for WiredGuest {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
    }
}

/// Makes a TAP in the calling thread's namespace.
pub fn open_tap(name: &str) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: plain old data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = *from as i8;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the descriptor is open, the request lives.
    unsafe { tun_set_iff(file.as_raw_fd(), &request) }.unwrap();
    let size: libc::c_int = VNET_HEADER as i32;
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54d8, &size) };
    assert_eq!(set, 0);
    file
}
