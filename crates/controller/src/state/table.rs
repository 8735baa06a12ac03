//! All objects of one noun, with their indexes and sums. Persistent maps: a copy costs the same whatever the table holds,
//! and shares what does not change.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use smol_str::SmolStr;

use super::noun::{Amounts, Index, Noun, Rule, Sum};

/// A key of an index, and the id of an object that has it. Ids are short enough to stand in a map's nodes themselves: a
/// comparison follows no pointer, a copy of a node allocates nothing.
type Entry = (SmolStr, SmolStr);

#[derive(Debug, Clone)]
pub struct Table<N> {
    rows: OrdMap<SmolStr, Row<N>>,
    /// In the order of [`Noun::INDEXES`].
    indexes: Vec<OrdSet<Entry>>,
    /// In the order of [`Noun::SUMS`]; groups whose sum is zero are left out.
    sums: Vec<OrdMap<SmolStr, Amounts>>,
    /// By account: how many objects it has, and how many tags on them.
    accounts: OrdMap<SmolStr, Amounts>,
}

/// An object as a table holds it.
#[derive(Debug)]
pub(super) struct Row<N> {
    /// The sequence number of the transaction that wrote the object last.
    version: u64,
    pub(super) object: Arc<N>,
}

impl<N> Clone for Row<N> {
    fn clone(&self) -> Self {
        Self {
            version: self.version,
            object: Arc::clone(&self.object),
        }
    }
}

impl<N: Noun> Default for Table<N> {
    fn default() -> Self {
        Self {
            rows: OrdMap::new(),
            indexes: N::INDEXES.iter().map(|_| OrdSet::new()).collect(),
            sums: N::SUMS.iter().map(|_| OrdMap::new()).collect(),
            accounts: OrdMap::new(),
        }
    }
}

/// Another object has a key that is unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub index: &'static str,
    pub by: SmolStr,
}

impl<N: Noun> Table<N> {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn get(&self, id: &str) -> Option<&Arc<N>> {
        self.rows.get(id).map(|row| &row.object)
    }

    pub fn version(&self, id: &str) -> Option<u64> {
        self.rows.get(id).map(|row| row.version)
    }

    /// In the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<N>> {
        self.rows.values().map(|row| &row.object)
    }

    /// Objects with ids after `after`, in their order.
    pub fn after(&self, after: &str) -> impl Iterator<Item = &Arc<N>> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        self.rows.range::<_, str>(range).map(|(_, row)| &row.object)
    }

    /// Ids of the objects that an index has under keys from `from` on, with their keys, in the order of keys and ids.
    pub fn index_from<'t>(
        &'t self,
        index: &Index<N>,
        from: &str,
    ) -> impl Iterator<Item = (&'t str, &'t SmolStr)> + use<'t, N> {
        let set = N::INDEXES.iter().position(|other| other.name == index.name);
        debug_assert!(set.is_some(), "{} is not declared for {}", index.name, N::KIND);
        let start: Entry = (from.into(), "".into());
        set.and_then(|set| self.indexes.get(set))
            .into_iter()
            .flat_map(move |entries| entries.range(start.clone()..))
            .map(|(key, id)| (key.as_str(), id))
    }

    /// The sum of a group.
    pub fn sum(&self, sum: &Sum<N>, group: &str) -> Amounts {
        let map = N::SUMS.iter().position(|other| other.name == sum.name);
        debug_assert!(map.is_some(), "{} is not declared for {}", sum.name, N::KIND);
        map.and_then(|map| self.sums.get(map))
            .and_then(|groups| groups.get(group))
            .copied()
            .unwrap_or_default()
    }

    /// How many objects an account has, and how many tags on them.
    pub fn of_account(&self, account_id: &str) -> Amounts {
        self.accounts.get(account_id).copied().unwrap_or_default()
    }

    /// Adds or replaces an object.
    ///
    /// # Errors
    /// Another object has one of its unique keys. Nothing is changed then.
    pub(super) fn put(&mut self, version: u64, object: N) -> Result<(), Taken> {
        for (index, entries) in N::INDEXES.iter().zip(&self.indexes) {
            if index.rule != Rule::Unique {
                continue;
            }
            for key in (index.keys)(&object) {
                if let Some(by) = first_under(entries, &key).filter(|by| *by != object.id()) {
                    return Err(Taken {
                        index: index.name,
                        by: by.clone(),
                    });
                }
            }
        }
        let (id, before) = match self.rows.get_key_value(object.id()) {
            Some((id, row)) => (id.clone(), Some(Arc::clone(&row.object))),
            None => (object.id().into(), None),
        };
        self.reindex(&id, before.as_deref(), Some(&object));
        let object = Arc::new(object);
        self.rows.insert(id, Row { version, object });
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Arc<N>> {
        let (id, row) = self.rows.remove_with_key(id)?;
        self.reindex(&id, Some(&row.object), None);
        Some(row.object)
    }

    pub(super) fn row(&self, id: &str) -> Option<&Row<N>> {
        self.rows.get(id)
    }

    /// Makes an object again what it was, `None` for one that was not there. Unique keys are not looked at: while a
    /// transaction is undone, an object may have its key again before another one has given it back.
    pub(super) fn restore(&mut self, id: &str, before: Option<Row<N>>) {
        let (id, now) = match self.rows.remove_with_key(id) {
            Some((id, row)) => (id, Some(row.object)),
            None => (SmolStr::from(id), None),
        };
        self.reindex(&id, now.as_deref(), before.as_ref().map(|row| &*row.object));
        if let Some(row) = before {
            self.rows.insert(id, row);
        }
    }

    fn reindex(&mut self, id: &SmolStr, before: Option<&N>, after: Option<&N>) {
        for (index, entries) in N::INDEXES.iter().zip(&mut self.indexes) {
            let old = before.map(index.keys).unwrap_or_default();
            let new = after.map(index.keys).unwrap_or_default();
            for key in old.iter().filter(|key| !new.contains(key)) {
                entries.remove(&(key.into(), id.clone()));
            }
            for key in new.iter().filter(|key| !old.contains(key)) {
                entries.insert((key.into(), id.clone()));
            }
        }
        for (sum, groups) in N::SUMS.iter().zip(&mut self.sums) {
            regroup(groups, before.and_then(sum.part), after.and_then(sum.part));
        }
        regroup(
            &mut self.accounts,
            before.map(part_of_account),
            after.map(part_of_account),
        );
    }

    /// Whether indexes and sums are what the objects say.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut anew = Self::default();
        for row in self.rows.values() {
            anew.put(row.version, N::clone(&row.object)).unwrap();
        }
        assert_eq!(self.indexes, anew.indexes, "{}", N::KIND);
        assert_eq!(self.sums, anew.sums, "{}", N::KIND);
        assert_eq!(self.accounts, anew.accounts, "{}", N::KIND);
        assert!(self.rows.iter().all(|(id, row)| id == row.object.id()));
    }
}

fn first_under<'e>(entries: &'e OrdSet<Entry>, key: &str) -> Option<&'e SmolStr> {
    let start: Entry = (key.into(), "".into());
    let (found, id) = entries.range(start..).next()?;
    (found == key).then_some(id)
}

/// An object's account, and what it counts there.
fn part_of_account<N: Noun>(object: &N) -> (String, Amounts) {
    let tags = object.tags().map_or(0, |tags| tags.len() as u64);
    (object.account().to_owned(), [1, tags])
}

/// An object counts for another group, or otherwise.
fn regroup(
    groups: &mut OrdMap<SmolStr, Amounts>,
    old: Option<(String, Amounts)>,
    new: Option<(String, Amounts)>,
) {
    if old == new {
        return;
    }
    if let Some((group, amounts)) = new {
        add(groups, &group, |had, more| had.saturating_add(more), amounts);
    }
    if let Some((group, amounts)) = old {
        add(groups, &group, |had, less| had.saturating_sub(less), amounts);
    }
}

fn add(
    groups: &mut OrdMap<SmolStr, Amounts>,
    group: &str,
    apply: impl Fn(u64, u64) -> u64,
    [first, second]: Amounts,
) {
    let [had_first, had_second] = groups.get(group).copied().unwrap_or_default();
    let sum = [apply(had_first, first), apply(had_second, second)];
    if sum == [0, 0] {
        groups.remove(group);
    } else {
        groups.insert(group.into(), sum);
    }
}
