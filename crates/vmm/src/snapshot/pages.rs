//! A set of guest pages, by number: RAM counted through, without the hole below 4 GiB.

use serde::{Deserialize, Serialize};

pub use crate::memory::dirty::PAGE;

const BITS: u64 = u64::BITS as u64;

/// Which pages, of a machine that has so many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSet {
    count: u64,
    words: Vec<u64>,
}

impl PageSet {
    /// None of `count` pages.
    #[must_use]
    pub fn none(count: u64) -> Self {
        Self {
            count,
            words: vec![0; usize::try_from(count.div_ceil(BITS)).unwrap_or(usize::MAX)],
        }
    }

    /// All of `count` pages.
    #[must_use]
    pub fn all(count: u64) -> Self {
        let mut set = Self::none(count);
        set.insert(0, count);
        set
    }

    /// Pages that the machine has.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.count
    }

    /// Pages that are in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    #[must_use]
    pub fn contains(&self, page: u64) -> bool {
        let word = usize::try_from(page / BITS)
            .ok()
            .and_then(|at| self.words.get(at));
        word.is_some_and(|word| word & 1 << (page % BITS) != 0)
    }

    /// Adds `len` pages from `first` on, as far as there are such.
    pub fn insert(&mut self, first: u64, len: u64) {
        for page in first..first.saturating_add(len).min(self.count) {
            if let Some(word) = self.words.get_mut((page / BITS) as usize) {
                *word |= 1 << (page % BITS);
            }
        }
    }

    /// Adds pages as KVM's dirty log has them, 64 a word from page 0 on.
    pub fn insert_words(&mut self, words: &[u64]) {
        for (mine, new) in self.words.iter_mut().zip(words) {
            *mine |= new;
        }
        let used = self.count % BITS;
        if let Some(last) = self.words.last_mut().filter(|_| used > 0) {
            *last &= (1 << used) - 1;
        }
    }

    /// Adds all that `other` has.
    pub fn insert_all(&mut self, other: &Self) {
        self.insert_words(&other.words);
    }

    /// The set within `first..end` as runs of neighbours: (first page, pages), ascending.
    pub fn runs(&self, first: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = end.min(self.count);
        let mut page = first;
        std::iter::from_fn(move || {
            while page < end && !self.contains(page) {
                // Whole words of nothing at a time.
                let word = self.words.get((page / BITS) as usize).copied().unwrap_or(0);
                page = if word >> (page % BITS) == 0 {
                    (page / BITS + 1) * BITS
                } else {
                    page + 1
                };
            }
            let start = page;
            while page < end && self.contains(page) {
                page += 1;
            }
            (page > start).then_some((start, page - start))
        })
    }

    pub(super) fn encoded(&self) -> Runs {
        let mut end = 0;
        let gaps = self.runs(0, self.count).map(|(first, len)| {
            let gap = first - end;
            end = first + len;
            (gap, len)
        });
        Runs {
            count: self.count,
            gaps: gaps.collect(),
        }
    }
}

/// A set as it is in a file: for each run the gap before it and its length.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Runs {
    count: u64,
    gaps: Vec<(u64, u64)>,
}

impl Runs {
    /// `None` if it is no set of pages of a machine that has `count`.
    pub(super) fn decode(&self, count: u64) -> Option<PageSet> {
        if self.count != count {
            return None;
        }
        let mut set = PageSet::none(count);
        let mut at = 0_u64;
        for &(gap, len) in &self.gaps {
            let first = at.checked_add(gap)?;
            at = first.checked_add(len).filter(|&end| end <= count && len > 0)?;
            set.insert(first, len);
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_survives_its_encoding(pages in btree_set(0_u64..300, 0..100), count in 300_u64..400) {
            let mut set = PageSet::none(count);
            pages.iter().for_each(|&page| set.insert(page, 1));
            prop_assert_eq!(set.len(), pages.len() as u64);
            let listed: Vec<u64> = set.runs(0, count).flat_map(|(first, len)| first..first + len).collect();
            prop_assert_eq!(listed, pages.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(set.encoded().decode(count), Some(set.clone()));
            prop_assert_eq!(set.encoded().decode(count + 1), None);
        }

        #[test]
        fn whatever_decodes_is_within_the_machine(gaps in vec((any::<u64>(), any::<u64>()), 0..20), count in 1_u64..5000) {
            if let Some(set) = (Runs { count, gaps }).decode(count) {
                prop_assert!(set.len() <= count);
            }
        }

        #[test]
        fn runs_of_a_part_are_the_part_of_the_runs(words in vec(any::<u64>(), 4), first in 0_u64..256, len in 0_u64..256) {
            let mut set = PageSet::none(250);
            set.insert_words(&words);
            let part: Vec<u64> = set.runs(first, first + len).flat_map(|(first, len)| first..first + len).collect();
            let expected: Vec<u64> = (first..(first + len).min(250)).filter(|&page| set.contains(page)).collect();
            prop_assert_eq!(part, expected);
        }
    }

    #[test]
    fn all_is_one_run() {
        let set = PageSet::all(1000);
        assert_eq!(set.runs(0, 1000).collect::<Vec<_>>(), [(0, 1000)]);
        assert!(!set.is_empty() && PageSet::none(1000).is_empty());
    }
}
