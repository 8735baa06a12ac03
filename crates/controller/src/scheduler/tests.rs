use proptest::prelude::*;

use super::*;

fn resources(max: u64) -> impl Strategy<Value = Resources> {
    (0..max, 0..max * 1024, 0..max << 30).prop_map(|(vcpus, memory_mib, disk_bytes)| Resources {
        vcpus,
        memory_mib,
        disk_bytes,
    })
}

fn hosts() -> impl Strategy<Value = Vec<Host>> {
    let host = ("[abc]", any::<bool>(), resources(32), resources(16));
    proptest::collection::vec(host, 0..8).prop_map(|hosts| {
        let named = hosts.into_iter().enumerate();
        named
            .map(|(n, (zone, connected, total, claimed))| Host {
                id: format!("h-{n}"),
                availability_zone: zone,
                connected,
                draining: false,
                uefi: false,
                total,
                claimed,
            })
            .collect()
    })
}

fn demands() -> impl Strategy<Value = Demand> {
    let zones = proptest::sample::subsequence(vec!["a".to_owned(), "b".into(), "c".into()], 1..=3);
    (zones, resources(6), 1usize..6, 0usize..6).prop_map(|(zones, each, min, more)| Demand {
        zones,
        uefi: false,
        host: None,
        each,
        min,
        max: min + more,
    })
}

/// How many of `each` one host takes, counted the slow way.
fn takes(host: &Host, each: Resources, limit: usize) -> usize {
    let mut free = host.free();
    (0..limit)
        .take_while(|_| {
            let fits = free.fits(each);
            free = free.minus(each);
            fits
        })
        .count()
}

proptest! {
    #[test]
    fn never_over_claims_and_never_refuses_what_fits(hosts in hosts(), demand in demands()) {
        let most = demand.zones.iter().map(|zone| {
            let in_zone = hosts.iter().filter(|h| h.connected && h.availability_zone == *zone);
            in_zone.map(|h| takes(h, demand.each, demand.max)).sum::<usize>().min(demand.max)
        }).max().unwrap_or(0);
        match place(&hosts, &demand) {
            Ok(placement) => {
                prop_assert_eq!(placement.hosts.len(), most);
                prop_assert!(most >= demand.min && most <= demand.max);
                for host in &hosts {
                    let count = placement.hosts.iter().filter(|id| **id == host.id).count();
                    if count == 0 { continue }
                    prop_assert!(host.connected && host.availability_zone == placement.availability_zone);
                    let n = count as u64;
                    let free = host.free();
                    prop_assert!(demand.each.vcpus * n <= free.vcpus);
                    prop_assert!(demand.each.memory_mib * n <= free.memory_mib);
                    prop_assert!(demand.each.disk_bytes * n <= free.disk_bytes);
                }
            }
            Err(refusal) => {
                prop_assert!(most < demand.min);
                prop_assert_eq!(refusal.fit, most);
                // Every host is explained.
                prop_assert_eq!(refusal.hosts.len(), hosts.len());
                let _ = refusal.to_string();
            }
        }
    }
}

fn host(id: &str, vcpus: u64, memory_mib: u64) -> Host {
    Host {
        id: id.into(),
        availability_zone: "a".into(),
        connected: true,
        draining: false,
        uefi: false,
        total: Resources {
            vcpus,
            memory_mib,
            disk_bytes: 100 << 30,
        },
        claimed: Resources::default(),
    }
}

fn demand(count: usize) -> Demand {
    Demand {
        zones: vec!["a".into()],
        uefi: false,
        host: None,
        each: Resources {
            vcpus: 2,
            memory_mib: 4096,
            disk_bytes: 8 << 30,
        },
        min: count,
        max: count,
    }
}

#[test]
fn spreads_over_equal_hosts() {
    let hosts = [host("h-1", 8, 16384), host("h-2", 8, 16384)];
    let placement = place(&hosts, &demand(4)).unwrap();
    assert_eq!(placement.hosts.iter().filter(|id| *id == "h-1").count(), 2);
}

#[test]
fn a_refusal_says_per_host_what_was_short() {
    let mut hosts = [
        host("h-1", 1, 16384),
        host("h-2", 8, 6000),
        host("h-3", 8, 16384),
        host("h-4", 8, 16384),
    ];
    hosts[2].connected = false;
    hosts[3].availability_zone = "b".into();
    let refusal = place(&hosts, &demand(2)).unwrap_err();
    insta::assert_snapshot!(refusal, @"1 of 2 instances fit; each needs 2 vCPUs, 4096 MiB of memory, 8 GiB of disk. h-1: only 1 vCPUs free; h-2: takes 1, then only 1904 MiB of memory free; h-3: not connected; h-4: in b.");
}

#[test]
fn nothing_is_placed_on_a_host_that_is_drained() {
    let mut hosts = [host("h-1", 8, 16384), host("h-2", 8, 16384)];
    hosts[0].draining = true;
    assert_eq!(place(&hosts, &demand(2)).unwrap().hosts, ["h-2", "h-2"]);
    hosts[1].draining = true;
    let refusal = place(&hosts, &demand(1)).unwrap_err().to_string();
    assert!(refusal.contains("hearth resume-host --host-id h-1"), "{refusal}");
}

#[test]
fn without_hosts_the_refusal_says_how_to_get_one() {
    let refusal = place(&[], &demand(1)).unwrap_err();
    assert!(refusal.to_string().contains("hearthd join-token"));
}

#[test]
fn a_start_looks_at_its_own_host_alone() {
    let hosts = [host("h-1", 1, 1024), host("h-2", 8, 16384)];
    let demand = Demand {
        host: Some("h-1".into()),
        ..demand(1)
    };
    let refusal = place(&hosts, &demand).unwrap_err();
    assert_eq!(refusal.hosts[1].1, Shortage::OtherHost);
}

#[test]
fn an_image_that_only_firmware_boots_needs_a_host_with_firmware() {
    let mut hosts = [host("h-a", 8, 8192), host("h-b", 8, 8192)];
    let wanted = Demand {
        uefi: true,
        ..demand(1)
    };
    let refusal = place(&hosts, &wanted).unwrap_err().to_string();
    assert!(
        refusal.contains(
            "h-a: has no UEFI firmware, and the image boots by nothing else (its BootMode is uefi)"
        ),
        "{refusal}"
    );
    hosts[1].uefi = true;
    assert_eq!(place(&hosts, &wanted).unwrap().hosts, ["h-b"]);
    assert_eq!(place(&hosts, &demand(1)).unwrap().hosts.len(), 1);
}
