//! Which private, public and MAC addresses are free. The unique indexes of the interfaces are the truth.

use std::net::Ipv4Addr;
use std::ops::Range;

use ipnet::Ipv4Net;

use crate::state::{NetworkInterface, State, Subnet, address_key, block_key, hex};

/// The addresses of a subnet that instances may have: without the network, the router, DNS, the one for future use
/// and the broadcast address, which EC2 reserves.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html>
fn usable_range(subnet: Ipv4Net) -> Range<u32> {
    let first = u32::from(subnet.network());
    first.saturating_add(4)..u32::from(subnet.broadcast())
}

/// Whether instances may have the address in the subnet.
pub fn is_usable(subnet: Ipv4Net, address: Ipv4Addr) -> bool {
    usable_range(subnet).contains(&u32::from(address))
}

/// The addresses of the public pool: without the network, the hosts' own end and the last one.
fn pool_range(pool: Ipv4Net) -> Range<u32> {
    let first = u32::from(pool.network());
    first.saturating_add(2)..u32::from(pool.broadcast())
}

/// How many of a subnet's addresses no interface has.
pub fn free_count(state: &State, subnet: &Subnet) -> usize {
    let range = usable_range(subnet.cidr);
    let all = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    let [taken, _] = state.sum(&NetworkInterface::IN_SUBNET, &subnet.id);
    all.saturating_sub(usize::try_from(taken).unwrap_or(usize::MAX))
}

/// The lowest free private addresses of a subnet, at most `max`.
pub fn free_in(state: &State, subnet: &Subnet, max: usize) -> Vec<Ipv4Addr> {
    let within = &subnet.id;
    free(usable_range(subnet.cidr), max, |first| {
        let [taken, _] = state.sum(&NetworkInterface::IN_BLOCK, &block_key(within, first));
        let interfaces = state
            .from(&NetworkInterface::BY_ADDRESS, &address_key(within, first))
            .map(|(_, interface)| interface)
            .take_while(|interface| interface.subnet_id == *within)
            .map(|interface| interface.private_ip);
        (taken, interfaces)
    })
}

/// Whether an interface has this private address.
pub fn is_taken(state: &State, subnet_id: &str, address: Ipv4Addr) -> bool {
    state.any_by(&NetworkInterface::BY_ADDRESS, &address_key(subnet_id, address))
}

/// The lowest free public addresses, at most `max`. All accounts and regions share the pool.
pub fn free_public(state: &State, pool: Ipv4Net, max: usize) -> Vec<Ipv4Addr> {
    let state = state.whole();
    free(pool_range(pool), max, |first| {
        let [taken, _] = state.sum(&NetworkInterface::IN_PUBLIC_BLOCK, &block_key("", first));
        let interfaces = state
            .from(&NetworkInterface::BY_PUBLIC, &hex(first))
            .filter_map(|(_, interface)| interface.public_ip);
        (taken, interfaces)
    })
}

/// The lowest free addresses of a range, at most `max`. Goes by blocks of 256, and past full ones: it takes as long in a
/// range that is nearly full as in an empty one. `block` answers how many of a block are taken, and which, from an address
/// on.
fn free<T: Iterator<Item = Ipv4Addr>>(
    range: Range<u32>,
    max: usize,
    block: impl Fn(Ipv4Addr) -> (u64, T),
) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut first = range.start;
    while first < range.end && found.len() < max {
        let end = (first | 0xff).saturating_add(1).min(range.end);
        let (count, taken) = block(first.into());
        if count < u64::from(end - first) {
            let all = (first..end).map(Ipv4Addr::from);
            found.extend(gaps(all, taken).take(max - found.len()));
        }
        first = end;
    }
    found
}

/// A MAC address that no interface has: locally administered, the rest random.
pub fn new_mac(state: &State) -> String {
    let state = state.whole();
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
        let all: Vec<_> = usable_range(subnet).map(Ipv4Addr::from).collect();
        assert_eq!(all.len(), 11);
        assert_eq!(all[0], Ipv4Addr::new(172, 31, 16, 4));
        assert_eq!(all[10], Ipv4Addr::new(172, 31, 16, 14));
    }

    #[test]
    fn the_pool_keeps_the_hosts_end_back() {
        let pool: Ipv4Net = "198.18.0.0/24".parse().unwrap();
        assert_eq!(pool_range(pool), 0xc612_0002..0xc612_00ff);
    }

    #[test]
    fn tiny_networks_have_none() {
        assert_eq!(usable_range("10.0.0.0/31".parse().unwrap()).count(), 0);
        assert_eq!(pool_range("255.255.255.255/32".parse().unwrap()).count(), 0);
    }

    #[test]
    fn the_lowest_free_addresses_are_found_past_full_blocks() {
        let range = 0x0a00_0004..0x0a00_0400;
        let taken: std::collections::BTreeSet<u32> = (0x0a00_0004..0x0a00_0100)
            .chain([0x0a00_0100, 0x0a00_0102])
            .chain(0x0a00_0200..0x0a00_02ff)
            .collect();
        let looked = std::cell::RefCell::new(0);
        let block = |first: Ipv4Addr| {
            let first = u32::from(first);
            let count = taken.range(first..=(first | 0xff)).count() as u64;
            let taken = taken.range(first..).inspect(|_| *looked.borrow_mut() += 1);
            (count, taken.copied().map(Ipv4Addr::from))
        };
        let address = |n: u32| Ipv4Addr::from(0x0a00_0000 + n);
        assert_eq!(free(range.clone(), 2, block), [address(0x101), address(0x103)]);
        assert!(*looked.borrow() < 10, "the full block was walked");
        let all = free(range.clone(), usize::MAX, block);
        let expected = range
            .filter(|address| !taken.contains(address))
            .map(Ipv4Addr::from);
        assert_eq!(all, expected.collect::<Vec<_>>());
    }

    #[test]
    fn gaps_are_what_is_not_taken() {
        let address = |n: u8| Ipv4Addr::new(10, 0, 0, n);
        let taken = [0, 2, 5, 6, 9].map(address).into_iter();
        let free: Vec<_> = gaps((1..8).map(address), taken).collect();
        assert_eq!(free, [1, 3, 4, 7].map(address));
    }
}
