//! Lists of CPUs, as cpusets write them (`0-3,8`), and the choice among them.

use std::collections::BTreeMap;

/// The numbers of a list; what is no number is skipped.
pub fn parse(list: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

pub fn format(cpus: &[u16]) -> String {
    cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

/// `count` of `offered`, those that stand least often in `used`; fewer where fewer are offered.
pub fn least_used(offered: &[u16], used: &[u16], count: u8) -> Vec<u16> {
    let mut uses: BTreeMap<u16, usize> = offered.iter().map(|&cpu| (cpu, 0)).collect();
    for cpu in used {
        if let Some(count) = uses.get_mut(cpu) {
            *count += 1;
        }
    }
    let mut cpus: Vec<(usize, u16)> = uses.into_iter().map(|(cpu, uses)| (uses, cpu)).collect();
    cpus.sort_unstable();
    cpus.into_iter()
        .map(|(_, cpu)| cpu)
        .take(usize::from(count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        assert_eq!(parse("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse(&format(&[5, 7])), [5, 7]);
        assert!(parse("").is_empty() && parse("x-3").is_empty());
    }

    #[test]
    fn the_least_used_come_first() {
        assert_eq!(least_used(&[0, 1, 2, 3], &[0, 1, 1], 2), [2, 3]);
        assert_eq!(least_used(&[0, 1], &[0], 8), [1, 0]);
    }
}
