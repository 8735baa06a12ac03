use proptest::prelude::{Strategy as ProptestStrategy, *};

use super::{Strategy, *};

fn resources(max: u64) -> impl ProptestStrategy<Value = Resources> {
    (0..max, 0..max * 1024, 0..max << 30).prop_map(|(vcpus, memory_mib, disk_bytes)| Resources {
        vcpus,
        memory_mib,
        disk_bytes,
    })
}

fn hosts() -> impl ProptestStrategy<Value = Vec<Host>> {
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

fn demands() -> impl ProptestStrategy<Value = Demand> {
    let zones = proptest::sample::subsequence(vec!["a".to_owned(), "b".into(), "c".into()], 1..=3);
    (zones, resources(6), 1usize..6, 0usize..6).prop_map(|(zones, each, min, more)| Demand {
        zones,
        uefi: false,
        host: None,
        except: Default::default(),
        spacing: None,
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
        except: Default::default(),
        spacing: None,
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

/// Strategies, hosts with instances that are there already (host, cell, whether it runs) as the strategy allows them, and
/// how many more are wanted.
fn spaced() -> impl ProptestStrategy<Value = (Strategy, Vec<Host>, Vec<Other>, usize)> {
    let strategy = prop_oneof![
        Just(Strategy::Together),
        proptest::option::of(1usize..5).prop_map(|per_zone| Strategy::Apart { per_zone }),
        (1u32..5, any::<bool>()).prop_map(|(count, named)| Strategy::Cells {
            count,
            cell: named.then_some(count),
        }),
    ];
    let capacities = proptest::collection::vec((1u64..6, "[ab]"), 1..9);
    let others = proptest::collection::vec((0usize..9, 1u32..5, any::<bool>()), 0..12);
    (strategy, capacities, others, 1usize..12).prop_map(|(strategy, capacities, others, max)| {
        let hosts: Vec<Host> = capacities
            .into_iter()
            .enumerate()
            .map(|(n, (vcpus, zone))| Host {
                availability_zone: zone,
                ..host(&format!("h-{n}"), 2 * vcpus, 1 << 20)
            })
            .collect();
        let mut kept: Vec<Other> = Vec::new();
        for (at, cell, runs) in others {
            let host = &hosts[at % hosts.len()];
            let cell = match strategy {
                Strategy::Cells { count, .. } => 1 + cell % count,
                _ => 0,
            };
            let other = Other {
                host: host.id.clone(),
                zone: host.availability_zone.clone(),
                cell,
                runs,
            };
            let with = [&kept[..], std::slice::from_ref(&other)].concat();
            if is_kept(strategy, &with) {
                kept = with;
            }
        }
        (strategy, hosts, kept, max)
    })
}

/// Whether the promise of a strategy is kept, looked at the slow way: each pair of running instances, and each zone.
fn is_kept(strategy: Strategy, instances: &[Other]) -> bool {
    let running: Vec<&Other> = instances.iter().filter(|other| other.runs).collect();
    let pairs = || {
        let pairs = running.iter().enumerate();
        pairs.flat_map(|(n, one)| running.iter().skip(n + 1).map(move |other| (one, other)))
    };
    match strategy {
        Strategy::Together => true,
        Strategy::Apart { per_zone } => {
            let in_zone = |zone: &str| running.iter().filter(|other| other.zone == zone).count();
            pairs().all(|(one, other)| one.host != other.host)
                && ["a", "b"]
                    .iter()
                    .all(|zone| in_zone(zone) <= per_zone.unwrap_or(usize::MAX))
        }
        Strategy::Cells { .. } => {
            pairs().all(|(one, other)| one.host != other.host || one.cell == other.cell)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_placement_keeps_what_its_strategy_promises((strategy, hosts, others, max) in spaced()) {
        let demand = Demand {
            zones: vec!["a".into(), "b".into()],
            spacing: Some(Spacing { strategy, others: others.clone() }),
            min: 1,
            max,
            ..demand(1)
        };
        let room = |host: &Host| takes(host, demand.each, usize::MAX);
        match place(&hosts, &demand) {
            Ok(placement) => {
                let placed = placement.hosts.iter().zip(&placement.cells).map(|(host, cell)| Other {
                    host: host.clone(),
                    zone: placement.availability_zone.clone(),
                    cell: *cell,
                    runs: true,
                });
                let placed: Vec<Other> = placed.collect();
                let all = [&others[..], &placed[..]].concat();
                prop_assert!(is_kept(strategy, &all), "{:?}", all);
                for host in &hosts {
                    let count = placed.iter().filter(|other| other.host == host.id).count();
                    prop_assert!(count <= room(host));
                }
                if let Strategy::Cells { count, cell } = strategy {
                    prop_assert!(placed.iter().all(|other| (1..=count).contains(&other.cell)));
                    prop_assert!(cell.is_none() || placed.iter().all(|other| Some(other.cell) == cell));
                }
                if strategy == Strategy::Together {
                    // Of hosts that had none, no more than the largest ones need.
                    let had = |host: &Host| others.iter().any(|other| other.host == host.id);
                    let zone = |host: &&Host| host.availability_zone == placement.availability_zone;
                    let old: usize = hosts.iter().filter(zone).filter(|h| had(h)).map(room).sum();
                    let mut new: Vec<usize> = hosts.iter().filter(zone).filter(|h| !had(h)).map(room).collect();
                    new.sort_unstable_by(|a, b| b.cmp(a));
                    let mut missing = placed.len().saturating_sub(old);
                    let least = new.iter().take_while(|room| {
                        let needed = missing > 0;
                        missing = missing.saturating_sub(**room);
                        needed
                    });
                    let least = least.count();
                    let mut used: Vec<&str> = placed.iter().map(|other| other.host.as_str()).collect();
                    used.sort_unstable();
                    used.dedup();
                    let used = used.iter().filter(|id| !others.iter().any(|other| other.host == **id));
                    prop_assert_eq!(used.count(), least);
                }
            }
            Err(refusal) => {
                let _ = refusal.to_string();
                // No host can take even one.
                for host in hosts.iter().filter(|host| room(host) > 0) {
                    let cells = match strategy {
                        Strategy::Cells { count, cell: None } => (1..=count).collect(),
                        Strategy::Cells { cell: Some(cell), .. } => vec![cell],
                        _ => vec![0],
                    };
                    for cell in cells {
                        let one = Other {
                            host: host.id.clone(),
                            zone: host.availability_zone.clone(),
                            cell,
                            runs: true,
                        };
                        prop_assert!(!is_kept(strategy, &[&others[..], &[one]].concat()));
                    }
                }
            }
        }
    }
}

#[test]
fn cells_are_filled_evenly_and_stopped_instances_keep_their_hosts_if_possible() {
    let hosts: Vec<Host> = (0..6).map(|n| host(&format!("h-{n}"), 8, 65536)).collect();
    let stopped = |n: usize, cell| Other {
        host: format!("h-{n}"),
        zone: "a".into(),
        cell,
        runs: false,
    };
    let spaced = |strategy, others, count| Demand {
        spacing: Some(Spacing { strategy, others }),
        ..demand(count)
    };
    let cells = Strategy::Cells { count: 3, cell: None };
    let placement = place(&hosts, &spaced(cells, Vec::new(), 9)).unwrap();
    for cell in 1..=3 {
        assert_eq!(placement.cells.iter().filter(|of| **of == cell).count(), 3);
    }
    let apart = Strategy::Apart { per_zone: None };
    let placement = place(&hosts, &spaced(apart, vec![stopped(0, 0), stopped(5, 0)], 4)).unwrap();
    assert!(
        placement.hosts.iter().all(|id| id != "h-0" && id != "h-5"),
        "{placement:?}"
    );
    let refusal = place(&hosts, &spaced(apart, Vec::new(), 7))
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("h-0: takes 1, then has an instance of the placement group, which are to be apart"),
        "{refusal}"
    );
}
