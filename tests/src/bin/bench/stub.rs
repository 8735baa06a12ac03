//! The smallest guest: an ELF whose first instructions write `!` to the serial port.
//!
//! What a monitor needs until this arrives is what it needs until its first vCPU is entered, plus one port
//! write; and it can be seen from outside, alike for every monitor.

/// Guest-physical address of the only segment, as Linux is linked.
const LOAD: u64 = 0x100_0000;
const HEADERS: usize = 64 + 56;

/// An ELF64 executable for x86-64 with one loadable segment.
pub fn elf() -> Vec<u8> {
    #[rustfmt::skip]
    let code: &[u8] = &[
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'!',             // mov al, '!'
        0xee,                   // out dx, al
        0xb0, b'\n',            // mov al, '\n'
        0xee,                   // out dx, al
        0xf4,                   // hlt
        0xeb, 0xfd,             // jmp to the hlt
    ];
    let size = (HEADERS + code.len()) as u64;
    let mut elf = Vec::with_capacity(HEADERS + code.len());
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend(2u16.to_le_bytes()); // ET_EXEC
    elf.extend(62u16.to_le_bytes()); // EM_X86_64
    elf.extend(1u32.to_le_bytes());
    elf.extend((LOAD + HEADERS as u64).to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend(0u64.to_le_bytes());
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes()); // PT_LOAD
    elf.extend(7u32.to_le_bytes());
    for word in [0u64, LOAD, LOAD, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}
