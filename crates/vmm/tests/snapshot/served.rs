//! Page servers, good and bad, of a monitor in its jail.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hearth_vmm::control::{Event, Reply, Request, receive};
use hearth_vmm::memory::userfault::Hello;
use hearth_vmm::snapshot::Kind;
use hearth_vmm::spec::{BootSpec, MemorySpec, Outcome, RestoreSpec, VmSpec};
use rustix::event::{PollFd, PollFlags, poll};

use crate::guest::kernel;
use crate::monitor::{Guest, Inherited, files};
use crate::pages::{PAGE_FAULT, copy_page, wake_page};

const PATIENCE: Duration = Duration::from_secs(60);
const MEMORY_MIB: u64 = 32;
/// Where the guest's writes go, a page after each letter: from here on a bad server is bad.
const WRITTEN: u64 = 4 << 20;

/// What a server does about a page that it is asked for.
enum Answer {
    Bring,
    /// Something else than what was in it.
    Lie,
    /// Fewer bytes than a page has.
    BringPart,
    /// The fault is woken, without a page.
    Wake,
    Nothing,
    HangUp,
}

/// A saved guest, whose disks nobody needs.
struct Saved {
    state: File,
    memory: File,
}

impl Saved {
    /// `None`, loudly, where it cannot be restored by page.
    fn new(test: &str) -> Option<Self> {
        let [] = files(test, [])?;
        if open_device().is_none() {
            eprintln!("SKIPPED: {test}: absent: /dev/userfaultfd");
            return None;
        }
        let mut guest = launch(|_, _| {});
        guest.wait_for_console("xyzabc", PATIENCE);
        let (state, memory) = guest.snapshot(Kind::Full { track: false });
        Some(Self { state, memory })
    }

    /// A monitor that goes on from it, with a server that answers so when it is asked for the page at a guest
    /// physical address. How often it was asked comes when it ends.
    fn restore(&self, answer: impl Fn(u64) -> Answer + Send + 'static) -> (Guest, JoinHandle<u64>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let memory = self.memory.try_clone().unwrap();
        let server = thread::spawn(move || serve(&theirs, &memory, answer));
        (self.restore_from(ours), server)
    }

    /// The same with whoever is at the socket's other end.
    fn restore_from(&self, server: UnixStream) -> Guest {
        launch(|spec, fds| {
            spec.restore = Some(RestoreSpec {
                state_fd: fds.give(self.state.try_clone().unwrap()),
                memory: MemorySpec::Userfault {
                    socket_fd: fds.give(server),
                    device_fd: open_device().map(|device| fds.give(device)),
                },
                track: false,
            });
        })
    }
}

fn launch(fill: impl FnOnce(&mut VmSpec, &mut Inherited)) -> Guest {
    Guest::launch(|spec, fds| {
        spec.memory_mib = MEMORY_MIB;
        spec.boot = BootSpec::Kernel {
            kernel_fd: fds.give(kernel()),
            initrd_fd: None,
            cmdline: String::new(),
        };
        fill(spec, fds);
    })
}

fn open_device() -> Option<File> {
    let mut options = File::options();
    options.read(true).write(true).open("/dev/userfaultfd").ok()
}

fn serve(socket: &UnixStream, memory: &File, answer: impl Fn(u64) -> Answer) -> u64 {
    let (mut line, mut descriptors) = (vec![0; 4096], Vec::<OwnedFd>::new());
    let len = receive(socket, &mut line, &mut descriptors).unwrap();
    let hello: Hello = serde_json::from_slice(&line[..len]).unwrap();
    let region = &hello.regions[0];
    let faults = descriptors.remove(0);
    let mut asked = 0;
    loop {
        let mut ready = [
            PollFd::new(&faults, PollFlags::IN),
            PollFd::new(socket, PollFlags::IN),
        ];
        poll(&mut ready, None).unwrap();
        if !ready[1].revents().is_empty() {
            return asked;
        }
        let mut message = [0_u8; 32];
        match rustix::io::read(&faults, &mut message) {
            Ok(32) => assert_eq!(message[0], PAGE_FAULT),
            _ => continue,
        }
        asked += 1;
        let fault = u64::from_le_bytes(message[16..24].try_into().unwrap());
        let address = fault & !(hello.page_size - 1);
        let place = address - region.address;
        let mut page = vec![0_u8; hello.page_size as usize];
        memory.read_exact_at(&mut page, place + region.offset).unwrap();
        let copied = match answer(place) {
            Answer::Bring => copy_page(&faults, address, &page),
            Answer::Lie => copy_page(&faults, address, &vec![0xf4; page.len()]),
            Answer::BringPart => {
                let refused = copy_page(&faults, address, &page[..100]).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
                Ok(())
            }
            Answer::Wake => wake_page(&faults, address, hello.page_size),
            Answer::Nothing => Ok(()),
            Answer::HangUp => return asked,
        };
        if let Err(error) = copied {
            // Another vCPU wanted the same page, or the machine is gone.
            let known = matches!(
                error.raw_os_error(),
                Some(libc::EEXIST | libc::ESRCH | libc::ENOENT)
            );
            assert!(known, "{error}");
        }
    }
}

fn bring(_: u64) -> Answer {
    Answer::Bring
}

/// Answers with `bad` from [`WRITTEN`] on.
macro_rules! then {
    ($bad:ident) => {
        |place| match place < WRITTEN {
            true => Answer::Bring,
            false => Answer::$bad,
        }
    };
}

fn assert_entered(guest: &mut Guest) {
    let event = guest.next_event(PATIENCE);
    assert!(matches!(event, Some(Event::Entered { .. })), "{event:?}");
}

fn assert_stops(mut guest: Guest, server: JoinHandle<u64>) -> u64 {
    assert_eq!(guest.request(&Request::Stop), Reply::Ok);
    assert_eq!(guest.outcome(), Outcome::Stopped);
    server.join().unwrap()
}

fn crash(mut guest: Guest) -> String {
    while guest.next_event(PATIENCE).is_some() {}
    match guest.outcome() {
        Outcome::Crashed { message } | Outcome::StartFailed { message } => message,
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn a_jailed_monitor_gets_its_pages_from_a_server() {
    let Some(saved) = Saved::new("a_jailed_monitor_gets_its_pages") else {
        return;
    };
    let (mut guest, server) = saved.restore(bring);
    assert_entered(&mut guest);
    guest.wait_for_console("xyzabcdefghijklmnopqrstuvwxyzabc", PATIENCE);
    assert!(!guest.console().contains('!'));
    assert_eq!(guest.request(&Request::Pause), Reply::Ok);
    assert_eq!(guest.request(&Request::Resume), Reply::Ok);
    let asked = assert_stops(guest, server);
    eprintln!("{asked} pages were asked for");

    // The next boot needs no pages, and no server.
    let (mut guest, server) = saved.restore(bring);
    assert_entered(&mut guest);
    assert_eq!(guest.request(&Request::Reset), Reply::Ok);
    assert_eq!(guest.next_event(PATIENCE), Some(Event::Reset { boots: 2 }));
    server.join().unwrap();
    assert_entered(&mut guest);
    guest.wait_for_console("abc", PATIENCE);
    assert_eq!(guest.request(&Request::Stop), Reply::Ok);
    assert_eq!(guest.outcome(), Outcome::Stopped);
}

#[test]
fn a_server_that_goes_ends_the_machine_whenever_it_does() {
    let Some(saved) = Saved::new("a_server_that_goes") else {
        return;
    };
    for answer in [(|_| Answer::HangUp) as fn(u64) -> Answer, then!(HangUp)] {
        let (guest, server) = saved.restore(answer);
        let message = crash(guest);
        assert!(message.contains("memory pages has gone"), "{message}");
        server.join().unwrap();
    }
    // Before it was told anything.
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let message = crash(saved.restore_from(ours));
    assert!(message.contains("page"), "{message}");
}

#[test]
fn a_machine_whose_server_is_silent_can_be_asked_and_stopped() {
    let Some(saved) = Saved::new("a_machine_whose_server_is_silent") else {
        return;
    };
    for answer in [then!(Nothing) as fn(u64) -> Answer, then!(BringPart), then!(Wake)] {
        let (mut guest, server) = saved.restore(answer);
        assert_entered(&mut guest);
        assert!(matches!(guest.request(&Request::Status), Reply::Status(_)));
        assert!(matches!(guest.request(&Request::Metrics), Reply::Metrics(_)));
        assert_stops(guest, server);
    }
}

#[test]
fn a_silent_server_ends_what_has_to_wait_for_it() {
    let Some(saved) = Saved::new("a_silent_server_ends") else {
        return;
    };
    // Restoring itself looks at guest memory.
    let (guest, server) = saved.restore(|_| Answer::Nothing);
    let message = crash(guest);
    assert!(message.contains("does not answer"), "{message}");
    server.join().unwrap();
}

/// A snapshot wants all pages: the machine ends instead of waiting for them for ever, and says why.
#[test]
fn a_snapshot_with_a_silent_server_ends_within_its_time() {
    let Some(saved) = Saved::new("a_snapshot_with_a_silent_server") else {
        return;
    };
    let (mut guest, server) = saved.restore(then!(Nothing));
    assert_entered(&mut guest);
    let (state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    match guest.try_snapshot(Kind::Full { track: false }, &state, &memory) {
        Ok(Reply::Error { .. }) => {}
        Ok(reply) => panic!("{reply:?}"),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}"),
    }
    let message = crash(guest);
    assert!(message.contains("does not answer"), "{message}");
    server.join().unwrap();
}

/// A pause waits for the vCPU and the devices, which may wait for a page.
#[test]
fn a_pause_with_a_silent_server_is_done_or_ends_within_its_time() {
    let Some(saved) = Saved::new("a_pause_with_a_silent_server") else {
        return;
    };
    let (asks, asked) = channel();
    let (mut guest, server) = saved.restore(move |place| {
        if place < WRITTEN {
            return Answer::Bring;
        }
        // Nobody listens any more when the machine asks for the next one.
        let _ = asks.send(());
        Answer::Nothing
    });
    assert_entered(&mut guest);
    asked.recv_timeout(PATIENCE).unwrap();
    match guest.try_request(&Request::Pause, &[]) {
        Ok(Reply::Ok) => {
            assert!(matches!(guest.request(&Request::Status), Reply::Status(_)));
            assert_eq!(guest.request(&Request::Resume), Reply::Ok);
            assert_stops(guest, server);
        }
        Ok(reply) => panic!("{reply:?}"),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
            let message = crash(guest);
            assert!(message.contains("does not answer"), "{message}");
            server.join().unwrap();
        }
    }
}

#[test]
fn pages_of_something_else_are_the_guests_trouble_only() {
    let Some(saved) = Saved::new("pages_of_something_else") else {
        return;
    };
    // Its page tables lead nowhere: it faults until it resets, or does nothing any more.
    let (mut guest, server) = saved.restore(|_| Answer::Lie);
    assert_entered(&mut guest);
    assert!(matches!(guest.request(&Request::Status), Reply::Status(_)));
    assert_stops(guest, server);
}
