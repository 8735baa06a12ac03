//! The virtio socket device: streams between programs of guest and host. Virtio 1.2, section 5.10.
//!
//! On the host it shows as Unix sockets, as with Firecracker and Cloud Hypervisor. A host program connects to the
//! device's listening socket, says `CONNECT <port>` and a line feed, and reads `OK <host port>` and a line feed
//! once a program in the guest has accepted. A guest that connects to port `P` of the host (context id 2) reaches
//! whoever listens on the socket named like the device's, with `_P` behind it.
//!
//! The guest cannot make us hold more than a fixed amount: connections are counted, each has a buffer of the size of
//! the [`credit`] that the guest gets for it, and who sends more than that is reset. The host end's hurry or
//! laziness is felt by its own connection alone.

mod connection;
mod credit;
mod device;
mod mux;
mod packet;
mod worker;

pub use device::Vsock;

#[cfg(test)]
mod tests;
