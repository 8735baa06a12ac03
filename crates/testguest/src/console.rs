//! Lines on the first serial port.

use core::fmt::{self, Write};

use crate::cpu;

const COM1: u16 = 0x3f8;

/// Text of bounded length; what does not fit is cut off.
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    pub const fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    pub fn format(arguments: fmt::Arguments<'_>) -> Self {
        let mut text = Self::new();
        let _ = text.write_fmt(arguments);
        text
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            *self.bytes.get_mut(self.len).ok_or(fmt::Error)? = byte;
            self.len += 1;
        }
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(self.bytes()).unwrap_or("?"))
    }
}

/// A line at a time: each write to a port leaves the guest.
pub fn print_line(arguments: fmt::Arguments<'_>) {
    let line: Text<511> = Text::format(arguments);
    let mut bytes = [0; 512];
    bytes[..line.len].copy_from_slice(line.bytes());
    bytes[line.len] = b'\n';
    cpu::port_write(COM1, &bytes[..=line.len]);
}

#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => { $crate::console::print_line(format_args!($($arguments)*)) };
}
