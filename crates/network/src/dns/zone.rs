//! The names of a VPC's own interfaces, forward and reverse.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::str::FromStr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, PTR, SOA};
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};
use ipnet::{IpNet, Ipv4Net};

use super::message::Question;
use crate::plan::Plan;

/// Seconds.
const TTL: u32 = 60;
/// Seconds that "no such name" may be remembered (RFC 2308, 5): an instance that is launched next may have the name.
const NEGATIVE_TTL: u32 = 5;
/// Labels of an IPv4 address's name under `in-addr.arpa` (RFC 1035, 3.5), with those two.
const REVERSE_LABELS: u8 = 6;

/// Authoritative for the domains of its interfaces' names, and for the reverse names of the VPC's block.
pub(super) struct Zone {
    cidr: Ipv4Net,
    addresses: HashMap<LowerName, Ipv4Addr>,
    names: HashMap<Ipv4Addr, Name>,
    domains: BTreeSet<LowerName>,
}

impl Zone {
    pub(super) fn of(plan: &Plan) -> Self {
        let mut zone = Self {
            cidr: plan.cidr,
            addresses: HashMap::new(),
            names: HashMap::new(),
            domains: BTreeSet::new(),
        };
        for eni in &plan.enis {
            // A plan's names were checked; one that is no name is not in the zone.
            let Ok(mut name) = Name::from_str(&eni.hostname) else {
                continue;
            };
            name.set_fqdn(true);
            // A name without a domain is nobody's to answer for.
            if name.num_labels() < 2 {
                continue;
            }
            zone.domains.insert(LowerName::new(&name.base_name()));
            zone.addresses.insert(LowerName::new(&name), eni.private_ip);
            zone.names.insert(eni.private_ip, name);
        }
        zone
    }

    /// `None`: others know.
    pub(super) fn answer(&self, question: &Question) -> Option<Vec<u8>> {
        let query = question.query();
        if query.query_class() != DNSClass::IN {
            return None;
        }
        let name = query.name();
        if let Some(address) = reverse(name).filter(|address| self.cidr.contains(address)) {
            let parent = name.base_name();
            let target = self.names.get(&address);
            let record = target.map(|target| (RecordType::PTR, RData::PTR(PTR(target.clone()))));
            return Some(answer(question, &parent, record));
        }
        let lower = LowerName::new(name);
        let domain = self.domains.iter().find(|domain| domain.zone_of(&lower))?;
        let apex = Name::from(domain.clone());
        if *domain == lower {
            return Some(no_data(question, &apex));
        }
        let address = self.addresses.get(&lower);
        let record = address.map(|address| (RecordType::A, RData::A(A(*address))));
        Some(answer(question, &apex, record))
    }
}

/// What is at the name, if anything is.
fn answer(question: &Question, apex: &Name, at: Option<(RecordType, RData)>) -> Vec<u8> {
    let Some((kind, data)) = at else {
        return question.answer(ResponseCode::NXDomain, Vec::new(), Some(soa(apex)));
    };
    let query = question.query();
    if query.query_type() == kind || query.query_type() == RecordType::ANY {
        let record = Record::from_rdata(query.name().clone(), TTL, data);
        question.answer(ResponseCode::NoError, vec![record], None)
    } else {
        no_data(question, apex)
    }
}

/// The name is there, and nothing of the type asked for (RFC 2308, 2.2).
fn no_data(question: &Question, apex: &Name) -> Vec<u8> {
    question.answer(ResponseCode::NoError, Vec::new(), Some(soa(apex)))
}

/// The zone has no server and no one responsible that another could ask; RFC 6303, 3 has the same for local zones.
fn soa(apex: &Name) -> Record {
    let nobody = Name::from_ascii("nobody.invalid.").unwrap_or_default();
    let data = SOA::new(apex.clone(), nobody, 1, 3600, 1200, 604_800, NEGATIVE_TTL);
    Record::from_rdata(apex.clone(), NEGATIVE_TTL, RData::SOA(data))
}

/// The address of a whole reverse name.
fn reverse(name: &Name) -> Option<Ipv4Addr> {
    if name.num_labels() != REVERSE_LABELS {
        return None;
    }
    match name.parse_arpa_name().ok()? {
        IpNet::V4(net) if net.prefix_len() == 32 => Some(net.addr()),
        _ => None,
    }
}
