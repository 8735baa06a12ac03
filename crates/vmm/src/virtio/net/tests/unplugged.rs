//! A restored driver's interface, which is not there any more.

use super::features::command;
use super::*;
use crate::pci::PciFunction as _;
use crate::virtio::net::Unplugged;
use crate::virtio::pci::SavedDevice;

fn interface(queues: usize, config: NetConfig, offloads: u32) -> Net {
    let taps = (0..queues).map(|_| Tap::on(wire().0, offloads));
    Net::on(taps.collect(), config)
}

fn usual() -> Net {
    interface(2, CONFIG, OFFLOADS)
}

/// What is saved of an interface with two queues, whose driver did as `drive` does.
fn saved(drive: impl FnOnce(&mut Driver)) -> SavedDevice {
    let mut driver = Driver::probe(usual());
    drive(&mut driver);
    driver.function.pause();
    SavedDevice::read(&driver.function.save().unwrap()).unwrap()
}

fn driven() -> SavedDevice {
    saved(|driver| driver.initialise(PLAIN | MULTI_QUEUE | CSUM, 16))
}

fn is_news(here: &Net, saved: &SavedDevice) -> bool {
    Unplugged::instead_of(here, saved).unwrap().is_some()
}

#[test]
fn a_driver_goes_on_with_the_like_of_what_it_has_read() {
    let driven = driven();
    let mut mac = CONFIG;
    mac.mac[5] ^= 1;
    let mtu = NetConfig { mtu: 9000, ..CONFIG };
    assert!(!is_news(&usual(), &driven));
    assert!(is_news(&interface(2, mac, OFFLOADS), &driven));
    assert!(is_news(&interface(2, mtu, OFFLOADS), &driven));
    assert!(is_news(&interface(1, CONFIG, OFFLOADS), &driven));
    assert!(
        is_news(&interface(2, CONFIG, 0), &driven),
        "it can do less than was accepted"
    );

    let untouched = saved(|_| {});
    assert!(!is_news(&interface(2, mac, 0), &untouched));
    assert!(!is_news(&interface(2, mtu, OFFLOADS), &untouched));
    assert!(is_news(&interface(1, CONFIG, OFFLOADS), &untouched));
}

#[test]
fn its_link_is_down_and_only_the_control_queue_answers() {
    let other = NetConfig { mtu: 9000, ..CONFIG };
    let unplugged = Unplugged::instead_of(&interface(2, other, OFFLOADS), &driven());
    let mut driver = Driver::probe(unplugged.unwrap().unwrap());
    driver.initialise(PLAIN | MULTI_QUEUE | CSUM, 16);
    let mut config = driver.device_config(12);
    assert_eq!(config[..6], MAC);
    assert_eq!(config[6..8], [0, 0], "status");
    let ring = driver.ring(TX);
    ring.chain(0, &[(DATA, 100, false)]);
    ring.offer(0);
    ring.kick(&driver);
    assert_eq!(command(&driver, 4, &[4, 0, 2, 0]), 0);
    assert_eq!(command(&driver, 4, &[4, 0, 3, 0]), 1);
    assert_eq!(driver.ring(TX).used_index(), 0);

    // A snapshot of it is one of the interface that its driver knows.
    driver.function.pause();
    let again = SavedDevice::read(&driver.function.save().unwrap()).unwrap();
    assert!(!is_news(&usual(), &again));
    assert!(is_news(&interface(2, other, OFFLOADS), &again));
    // A reset goes to what it stood in for, or to nobody: its driver never sees a link.
    driver.initialise(PLAIN, 16);
    config = driver.device_config(12);
    assert_eq!(config[6..8], [0, 0], "status");
}

#[test]
fn a_strangers_state_has_as_many_queues_as_there_can_be() {
    let mut nonsense = driven();
    for at in 0..nonsense.state.as_bytes().len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = driven().state.into_bytes();
            bytes[at] = value;
            nonsense.state = bytes.into();
            if let Ok(Some(unplugged)) = Unplugged::instead_of(&usual(), &nonsense) {
                let _ = Driver::probe(unplugged);
            }
        }
    }
}
