//! Restores whose pages come from a server, here a thread.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use hearth_vmm::control::receive;
use hearth_vmm::memory::userfault::Hello;
use hearth_vmm::snapshot::{MemorySource, Restore};
use rustix::event::{PollFd, PollFlags, poll};

use crate::files::Files;
use crate::guest::{plan, restore, start};

const UFFDIO_COPY: libc::Ioctl = 0xc028_aa03_u32 as libc::Ioctl;
const UFFDIO_WAKE: libc::Ioctl = 0x8010_aa02_u32 as libc::Ioctl;
pub const PAGE_FAULT: u8 = 0x12;

#[repr(C)]
struct Copy {
    destination: u64,
    source: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

/// Puts a page in place and wakes who waits for it.
pub fn copy_page(faults: &OwnedFd, destination: u64, page: &[u8]) -> io::Result<()> {
    let mut copy = Copy {
        destination,
        source: page.as_ptr() as u64,
        len: page.len() as u64,
        mode: 0,
        copied: 0,
    };
    // SAFETY: `copy` and the page that it names outlive the call; the kernel puts the page where nobody of this
    // process refers to.
    match unsafe { libc::ioctl(faults.as_raw_fd(), UFFDIO_COPY, &raw mut copy) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Wakes who waits for a page, which is not there.
pub fn wake_page(faults: &OwnedFd, start: u64, len: u64) -> io::Result<()> {
    let range = [start, len];
    // SAFETY: the kernel reads two numbers, which outlive the call.
    match unsafe { libc::ioctl(faults.as_raw_fd(), UFFDIO_WAKE, &raw const range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Brings pages from the memory file until the monitor hangs up; how many.
fn serve(socket: UnixStream, memory: File) -> JoinHandle<u64> {
    thread::spawn(move || {
        let (mut line, mut descriptors) = (vec![0; 4096], Vec::<OwnedFd>::new());
        let len = receive(&socket, &mut line, &mut descriptors).unwrap();
        let hello: Hello = serde_json::from_slice(&line[..len]).unwrap();
        let faults = descriptors.remove(0);
        let mut pages = 0;
        loop {
            let mut ready = [
                PollFd::new(&faults, PollFlags::IN),
                PollFd::new(&socket, PollFlags::IN),
            ];
            poll(&mut ready, None).unwrap();
            if !ready[1].revents().is_empty() {
                return pages;
            }
            let mut message = [0_u8; 32];
            match rustix::io::read(&faults, &mut message) {
                Ok(32) => assert_eq!(message[0], PAGE_FAULT),
                _ => continue,
            }
            let address = u64::from_le_bytes(message[16..24].try_into().unwrap());
            let address = address & !(hello.page_size - 1);
            let region = hello
                .regions
                .iter()
                .find(|region| (region.address..region.address + region.length).contains(&address))
                .unwrap();
            let mut page = vec![0_u8; hello.page_size as usize];
            memory
                .read_exact_at(&mut page, address - region.address + region.offset)
                .unwrap();
            match copy_page(&faults, address, &page) {
                Ok(()) => pages += 1,
                // Two vCPUs wanted the same page, or the machine is gone.
                Err(error) => assert!(
                    matches!(
                        error.raw_os_error(),
                        Some(libc::EEXIST | libc::ESRCH | libc::ENOENT)
                    ),
                    "{error:?}"
                ),
            }
        }
    })
}

#[test]
fn pages_come_from_a_server_one_by_one() {
    let test = "pages_come_from_a_server";
    let Some(plan) = plan(test, 2) else { return };
    let Ok(device) = File::options().read(true).write(true).open("/dev/userfaultfd") else {
        eprintln!("SKIPPED: {test}: absent: /dev/userfaultfd");
        return;
    };
    let (mut machine, console) = start(&plan);
    console.wait_for(300, 0);
    machine.pause().unwrap();
    let counted = console.len();
    let files = Files::of(
        &mut machine,
        &plan,
        hearth_vmm::snapshot::Kind::Full { track: false },
    );
    machine.stop();

    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = serve(theirs, files.memory.try_clone().unwrap());
    let from = Restore {
        snapshot: files.snapshot(),
        memory: MemorySource::Userfault {
            socket: ours,
            device: Some(device),
        },
        track: false,
    };
    let (machine, console) = restore(&plan, &from);
    drop(from);
    console.wait_for(300, 0);
    machine.stop();
    console.assert_counts_on_from(counted);
    let pages = server.join().unwrap();
    eprintln!("{pages} pages were brought");
    // What the guest touched, and not what it has.
    assert!((256..2000).contains(&pages), "{pages}");
}
