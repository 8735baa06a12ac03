//! Which private, public and MAC addresses are free. The unique indices of the interfaces are the truth.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sqlx::SqliteConnection;

use super::Result;

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

/// Private addresses in use in a subnet.
pub async fn taken_in(c: &mut SqliteConnection, subnet_id: &str) -> Result<HashSet<Ipv4Addr>> {
    let taken: Vec<String> =
        sqlx::query_scalar("SELECT private_ip FROM network_interfaces WHERE subnet_id = ?")
            .bind(subnet_id)
            .fetch_all(c)
            .await?;
    Ok(taken.iter().filter_map(|ip| ip.parse().ok()).collect())
}

/// Public addresses in use.
pub async fn public_taken(c: &mut SqliteConnection) -> Result<HashSet<Ipv4Addr>> {
    let taken: Vec<String> =
        sqlx::query_scalar("SELECT public_ip FROM network_interfaces WHERE public_ip IS NOT NULL")
            .fetch_all(c)
            .await?;
    Ok(taken.iter().filter_map(|ip| ip.parse().ok()).collect())
}

pub async fn assign_public(c: &mut SqliteConnection, instance_id: &str, address: Ipv4Addr) -> Result<()> {
    sqlx::query("UPDATE network_interfaces SET public_ip = ? WHERE instance_id = ?")
        .bind(address.to_string())
        .bind(instance_id)
        .execute(c)
        .await?;
    Ok(())
}

/// As in EC2 a stopped instance gives its public address back.
pub(super) async fn release_public(c: &mut SqliteConnection, instance_id: &str) -> Result<()> {
    sqlx::query("UPDATE network_interfaces SET public_ip = NULL WHERE instance_id = ?")
        .bind(instance_id)
        .execute(c)
        .await?;
    Ok(())
}

/// A MAC address that no interface has: locally administered, the rest random.
pub async fn new_mac(c: &mut SqliteConnection) -> Result<String> {
    loop {
        let [a, b, d, e, f]: [u8; 5] = rand::random();
        let mac = format!("02:{a:02x}:{b:02x}:{d:02x}:{e:02x}:{f:02x}");
        let taken: Option<i64> = sqlx::query_scalar("SELECT 1 FROM network_interfaces WHERE mac_address = ?")
            .bind(&mac)
            .fetch_optional(&mut *c)
            .await?;
        if taken.is_none() {
            return Ok(mac);
        }
    }
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
}
