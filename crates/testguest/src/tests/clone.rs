//! What a guest finds that was saved and goes on in another machine: the host makes a snapshot when the console tells
//! it to, and restores it with a NIC that has another address.

use super::hotplug::{ARRIVED, LEAVING, eject, wait_for_slot};
use super::net;
use crate::pci::Function;
use crate::report::Outcome;
use crate::virtio::{Device, NET, feature};
use crate::{Machine, ensure, println, same};

pub fn gets_a_nic_of_its_own(machine: &Machine) -> Outcome {
    let Some(old) = machine.device(NET, 0) else {
        ensure!(false, "no NIC");
        return Ok(());
    };
    let [_rx, _tx] = old.start(!feature::EVENT_IDX, 16)?;
    let mac = net::mac(&old);
    ensure!(net::link_is_up(&old), "the link is down before the snapshot");
    println!("clone: save");
    let slot = wait_for_slot(LEAVING)?;
    same!(net::mac(&old), mac, "the address of what the driver has");
    ensure!(!net::link_is_up(&old), "the link is up in the clone");
    old.reset()?;
    eject(slot);
    same!(wait_for_slot(ARRIVED)?, slot, "the slot of the NIC that comes");
    let Some(new) = Device::probe(Function::at(machine.tables.ecam, slot)) else {
        ensure!(false, "no virtio device in slot {slot}");
        return Ok(());
    };
    same!(new.kind, NET, "its kind");
    println!("clone: {:02x?}", net::mac(&new));
    ensure!(net::link_is_up(&new), "the link is down in the clone");
    net::works(&new)
}
