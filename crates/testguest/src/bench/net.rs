//! Streams and answers over TCP: the host's is the kernel's, ours is a small one ([`tcp`](super::tcp)).
//!
//! `bench=net segments=1 wait=poll` serves one connection after the other, at the ports of the services discard (9),
//! echo (7) and character generator (19), and says what each has moved when it ends. `wait=interrupt` sleeps when nothing comes.

use super::tcp::Connection;
use crate::memory::allocate;
use crate::report::{End, Outcome};
use crate::virtio::net::Nic;
use crate::virtio::{self, PATIENCE};
use crate::{Machine, cpu, println};

/// Packets after which the peer hears from us though more are there.
const BATCH: usize = 64;
/// The longest IP packet.
const DATA: u64 = 1 << 16;

/// Serves for ever.
pub fn serve(machine: &Machine) -> Outcome {
    let Some(device) = machine.device(virtio::NET, 0) else {
        return Err(End::Absent("no network interface"));
    };
    let sleep = machine.boot.option("wait=") == Some("interrupt");
    let mut nic = Nic::start(&device, machine.boot.option("segments=") != Some("0"), sleep)?;
    let data = allocate(DATA);
    println!("bench net: ready");
    loop {
        let mut connection = accept(&mut nic);
        converse(&mut nic, &mut connection, data, sleep);
        let counts = connection.counts;
        println!(
            "bench net: {} bytes in {} packets received, {} bytes in {} packets sent, {} times again",
            counts.received, counts.packets_received, counts.sent, counts.packets_sent, counts.repeated
        );
    }
}

fn accept(nic: &mut Nic) -> Connection {
    loop {
        if let Some(packet) = nic.receive() {
            let connection = Connection::accept(&packet);
            nic.release();
            nic.kick();
            if let Some(connection) = connection {
                return connection;
            }
        }
    }
}

fn converse(nic: &mut Nic, connection: &mut Connection, data: u64, sleep: bool) {
    while !connection.closed {
        for _ in 0..BATCH {
            let Some(packet) = nic.receive() else { break };
            connection.input(&packet);
            nic.release();
        }
        connection.output(nic, data);
        nic.kick();
        if sleep && !connection.is_due() {
            cpu::wait_for(PATIENCE, || nic.has_received());
        }
    }
}
