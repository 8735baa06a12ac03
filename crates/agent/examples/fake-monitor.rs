//! A monitor without a machine, for the agent's tests: it takes the same descriptors, speaks the same control
//! protocol and ends the same ways.
//!
//! The "guest" obeys the power button at once, unless its memory is 33 MiB: then it is deaf. With 34 MiB it
//! powers itself off after the first entry; with 35 MiB it cannot be started. With 36 to 38 MiB the monitor is an
//! enemy's: it speaks without end, leaves an outcome without end, or one with very many words. With 39 MiB the root disk's
//! loader is one that only firmware can run.
//!
//! Disks come and go as they would: they are open as long as they are attached. The deaf guest does not let them go. The guest
//! writes what a test puts into a file `pen` beside a disk's data: `OFFSET LENGTH BYTE` in each line, `flush`, or `freed` and
//! the range. It removes the file when that is done.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hearth_block::{Base, Cipher, Disk as _, Freeze, Key, Overlay};
use hearth_vmm::control::{self, DeviceStatus, DiskStatus, Event, Message, Reply, Request, Status, VmState};
use hearth_vmm::limits::RateLimit;
use hearth_vmm::spec::{BootSpec, DiskBacking, DiskSpec, Outcome, VmSpec};

/// What requests change.
struct Machine {
    boots: u64,
    disks: Vec<Disk>,
}

struct Disk {
    id: String,
    leaving: bool,
    rate_limit: RateLimit,
    overlay: Overlay,
    pen: PathBuf,
}

impl Disk {
    /// `take` hands out the descriptors that the spec names.
    fn open(spec: DiskSpec, mut take: impl FnMut(RawFd) -> OwnedFd) -> Disk {
        let DiskBacking::Overlay {
            data_fd,
            map_fd,
            base_fd,
            coming: _,
            dirty_fd,
            key,
            base_key,
            frozen,
        } = spec.backing
        else {
            panic!("{:?}", spec.backing)
        };
        let mut file = |fd| File::from(take(fd));
        let data = file(data_fd);
        let path = std::fs::read_link(format!("/proc/self/fd/{}", data.as_raw_fd())).unwrap();
        let mut base = base_fd.map(|fd| Base::whole(file(fd)));
        if let Some(key) = base_key {
            base = base.map(|base| base.encrypted(cipher(file(key.pipe_fd))));
        }
        let mut overlay = Overlay::over(data, file(map_fd), base).unwrap();
        if let Some(key) = key {
            overlay = overlay.encrypted(cipher(file(key.pipe_fd)));
        }
        let dirty = Box::new(file(dirty_fd.unwrap()));
        let frozen = frozen.map(|frozen| (frozen.name, Box::new(file(frozen.fd)) as _));
        let overlay = overlay.tracked(dirty, frozen).unwrap();
        overlay.refresh_size().unwrap();
        Disk {
            id: spec.id,
            leaving: false,
            rate_limit: spec.rate_limit,
            overlay,
            pen: path.with_file_name("pen"),
        }
    }

    /// Writes what the test wants to be written.
    fn write(&self) {
        let Ok(text) = std::fs::read_to_string(&self.pen) else {
            return;
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |word: &str| word.parse::<u64>().unwrap();
            match words.as_slice() {
                ["flush"] => self.overlay.flush(),
                ["freed", offset, len] => self.overlay.discard(number(offset), number(len)),
                [offset, len, byte] => {
                    let content = vec![number(byte) as u8; number(len) as usize];
                    self.overlay.write_at(&content, number(offset))
                }
                _ => panic!("{line:?}"),
            }
            .unwrap();
        }
        std::fs::remove_file(&self.pen).unwrap();
    }

    fn status(&self) -> DeviceStatus {
        DeviceStatus {
            device: self.id.clone(),
            kind: "block".to_owned(),
            slot: 1,
            leaving: self.leaving,
            replacing: false,
            disk: Some(DiskStatus {
                size_bytes: self.overlay.size(),
                rate_limit: self.rate_limit,
            }),
        }
    }
}

/// Of the key that a pipe holds.
fn cipher(mut pipe: File) -> Arc<Cipher> {
    let mut key = Vec::new();
    pipe.read_to_end(&mut key).unwrap();
    Arc::new(Cipher::new(&Key::new(&key).unwrap()).unwrap())
}

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
    let is_volume = |disk: &&DiskSpec| matches!(disk.backing, DiskBacking::Overlay { .. });
    let volumes = spec.disks.iter().filter(is_volume);
    let disks = volumes.cloned().map(|disk| Disk::open(disk, take));
    let machine = Arc::new(Mutex::new(Machine {
        boots: 1,
        disks: disks.collect(),
    }));
    if spec.memory_mib == 34 {
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            end(outcome_fd, &Outcome::GuestPowerOff);
        });
    }
    let guest = Arc::clone(&machine);
    std::thread::spawn(move || {
        loop {
            guest.lock().unwrap().disks.iter().for_each(Disk::write);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    for client in listener.incoming() {
        let (client, spec, machine) = (client.unwrap(), spec.clone(), Arc::clone(&machine));
        if spec.memory_mib == 36 {
            let heard = babble(client, &spec);
            writeln!(console, "heard {heard} bytes").unwrap();
            continue;
        }
        std::thread::spawn(move || serve(&client, &spec, &machine));
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

fn serve(client: &UnixStream, spec: &VmSpec, machine: &Mutex<Machine>) {
    let (mut input, mut descriptors, mut chunk) = (Vec::new(), Vec::new(), [0; 4096]);
    loop {
        match control::receive(client, &mut chunk, &mut descriptors) {
            Ok(len @ 1..) => input.extend_from_slice(&chunk[..len]),
            _ => return,
        }
        while let Some(end) = input.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = input.drain(..=end).collect();
            let request = serde_json::from_slice(&line).unwrap();
            // They came with the last line that was read.
            let brought = match input.is_empty() {
                true => std::mem::take(&mut descriptors),
                false => Vec::new(),
            };
            answer(request, brought, client, spec, machine);
        }
    }
}

fn answer(
    request: Request,
    descriptors: Vec<OwnedFd>,
    mut client: &UnixStream,
    spec: &VmSpec,
    machine: &Mutex<Machine>,
) {
    let mut say = |message: Message| {
        let _ = writeln!(client, "{}", serde_json::to_string(&message).unwrap());
    };
    let mut machine = machine.lock().unwrap();
    eprintln!("asked {request:?}");
    match request {
        Request::Status => say(status(spec, machine.boots)),
        Request::PowerButton => {
            say(Message::Reply(Reply::Ok));
            if spec.memory_mib != 33 {
                end(spec.outcome_fd, &Outcome::GuestPowerOff);
            }
        }
        Request::Reset => {
            machine.boots += 1;
            let boots = machine.boots;
            say(Message::Reply(Reply::Ok));
            say(Message::Event(Event::Reset { boots }));
        }
        Request::Stop => {
            say(Message::Reply(Reply::Ok));
            end(spec.outcome_fd, &Outcome::Stopped);
        }
        Request::Devices => {
            let disks = machine.disks.iter().map(Disk::status).collect();
            say(Message::Reply(Reply::Devices(disks)));
        }
        Request::AttachDisk(disk) => {
            assert!(machine.disks.iter().all(|known| known.id != disk.id), "{disk:?}");
            let mut descriptors: Vec<_> = descriptors.into_iter().map(Some).collect();
            let disk = Disk::open(disk, |fd| descriptors[fd as usize].take().unwrap());
            machine.disks.push(disk);
            say(Message::Reply(Reply::Ok));
        }
        Request::Detach { device, force } => {
            let at = machine.disks.iter().position(|disk| disk.id == device).unwrap();
            machine.disks[at].leaving = true;
            say(Message::Reply(Reply::Ok));
            if force || spec.memory_mib != 33 {
                machine.disks.remove(at);
                say(Message::Event(Event::DeviceDetached { device }));
            }
        }
        Request::Resize { device } => {
            let mut disks = machine.disks.iter();
            let disk = disks.find(|disk| disk.id == device).unwrap();
            let bytes = disk.overlay.refresh_size().unwrap();
            say(Message::Reply(Reply::Resized { bytes }));
        }
        Request::Freeze(disks) => {
            let mut descriptors: Vec<_> = descriptors.into_iter().map(Some).collect();
            let mut file = |fd: RawFd| Box::new(File::from(descriptors[fd as usize].take().unwrap()));
            for spec in disks {
                let freeze = Freeze {
                    name: spec.name,
                    frozen: file(spec.frozen),
                    dirty: file(spec.dirty),
                };
                let disk = machine.disks.iter().find(|disk| disk.id == spec.device);
                let Some(disk) = disk else {
                    let message = format!("no device {:?} is attached", spec.device);
                    return say(Message::Reply(Reply::Error { message }));
                };
                disk.overlay.freeze(freeze).unwrap();
            }
            say(Message::Reply(Reply::Frozen { paused_micros: 1 }));
        }
        Request::Thaw { device, name } => {
            let disk = machine.disks.iter().find(|disk| disk.id == device);
            let Some(disk) = disk else {
                let message = format!("no device {device:?} is attached");
                return say(Message::Reply(Reply::Error { message }));
            };
            disk.overlay.thaw(&name);
            say(Message::Reply(Reply::Ok));
        }
        Request::SetRateLimit { device, limit } => {
            let mut disks = machine.disks.iter_mut();
            disks.find(|disk| disk.id == device).unwrap().rate_limit = limit;
            say(Message::Reply(Reply::Ok));
        }
        // The agent asks for nothing else.
        request => panic!("{request:?}"),
    }
}

fn end(outcome_fd: RawFd, outcome: &Outcome) -> ! {
    let mut file = File::from(take(outcome_fd));
    file.write_all(&serde_json::to_vec(outcome).unwrap()).unwrap();
    std::process::exit(0);
}
