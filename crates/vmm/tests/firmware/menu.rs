//! A boot loader's menu over the serial console.

use std::io::Write;

use super::harness::Linux;
use super::{PATIENCE, entry, firmware};

const DOWN: &[u8] = b"\x1b[B";
const ENTER: &[u8] = b"\r";

#[test]
fn a_grub_menu_boots_its_default_or_what_is_chosen_on_the_console() {
    let Some(files) = firmware("grub_menu") else {
        return;
    };
    let mut linux = Linux::on(files.boot("grub.raw"));
    linux.wait_for_shell();
    assert_eq!(entry(&mut linux), "one");

    let guest = files.boot("grub.raw");
    // The console's first connection is the one that types.
    let mut keys = guest.connect_console();
    guest.wait_for_console("entry two", PATIENCE);
    keys.write_all(DOWN).unwrap();
    guest.wait_for_console("*entry two", PATIENCE);
    keys.write_all(ENTER).unwrap();
    drop(keys);
    let mut linux = Linux::on(guest);
    linux.wait_for_shell();
    assert_eq!(entry(&mut linux), "two");
}
