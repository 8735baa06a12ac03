//! Which private, public and MAC addresses are free. The unique indexes of the interfaces are the truth.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::state::{NetworkInterface, State, address_key, hex};

/// The addresses of a subnet that instances may have: without the network, the router, DNS, the one for future use
/// and the broadcast address, which EC2 reserves.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html>
pub fn usable(subnet: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(subnet.network());
    let last = u32::from(subnet.broadcast());
    (first.saturating_add(4)..last).map(Ipv4Addr::from)
}

/// The addresses of the public pool: without the network, the hosts' own end and the last one.
pub fn pool_addresses(pool: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(pool.network());
    let last = u32::from(pool.broadcast());
    (first.saturating_add(2)..last).map(Ipv4Addr::from)
}

/// The lowest free private addresses of a subnet, at most `max`.
pub fn free_in(state: &State, subnet_id: &str, cidr: Ipv4Net, max: usize) -> Vec<Ipv4Addr> {
    let taken = state
        .from(
            &NetworkInterface::BY_ADDRESS,
            &address_key(subnet_id, Ipv4Addr::UNSPECIFIED),
        )
        .map(|(_, interface)| interface)
        .take_while(|interface| interface.subnet_id == subnet_id)
        .map(|interface| interface.private_ip);
    gaps(usable(cidr), taken).take(max).collect()
}

/// Whether an interface has this private address.
pub fn is_taken(state: &State, subnet_id: &str, address: Ipv4Addr) -> bool {
    state.any_by(&NetworkInterface::BY_ADDRESS, &address_key(subnet_id, address))
}

/// The lowest free public addresses, at most `max`.
pub fn free_public(state: &State, pool: Ipv4Net, max: usize) -> Vec<Ipv4Addr> {
    let taken = state
        .from(&NetworkInterface::BY_PUBLIC, &hex(pool.network()))
        .filter_map(|(_, interface)| interface.public_ip);
    gaps(pool_addresses(pool), taken).take(max).collect()
}

/// A MAC address that no interface has: locally administered, the rest random.
pub fn new_mac(state: &State) -> String {
    loop {
        let [a, b, d, e, f]: [u8; 5] = rand::random();
        let mac = format!("02:{a:02x}:{b:02x}:{d:02x}:{e:02x}:{f:02x}");
        if !state.any_by(&NetworkInterface::BY_MAC, &mac) {
            return mac;
        }
    }
}

/// What of `all` is not in `taken`. Both ascend.
fn gaps(
    all: impl Iterator<Item = Ipv4Addr>,
    taken: impl Iterator<Item = Ipv4Addr>,
) -> impl Iterator<Item = Ipv4Addr> {
    let mut taken = taken.peekable();
    all.filter(move |address| {
        while taken.next_if(|taken| taken < address).is_some() {}
        taken.peek() != Some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ec2_reserves_five_addresses() {
        let subnet: Ipv4Net = "172.31.16.0/28".parse().unwrap();
        let all: Vec<_> = usable(subnet).collect();
        assert_eq!(all.len(), 11);
        assert_eq!(all[0], Ipv4Addr::new(172, 31, 16, 4));
        assert_eq!(all[10], Ipv4Addr::new(172, 31, 16, 14));
    }

    #[test]
    fn the_pool_keeps_the_hosts_end_back() {
        let pool: Ipv4Net = "198.18.0.0/24".parse().unwrap();
        assert_eq!(pool_addresses(pool).next(), Some(Ipv4Addr::new(198, 18, 0, 2)));
        assert_eq!(pool_addresses(pool).last(), Some(Ipv4Addr::new(198, 18, 0, 254)));
    }

    #[test]
    fn tiny_networks_have_none() {
        assert_eq!(usable("10.0.0.0/31".parse().unwrap()).count(), 0);
        assert_eq!(pool_addresses("255.255.255.255/32".parse().unwrap()).count(), 0);
    }

    #[test]
    fn gaps_are_what_is_not_taken() {
        let address = |n: u8| Ipv4Addr::new(10, 0, 0, n);
        let taken = [0, 2, 5, 6, 9].map(address).into_iter();
        let free: Vec<_> = gaps((1..8).map(address), taken).collect();
        assert_eq!(free, [1, 3, 4, 7].map(address));
    }
}
