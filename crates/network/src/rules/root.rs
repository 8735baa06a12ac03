//! The rules that a VPC needs in the root namespace: masquerading, forwarding, and a closed door to the host itself.

use crate::names::{root_table_of, uplink_name};
use crate::plan::Plan;

/// Replaces the VPC's table in the root namespace. An accept here ends only this table: a host whose own rules drop
/// forwarded packets by default (Docker's do) must admit `hv*` itself.
pub(crate) fn root_rules(plan: &Plan) -> String {
    let table = root_table_of(&plan.vpc_id);
    let uplink = uplink_name(&plan.vpc_id);
    let pool = plan.public_pool.trunc();
    format!(
        r#"table inet {table}
delete table inet {table}
table inet {table} {{
	chain leaving {{
		type nat hook postrouting priority srcnat; policy accept;
		# The pool is known on this host only.
		oifname != "hv*" ip saddr {pool} masquerade
	}}
	chain forwarding {{
		type filter hook forward priority filter; policy accept;
		iifname "{uplink}" ip saddr != {pool} drop
		iifname "{uplink}" accept
		oifname "{uplink}" accept
	}}
	chain to_host {{
		type filter hook input priority filter; policy accept;
		# Guests see no port of the host; answers to what the host itself began come back.
		iifname "{uplink}" ct state established,related accept
		iifname "{uplink}" ip saddr {pool} icmp type echo-request accept
		iifname "{uplink}" drop
	}}
}}
"#
    )
}

/// Takes them away again, also when they were never there.
pub(crate) fn remove_root_rules(vpc_id: &str) -> String {
    let table = root_table_of(vpc_id);
    format!("table inet {table}\ndelete table inet {table}\n")
}
