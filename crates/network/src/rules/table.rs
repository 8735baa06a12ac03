//! A table as it should be, and the batches that lead there.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use nftables::expr::Expression;
use nftables::schema::{
    Chain, Element, Map, NfCmd, NfListObject, NfObject, Rule, Set, SetFlag, SetType, SetTypeValue,
    Table as NfTable,
};
use nftables::stmt::{self, SetOp, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde::Serialize;
use serde_json::Value;

use super::expr::{Expr, Stmt, network};

/// One thing in a batch: a command or an object to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Item {
    Known(NfObject<'static>),
    /// What the crate's types cannot say; see [`verdict_map`].
    Raw(Value),
}

/// One transaction for `nft -j -f`, all or nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Batch {
    #[serde(rename = "nftables")]
    pub(super) items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(super) family: NfFamily,
    pub(super) name: String,
    chains: Vec<Item>,
    /// Named sets and maps. Later than chains, since elements of verdict maps name them.
    sets: Vec<Item>,
    /// In order.
    rules: Vec<Item>,
    /// Contents of the sets that change one element at a time, by the set's name.
    pub(super) elements: BTreeMap<String, BTreeSet<Ipv4Net>>,
    /// Sets whose elements come from packets.
    pub(super) of_packets: BTreeSet<String>,
}

/// The set that a rule puts an element into, how, the element, and the state that the element has.
pub(super) type Updating<'s> = (&'s str, SetOp, Expr, Stmt);

/// A base chain: where it hooks in, when, and what befalls packets that reach its end.
pub(super) type Base = (NfChainType, NfHook, i32, NfChainPolicy);

impl Table {
    pub(super) fn new(family: NfFamily, name: impl Into<String>) -> Self {
        Self {
            family,
            name: name.into(),
            chains: Vec::new(),
            sets: Vec::new(),
            rules: Vec::new(),
            elements: BTreeMap::new(),
            of_packets: BTreeSet::new(),
        }
    }

    pub(super) fn base_chain(&mut self, name: &'static str, (kind, hook, priority, policy): Base) {
        self.chains.push(known(NfListObject::Chain(Chain {
            family: self.family,
            table: self.name.clone().into(),
            name: name.into(),
            _type: Some(kind),
            hook: Some(hook),
            prio: Some(priority),
            policy: Some(policy),
            ..Chain::default()
        })));
    }

    pub(super) fn chain(&mut self, name: &str) {
        self.chains.push(known(NfListObject::Chain(Chain {
            family: self.family,
            table: self.name.clone().into(),
            name: name.to_owned().into(),
            ..Chain::default()
        })));
    }

    /// Appends a rule to a chain.
    pub(super) fn rule(&mut self, chain: &str, statements: impl Into<Vec<Stmt>>) {
        self.rules.push(known(NfListObject::Rule(Rule {
            family: self.family,
            table: self.name.clone().into(),
            chain: chain.to_owned().into(),
            expr: statements.into().into(),
            ..Rule::default()
        })));
    }

    /// Appends a rule that puts an element into a set of packets: `before`, the element, `after`.
    ///
    /// The crate's set statement has no `stmt`, the state of the element: the rule is made of its types, and that is put
    /// in.
    pub(super) fn rule_updating(
        &mut self,
        chain: &str,
        before: impl IntoIterator<Item = Stmt>,
        (set, op, elem, state): Updating<'_>,
        after: impl IntoIterator<Item = Stmt>,
    ) {
        let mut statements: Vec<Stmt> = before.into_iter().collect();
        let index = statements.len();
        statements.push(Statement::Set(stmt::Set {
            op,
            elem,
            set: format!("@{set}").into(),
        }));
        statements.extend(after);
        self.rule(chain, statements);
        if let Some(rule) = self.rules.pop() {
            let mut rule = serde_json::json!(rule);
            if let Some(Value::Object(set)) = rule.pointer_mut(&format!("/rule/expr/{index}/set")) {
                set.insert("stmt".to_owned(), serde_json::json!([state]));
            }
            self.rules.push(Item::Raw(rule));
        }
    }

    /// A set that rules of this table fill: [`Table::rule_updating`]. `timeout` in seconds.
    ///
    /// `nft` makes it `dynamic` by itself when it sees such a rule; its JSON does not know that flag.
    pub(super) fn set_of_packets(&mut self, name: &str, key: &[SetType], size: u32, timeout: Option<u32>) {
        let set = Set {
            size: Some(size),
            flags: timeout.map(|_| [SetFlag::Timeout].into()),
            timeout,
            ..self.empty_set(name, key)
        };
        self.sets.push(known(NfListObject::Set(Box::new(set))));
        self.of_packets.insert(name.to_owned());
    }

    pub(super) fn set(&mut self, name: &str, key: &[SetType], elements: impl Iterator<Item = Expr>) {
        let set = Set {
            elem: elements_of(elements),
            ..self.empty_set(name, key)
        };
        self.sets.push(known(NfListObject::Set(Box::new(set))));
    }

    /// A set of IPv4 addresses or networks whose changes are elements more or less.
    pub(super) fn changing_set(
        &mut self,
        name: &str,
        flags: &[SetFlag],
        elements: impl Iterator<Item = Ipv4Net>,
    ) {
        let mut set = self.empty_set(name, &[SetType::Ipv4Addr]);
        set.flags = (!flags.is_empty()).then(|| flags.iter().copied().collect());
        self.sets.push(known(NfListObject::Set(Box::new(set))));
        self.elements.insert(name.to_owned(), elements.collect());
    }

    fn empty_set(&self, name: &str, key: &[SetType]) -> Set<'static> {
        Set {
            family: self.family,
            table: self.name.clone().into(),
            name: name.to_owned().into(),
            set_type: type_of(key),
            ..Set::default()
        }
    }

    /// A map of IPv4 addresses to IPv4 addresses.
    pub(super) fn address_map(&mut self, name: &str, pairs: impl Iterator<Item = [Expr; 2]>) {
        let map = self.map(name, SetType::Ipv4Addr, pairs);
        self.sets.push(known(NfListObject::Map(Box::new(map))));
    }

    pub(super) fn verdict_map(&mut self, name: &str, key: SetType, pairs: impl Iterator<Item = [Expr; 2]>) {
        let map = verdict_map(self.map(name, key, pairs));
        self.sets.push(map);
    }

    fn map(&self, name: &str, key: SetType, pairs: impl Iterator<Item = [Expr; 2]>) -> Map<'static> {
        Map {
            family: self.family,
            table: self.name.clone().into(),
            name: name.to_owned().into(),
            set_type: SetTypeValue::Single(key),
            map: SetTypeValue::Single(SetType::Ipv4Addr),
            elem: elements_of(pairs.map(|pair| Expression::List(pair.into()))),
            ..Map::default()
        }
    }

    /// All but the elements of changing sets, in the order in which they can be added.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Item> {
        self.chains.iter().chain(&self.sets).chain(&self.rules)
    }

    /// Replaces whatever is loaded under the table's name. Tracked connections are not touched.
    pub(super) fn replace(&self, batch: &mut Batch) {
        self.remove(batch);
        batch.items.push(known(self.itself()));
        batch.items.extend(self.objects().cloned());
        for (set, elements) in &self.elements {
            self.change(batch, NfCmd::Add, set, elements.iter());
        }
    }

    pub(super) fn remove(&self, batch: &mut Batch) {
        // `delete` needs it to exist.
        batch.items.push(known(self.itself()));
        batch.items.push(command(NfCmd::Delete(self.itself())));
    }

    /// What lists the table.
    pub(super) fn listing(&self) -> Item {
        command(NfCmd::List(self.itself()))
    }

    /// Changes elements only; whether that suffices to come from `loaded` to this.
    pub(super) fn update(&self, loaded: &Self, batch: &mut Batch) -> bool {
        if !self.same_but_elements(loaded) {
            return false;
        }
        let nothing = BTreeSet::new();
        for (set, elements) in &self.elements {
            let before = loaded.elements.get(set).unwrap_or(&nothing);
            self.change(batch, NfCmd::Delete, set, before.difference(elements));
            self.change(batch, NfCmd::Add, set, elements.difference(before));
        }
        true
    }

    pub(super) fn is_named_as(&self, other: &Self) -> bool {
        (self.family, &self.name) == (other.family, &other.name)
    }

    fn same_but_elements(&self, other: &Self) -> bool {
        self.is_named_as(other)
            && (&self.chains, &self.sets, &self.rules) == (&other.chains, &other.sets, &other.rules)
    }

    fn change<'e>(
        &self,
        batch: &mut Batch,
        command_of: fn(NfListObject<'static>) -> NfCmd<'static>,
        set: &str,
        elements: impl Iterator<Item = &'e Ipv4Net>,
    ) {
        let elements: Vec<Expr> = elements.map(network).collect();
        if !elements.is_empty() {
            batch
                .items
                .push(command(command_of(NfListObject::Element(Element {
                    family: self.family,
                    table: self.name.clone().into(),
                    name: set.to_owned().into(),
                    elem: elements.into(),
                }))));
        }
    }

    fn itself(&self) -> NfListObject<'static> {
        NfListObject::Table(NfTable {
            family: self.family,
            name: self.name.clone().into(),
            handle: None,
        })
    }
}

/// The crate's `SetType` has no `verdict`, so a named verdict map is its map with that one word put in.
fn verdict_map(map: Map<'static>) -> Item {
    let mut map = serde_json::json!({ "map": map });
    if let Some(values) = map.pointer_mut("/map/map") {
        *values = "verdict".into();
    }
    Item::Raw(map)
}

fn known(object: NfListObject<'static>) -> Item {
    Item::Known(NfObject::ListObject(object))
}

fn command(command: NfCmd<'static>) -> Item {
    Item::Known(NfObject::CmdObject(command))
}

fn type_of(key: &[SetType]) -> SetTypeValue<'static> {
    match key {
        [single] => SetTypeValue::Single(*single),
        parts => SetTypeValue::Concatenated(parts.to_vec().into()),
    }
}

fn elements_of(elements: impl Iterator<Item = Expr>) -> Option<std::borrow::Cow<'static, [Expr]>> {
    let elements: Vec<Expr> = elements.collect();
    (!elements.is_empty()).then(|| elements.into())
}
