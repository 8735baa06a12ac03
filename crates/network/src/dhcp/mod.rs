//! DHCP (RFC 2131) for one interface that always gets the same address.

mod answer;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
mod request;
mod server;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

pub(crate) use server::{open_socket, serve};

/// Renewed at half of it.
const LEASE_SECONDS: u32 = 3600;

/// All that an interface is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) mac: [u8; 6],
    pub(crate) address: Ipv4Addr,
    pub(crate) subnet: Ipv4Net,
    /// Also the server's identifier.
    pub(crate) router: Ipv4Addr,
    pub(crate) dns: Ipv4Addr,
    pub(crate) hostname: String,
    pub(crate) domain: String,
    pub(crate) mtu: u16,
}

#[cfg(test)]
mod tests;
