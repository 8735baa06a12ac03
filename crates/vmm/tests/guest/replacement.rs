//! A TAP that somebody deletes: the monitor is given another one, and the driver goes on.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use hearth_vmm::control::{Event, Reply, Request};

use super::monitor::files;
use super::{finish, launch, tap};

const ROUNDS: u32 = 10;
/// The guest has less.
const PATIENCE: Duration = Duration::from_secs(60);
const NIC: &str = "eni-0123456789abcdef0";

fn replace(device: &str, queues: usize) -> Request {
    Request::ReplaceTap {
        device: device.into(),
        tap_fds: (0..queues as i32).collect(),
    }
}

#[test]
fn a_deleted_tap_is_replaced() {
    let test = "a_deleted_tap_is_replaced";
    let Some([]) = files(test, []) else { return };
    let Some(queues) = tap::queues_in_a_namespace::<2>(test) else {
        return;
    };
    let mut guest = launch(&format!("only=tap:: tap={ROUNDS}"), queues, |_, _| {});
    assert!(matches!(guest.next_event(PATIENCE), Some(Event::Entered { .. })));
    let mut refused =
        |request: &Request, descriptors: &[BorrowedFd<'_>]| match guest.request_with(request, descriptors) {
            Reply::Error { message } => message,
            reply => panic!("{reply:?}"),
        };
    let null = std::fs::File::open("/dev/null").unwrap();
    let null = [null.as_fd(), null.as_fd()];
    assert!(refused(&replace("eni-none", 2), &null).contains("no device"));
    assert!(refused(&replace("vol-00000000000000000", 2), &null).contains("is no NIC"));
    assert!(refused(&replace(NIC, 1), &null[..1]).contains("has 2 queues, and 1 TAP queues came"));
    assert!(refused(&replace(NIC, 2), &null).contains("making anew"));
    for round in 0..ROUNDS {
        guest.wait_for_console(&format!("tap: replace {round}\n"), PATIENCE);
        tap::delete(0);
        let queues: [OwnedFd; 2] = tap::add_queues(0);
        let reply = guest.request_with(&replace(NIC, 2), &queues.each_ref().map(OwnedFd::as_fd));
        assert_eq!(reply, Reply::Ok);
    }
    finish(guest, 1);
}
