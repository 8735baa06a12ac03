//! Whose an address is: connections end when it becomes another's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::names::tap_name;
use crate::plan::Plan;

/// The TAP of the interface that has each address.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Holders {
    private: BTreeMap<Ipv4Addr, String>,
    public: BTreeMap<Ipv4Addr, String>,
}

impl Holders {
    pub(crate) fn of(plan: &Plan) -> Self {
        let private = plan
            .enis
            .iter()
            .map(|eni| (eni.private_ip, tap_name(&eni.eni_id)));
        let public = plan
            .enis
            .iter()
            .filter_map(|eni| Some((eni.public_ip?, tap_name(&eni.eni_id))));
        Self {
            private: private.collect(),
            public: public.collect(),
        }
    }

    /// From the elements, as `nft` lists them, of the set that binds TAP, MAC and private address, and of the map from
    /// public to private addresses. The rules outlive the agent, and so does the knowledge of whose an address was.
    pub(crate) fn of_listing(bound: &[Value], private_of: &[Value]) -> Self {
        let address = |value: Option<&Value>| value?.as_str()?.parse::<Ipv4Addr>().ok();
        let private: BTreeMap<_, _> = bound
            .iter()
            .filter_map(|element| {
                let parts = element.get("concat")?;
                Some((address(parts.get(2))?, parts.get(0)?.as_str()?.to_owned()))
            })
            .collect();
        let public = private_of.iter().filter_map(|element| {
            let holder = private.get(&address(element.get(1))?)?;
            Some((address(element.get(0))?, holder.clone()))
        });
        Self {
            public: public.collect(),
            private,
        }
    }

    /// The addresses that have another holder in `other`, or a holder in one of both only.
    pub(crate) fn changed(&self, other: &Self) -> BTreeSet<Ipv4Addr> {
        let differ = |ours: &BTreeMap<Ipv4Addr, String>, theirs: &BTreeMap<Ipv4Addr, String>| {
            let addresses = ours.keys().chain(theirs.keys());
            let changed = addresses.filter(|address| ours.get(address) != theirs.get(address));
            changed.copied().collect::<BTreeSet<_>>()
        };
        let mut changed = differ(&self.private, &other.private);
        changed.append(&mut differ(&self.public, &other.public));
        changed
    }

    pub(crate) fn public_addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.public.keys().copied().collect()
    }
}
