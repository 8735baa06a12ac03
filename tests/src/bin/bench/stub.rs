//! Guests of a few instructions, for what a monitor needs until guest code runs, and for snapshots.
//!
//! The code means the same in 32-bit mode (PVH, as Firecracker and QEMU enter it) and in 64-bit mode (as
//! hearth-vmm does), so all monitors run the same bytes.

/// Guest-physical address of the only segment, as Linux is linked.
const LOAD: u64 = 0x100_0000;
const PROGRAM_HEADERS: u64 = 2;
const CODE_OFFSET: u64 = 64 + PROGRAM_HEADERS * 56 + NOTE_SIZE;
const NOTE_SIZE: u64 = 12 + 4 + 8;
/// XEN_ELFNOTE_PHYS32_ENTRY: where PVH enters.
const PVH_ENTRY: u32 = 18;

/// Says `!` once.
#[rustfmt::skip]
pub const ONCE: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'!',             // mov al, '!'
    0xee,                   // out dx, al
    0xb0, b'\n',            // mov al, '\n'
    0xee,                   // out dx, al
    0xf4,                   // hlt
    0xeb, 0xfd,             // jmp to the hlt
];

/// Says `!` for ever, with short pauses.
#[rustfmt::skip]
pub const TICKER: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03,         // mov dx, 0x3f8
    0xb0, b'!',                     // again: mov al, '!'
    0xee,                           // out dx, al
    0xb9, 0x00, 0x08, 0x00, 0x00,   // mov ecx, 2048
    0xe2, 0xfe,                     // loop to itself
    0xeb, 0xf4,                     // jmp again
];

/// For ever writes to each page of 64 MiB, from 32 MiB on, and says `!`.
#[rustfmt::skip]
pub const DIRTIER: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03,             // mov dx, 0x3f8
    0xbf, 0x00, 0x00, 0x00, 0x02,       // again: mov edi, 32 MiB
    0xb9, 0x00, 0x40, 0x00, 0x00,       // mov ecx, 16384
    0xfe, 0xc0,                         // inc al
    0x88, 0x07,                         // page: mov [edi], al
    0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add edi, 4096
    0xe2, 0xf6,                         // loop page
    0xb0, b'!',                         // mov al, '!'
    0xee,                               // out dx, al
    0xeb, 0xe5,                         // jmp again
];

/// An ELF64 executable for x86-64 with one loadable segment, and a note that says where PVH enters.
pub fn elf(code: &[u8]) -> Vec<u8> {
    let size = CODE_OFFSET + code.len() as u64;
    let note_offset = CODE_OFFSET - NOTE_SIZE;
    let entry = LOAD + CODE_OFFSET;
    let mut elf = Vec::new();
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend(2u16.to_le_bytes()); // ET_EXEC
    elf.extend(62u16.to_le_bytes()); // EM_X86_64
    elf.extend(1u32.to_le_bytes());
    elf.extend(entry.to_le_bytes());
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend(0u64.to_le_bytes());
    elf.extend(0u32.to_le_bytes());
    for half in [64, 56, PROGRAM_HEADERS as u16, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes()); // PT_LOAD
    elf.extend(7u32.to_le_bytes());
    for word in [0, LOAD, LOAD, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(4u32.to_le_bytes()); // PT_NOTE
    elf.extend(4u32.to_le_bytes());
    let note = LOAD + note_offset;
    for word in [note_offset, note, note, NOTE_SIZE, NOTE_SIZE, 4] {
        elf.extend(word.to_le_bytes());
    }
    for word in [4, 8, PVH_ENTRY] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"Xen\0");
    elf.extend(entry.to_le_bytes());
    elf.extend(code);
    elf
}
