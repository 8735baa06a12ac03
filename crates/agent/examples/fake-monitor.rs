//! A monitor without a machine, for the agent's tests: it takes the same descriptors, speaks the same control
//! protocol and ends the same ways.
//!
//! The "guest" obeys the power button at once, unless its memory is 33 MiB: then it is deaf. With 34 MiB it
//! powers itself off after the first entry; with 35 MiB it cannot be started.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hearth_vmm::control::{Event, Message, Reply, Request, Status, VmState};
use hearth_vmm::spec::{Outcome, VmSpec};

fn take(fd: RawFd) -> OwnedFd {
    // SAFETY: the agent gave this descriptor for this purpose, and it is taken once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn main() {
    let spec_fd = std::env::args().nth(2).unwrap().parse().unwrap();
    let mut text = String::new();
    File::from(take(spec_fd)).read_to_string(&mut text).unwrap();
    let spec: VmSpec = serde_json::from_str(&text).unwrap();
    let mut console = File::from(take(spec.console_fd));
    console.seek(std::io::SeekFrom::End(0)).unwrap();
    writeln!(console, "pid {}", std::process::id()).unwrap();
    let outcome_fd = spec.outcome_fd;
    let listener = UnixListener::from(take(spec.control_fd));
    if spec.memory_mib == 35 {
        end(
            outcome_fd,
            &Outcome::StartFailed {
                message: "this machine cannot be built".to_owned(),
            },
        );
    }
    let boots = Arc::new(AtomicU64::new(1));
    if spec.memory_mib == 34 {
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            end(outcome_fd, &Outcome::GuestPowerOff);
        });
    }
    for client in listener.incoming() {
        let (client, spec, boots) = (client.unwrap(), spec.clone(), Arc::clone(&boots));
        std::thread::spawn(move || serve(client, &spec, &boots));
    }
}

fn serve(client: UnixStream, spec: &VmSpec, boots: &AtomicU64) {
    let mut writer = client.try_clone().unwrap();
    let mut say = move |message: Message| {
        let _ = writeln!(writer, "{}", serde_json::to_string(&message).unwrap());
    };
    for line in BufReader::new(client).lines() {
        let Ok(line) = line else { return };
        match serde_json::from_str(&line).unwrap() {
            Request::Status => say(Message::Reply(Reply::Status(Status {
                instance_id: spec.instance_id.clone(),
                state: VmState::Running,
                boots: boots.load(Ordering::SeqCst),
                first_entry_micros: 1000,
            }))),
            Request::PowerButton => {
                say(Message::Reply(Reply::Ok));
                if spec.memory_mib != 33 {
                    end(spec.outcome_fd, &Outcome::GuestPowerOff);
                }
            }
            Request::Reset => {
                let boots = boots.fetch_add(1, Ordering::SeqCst) + 1;
                say(Message::Reply(Reply::Ok));
                say(Message::Event(Event::Reset { boots }));
            }
            Request::Stop => {
                say(Message::Reply(Reply::Ok));
                end(spec.outcome_fd, &Outcome::Stopped);
            }
            #[allow(unreachable_patterns)] // The agent asks for nothing else.
            _ => panic!("{line}"),
        }
    }
}

fn end(outcome_fd: RawFd, outcome: &Outcome) -> ! {
    let mut file = File::from(take(outcome_fd));
    file.write_all(&serde_json::to_vec(outcome).unwrap()).unwrap();
    std::process::exit(0);
}
