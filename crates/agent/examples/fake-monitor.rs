//! A monitor without a machine, for the agent's tests: it takes the same descriptors, speaks the same control
//! protocol and ends the same ways.
//!
//! The "guest" obeys the power button at once, unless its memory is 33 MiB: then it is deaf. With 34 MiB it
//! powers itself off after the first entry; with 35 MiB it cannot be started. With 36 to 38 MiB the monitor is an
//! enemy's: it speaks without end, leaves an outcome without end, or one with very many words. With 39 MiB the root disk's
//! loader is one that only firmware can run.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hearth_vmm::control::{Event, Message, Reply, Request, Status, VmState};
use hearth_vmm::spec::{BootSpec, Outcome, VmSpec};

fn take(fd: RawFd) -> OwnedFd {
    // SAFETY: the agent gave this descriptor for this purpose, and it is taken once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn main() {
    let spec_fd = std::env::args().nth(2).unwrap().parse().unwrap();
    let mut text = String::new();
    File::from(take(spec_fd)).read_to_string(&mut text).unwrap();
    let spec: VmSpec = serde_json::from_str(&text).unwrap();
    // Into the monitor's log.
    eprintln!("boots {:?}", spec.boot);
    let disks: Vec<&str> = spec.disks.iter().map(|disk| disk.id.as_str()).collect();
    let nics: Vec<&str> = spec.nics.iter().map(|nic| nic.id.as_str()).collect();
    eprintln!("has {} and {}", disks.join(" "), nics.join(" "));
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
    if spec.memory_mib == 37 {
        // As a disk-filling monitor would: more than anyone could read.
        let outcome = File::from(take(outcome_fd));
        outcome.set_len(1 << 40).unwrap();
        std::process::exit(0);
    }
    if spec.memory_mib == 38 {
        end(
            outcome_fd,
            &Outcome::Crashed {
                message: "words ".repeat(10_000),
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
        if spec.memory_mib == 36 {
            let heard = babble(client, &spec);
            writeln!(console, "heard {heard} bytes").unwrap();
            continue;
        }
        std::thread::spawn(move || serve(client, &spec, &boots));
    }
}

/// Direct roads are certain here but with 39 MiB.
fn goes_by_firmware(spec: &VmSpec) -> bool {
    match spec.boot {
        BootSpec::Firmware { .. } => true,
        BootSpec::Automatic { .. } => spec.memory_mib == 39,
        _ => false,
    }
}

fn status(spec: &VmSpec, boots: u64) -> Message {
    Message::Reply(Reply::Status(Status {
        instance_id: spec.instance_id.clone(),
        state: VmState::Running,
        boots,
        first_entry_micros: 1000,
        by_firmware: Some(goes_by_firmware(spec)),
    }))
}

/// Says that all is well, and then a line without end; how much of it was heard.
fn babble(mut client: UnixStream, spec: &VmSpec) -> u64 {
    static CHUNK: [u8; 64 << 10] = [b' '; 64 << 10];
    let mut heard = 0;
    let mut said = writeln!(client, "{}", serde_json::to_string(&status(spec, 1)).unwrap());
    while said.is_ok() {
        said = client.write_all(&CHUNK);
        heard += CHUNK.len() as u64;
    }
    heard
}

fn serve(client: UnixStream, spec: &VmSpec, boots: &AtomicU64) {
    let mut writer = client.try_clone().unwrap();
    let mut say = move |message: Message| {
        let _ = writeln!(writer, "{}", serde_json::to_string(&message).unwrap());
    };
    for line in BufReader::new(client).lines() {
        let Ok(line) = line else { return };
        match serde_json::from_str(&line).unwrap() {
            Request::Status => say(status(spec, boots.load(Ordering::SeqCst))),
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
