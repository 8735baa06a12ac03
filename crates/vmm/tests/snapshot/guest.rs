//! A guest of a few instructions that counts for ever: it prints one letter for each number, keeps the count in a
//! register and in memory, and says `!` if the two differ. It writes to a page in 256 in turn.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use hearth_vmm::boot::Source;
use hearth_vmm::console::Line;
use hearth_vmm::devices::Devices;
use hearth_vmm::machine::{BuildError, Machine, Plan};
use hearth_vmm::memory::HugePages;
use hearth_vmm::snapshot::Restore;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Pages that it writes to, from 4 MiB on.
pub const PAGES: u64 = 256;
const LOAD_ADDRESS: u64 = 0x10_0000;
const PATIENCE: Duration = Duration::from_secs(60);

#[rustfmt::skip]
const PROGRAM: &[u8] = &[
    0x31, 0xdb,                               //       xor ebx, ebx
    0x8b, 0x04, 0x25, 0x00, 0x00, 0x30, 0x00, // next: mov eax, [0x300000]
    0x39, 0xd8,                               //       cmp eax, ebx
    0x75, 0x39,                               //       jne wrong
    0x31, 0xd2,                               //       xor edx, edx
    0xb9, 0x1a, 0x00, 0x00, 0x00,             //       mov ecx, 26
    0xf7, 0xf1,                               //       div ecx
    0x8d, 0x42, 0x61,                         //       lea eax, [rdx + 'a']
    0x66, 0xba, 0xf8, 0x03,                   //       mov dx, 0x3f8
    0xee,                                     //       out dx, al
    0x89, 0xd8,                               //       mov eax, ebx
    0x25, 0xff, 0x00, 0x00, 0x00,             //       and eax, 255
    0xc1, 0xe0, 0x0c,                         //       shl eax, 12
    0x89, 0x98, 0x00, 0x00, 0x40, 0x00,       //       mov [rax + 0x400000], ebx
    0xff, 0xc3,                               //       inc ebx
    0x89, 0x1c, 0x25, 0x00, 0x00, 0x30, 0x00, //       mov [0x300000], ebx
    0xb9, 0x00, 0x02, 0x00, 0x00,             //       mov ecx, 512
    0xff, 0xc9,                               // wait: dec ecx
    0x75, 0xfc,                               //       jnz wait
    0xeb, 0xc0,                               //       jmp next
    0x90, 0x90, 0x90, 0x90,
    0xb0, 0x21,                               // wrong: mov al, '!'
    0x66, 0xba, 0xf8, 0x03,                   //       mov dx, 0x3f8
    0xee,                                     //       out dx, al
    0xeb, 0xf7,                               //       jmp wrong
];

/// What the guest has printed.
#[derive(Clone)]
pub struct Console(Arc<Shared>);

struct Shared {
    line: Line,
    text: Mutex<Vec<u8>>,
    changed: Condvar,
}

impl Console {
    fn new() -> Self {
        let console = Self(Arc::new(Shared {
            line: Line::new().unwrap(),
            text: Mutex::default(),
            changed: Condvar::new(),
        }));
        let listener = console.clone();
        let bell = Epoll::new().unwrap();
        let any = EpollEvent::new(EventSet::IN, 0);
        bell.ctl(ControlOperation::Add, listener.0.line.as_raw_fd(), any)
            .unwrap();
        std::thread::spawn(move || {
            while bell.wait(-1, &mut [any]).is_ok() {
                listener.0.line.quiet();
                while listener.0.line.await_output() {
                    drop(listener.take());
                }
            }
        });
        console
    }

    /// All that was printed until now.
    fn take(&self) -> MutexGuard<'_, Vec<u8>> {
        let mut text = self.0.text.lock().unwrap();
        let mut new = VecDeque::new();
        assert_eq!(self.0.line.take(&mut new), 0, "nobody looked for too long");
        text.extend(new);
        self.0.changed.notify_all();
        text
    }

    pub fn len(&self) -> usize {
        self.take().len()
    }

    pub fn text(&self) -> Vec<u8> {
        self.take().clone()
    }

    /// Waits until there are `more` letters than `seen`.
    pub fn wait_for(&self, more: usize, seen: usize) {
        let few = |text: &mut Vec<u8>| text.len() < seen + more;
        let changed = &self.0.changed;
        let (text, timeout) = changed.wait_timeout_while(self.take(), PATIENCE, few).unwrap();
        assert!(
            !timeout.timed_out(),
            "the guest prints nothing after {:?}",
            String::from_utf8_lossy(&text)
        );
    }

    /// Checks that it is the alphabet over and over, beginning where `before` ended.
    pub fn assert_counts_on_from(&self, before: usize) {
        let text = self.text();
        for (number, letter) in (before..).zip(&text) {
            let expected = b'a' + (number % 26) as u8;
            assert_eq!(
                *letter as char,
                expected as char,
                "number {number} in {:?}",
                String::from_utf8_lossy(&text)
            );
        }
    }
}

/// `None`, loudly, without KVM.
pub fn plan(test: &str, vcpus: u8) -> Option<Plan> {
    let Ok(kvm) = kvm_ioctls::Kvm::new() else {
        eprintln!("SKIPPED: {test}: absent: /dev/kvm");
        return None;
    };
    Some(Plan {
        kvm,
        instance_id: "i-0123456789abcdef0".into(),
        uuid: "ec2a1b2c-3d4e-4f60-8182-93a4b5c6d7e8".into(),
        vcpus,
        cpus: Vec::new(),
        cpu: Default::default(),
        memory_mib: 64,
        huge_pages: HugePages::default(),
        source: Source::Files {
            kernel: Arc::new(kernel()),
            initrd: None,
            cmdline: String::new(),
        },
        restore: None,
        devices: Devices::default(),
        hotplug: false,
        bases: Default::default(),
        metrics: Default::default(),
    })
}

pub fn kernel() -> File {
    let mut kernel = tempfile::tempfile().unwrap();
    kernel.write_all(&elf(PROGRAM)).unwrap();
    kernel
}

pub fn start(plan: &Plan) -> (Machine, Console) {
    let console = Console::new();
    let machine = Machine::start(plan, &console.0.line).unwrap();
    (machine, console)
}

pub fn restore(plan: &Plan, restore: &Restore) -> (Machine, Console) {
    let console = Console::new();
    (restore_onto(plan, &console, restore), console)
}

pub fn restore_onto(plan: &Plan, console: &Console, restore: &Restore) -> Machine {
    Machine::restore(plan, &console.0.line, restore).unwrap()
}

pub fn try_restore(plan: &Plan, restore: &Restore) -> Result<Machine, BuildError> {
    Machine::restore(plan, &Line::new().unwrap(), restore)
}

/// An ELF file with one segment, which begins with the entry.
fn elf(program: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |file: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    half(&mut file, &[2, 62]);
    file.extend(1_u32.to_le_bytes());
    for value in [LOAD_ADDRESS, 64, 0] {
        file.extend(value.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    half(&mut file, &[64, 56, 1, 0, 0, 0]);
    // PT_LOAD, readable, writable, executable.
    file.extend(1_u32.to_le_bytes());
    file.extend(7_u32.to_le_bytes());
    let len = program.len() as u64;
    for value in [HEADERS, LOAD_ADDRESS, LOAD_ADDRESS, len, len, 0x1000] {
        file.extend(value.to_le_bytes());
    }
    file.extend(program);
    file
}
