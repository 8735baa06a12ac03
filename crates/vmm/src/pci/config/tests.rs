use proptest::prelude::*;

use super::*;

fn space() -> ConfigSpace {
    let mut space = ConfigSpace::new(0x1af4, 0x1042, 1, 0x01_00_00, 0x1af4, 0x1042);
    space.add_bar64(0, 0x1000);
    space.add_bar64(2, 0x8000);
    space.set_bar_address(0, 0x10_0000_0000);
    space.set_bar_address(2, 0x10_0001_0000);
    space
}

fn read32(space: &ConfigSpace, offset: u16) -> u32 {
    let mut data = [0; 4];
    space.read(offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn header_says_who_it_is() {
    let space = space();
    assert_eq!(read32(&space, 0), 0x1042_1af4);
    assert_eq!(read32(&space, 8), 0x0100_0001);
    assert_eq!(read32(&space, 0x2c), 0x1042_1af4);
    assert_eq!(read32(&space, 0x100), 0);
}

#[test]
fn sizing_a_bar_reads_back_its_size_and_restores() {
    let mut space = space();
    assert_eq!(space.write(0x18, &[0xff; 4]), Decoding::Same);
    assert_eq!(space.write(0x1c, &[0xff; 4]), Decoding::Same);
    assert_eq!(read32(&space, 0x18), 0xffff_8004);
    assert_eq!(read32(&space, 0x1c), 0xffff_ffff);
    space.write(0x18, &0x0001_0000_u32.to_le_bytes());
    space.write(0x1c, &0x10_u32.to_le_bytes());
    space.write(COMMAND as u16, &[2, 0]);
    assert_eq!(space.bars()[1].address, 0x10_0001_0000);
}

#[test]
fn decoding_follows_the_command_register_and_moves() {
    let mut space = space();
    assert!(space.bars().is_empty());
    assert_eq!(space.write(COMMAND as u16, &[2, 0]), Decoding::Changed);
    assert_eq!(space.write(COMMAND as u16, &[6, 4]), Decoding::Same);
    assert!(space.is_bus_master());
    assert_eq!(space.bars().len(), 2);
    assert_eq!(
        space.write(0x10, &0x0020_0000_u32.to_le_bytes()),
        Decoding::Changed
    );
    assert_eq!(space.bars()[0].address, 0x10_0020_0000);
    space.reset();
    assert!(space.bars().is_empty());
    space.write(COMMAND as u16, &[2, 0]);
    assert_eq!(space.bars()[0].address, 0x10_0000_0000);
}

#[test]
fn capabilities_form_a_list() {
    let mut space = space();
    let first = space.add_capability(0x09, &[14, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let second = space.add_capability(0x11, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    space.set_writable(second + 2, &[0x00, 0xc0]);
    assert_eq!(read32(&space, 0x34) as u16, first);
    assert_eq!(read32(&space, 4) >> 16 & 0x10, 0x10);
    assert_eq!(read32(&space, first) as u16, second << 8 | 0x09);
    space.write(second, &[0xff; 4]);
    assert_eq!(read32(&space, second), 0xc001_0011);
}

proptest! {
    /// Whatever a guest writes: ids and read-only bits stay, BARs stay aligned, nothing panics.
    #[test]
    fn no_write_breaks_the_space(writes in prop::collection::vec(
        (0_u16..4096, prop::collection::vec(any::<u8>(), 1..=4)), 0..200)) {
        let mut space = space();
        for (offset, data) in writes {
            let before = space.bars();
            let decoding = space.write(offset, &data);
            prop_assert_eq!(decoding == Decoding::Changed, before != space.bars());
            prop_assert_eq!(read32(&space, 0), 0x1042_1af4);
            for bar in space.bars() {
                prop_assert!(bar.address.is_multiple_of(bar.size));
            }
        }
    }
}
