//! DescribeNetworkAcls: a view of each VPC. Its default ACL lets everything pass, which is what hosts do; it is told apart by its
//! VPC alone.
//! <https://docs.aws.amazon.com/vpc/latest/userguide/default-network-acl.html>

use hearth_api::filter::{Filters, Known};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DescribeNetworkAclsRequest, DescribeNetworkAclsResult, NetworkAcl, NetworkAclAssociation, NetworkAclEntry,
};
use hearth_api::{ApiError, ErrorCode};

use super::serve;
use crate::app::App;
use crate::state::{self, State, Subnet};

pub(super) const FILTERS: Known<NetworkAcl> = known! {
    tags: |item| &item.tags;
    "association.association-id" => associations.network_acl_association_id,
    "association.network-acl-id" => associations.network_acl_id,
    "association.subnet-id" => associations.subnet_id,
    "default" => is_default,
    "entry.cidr" => entries.cidr_block,
    "entry.egress" => entries.egress,
    "entry.icmp.code" => none,
    "entry.icmp.type" => none,
    "entry.ipv6-cidr" => none,
    "entry.port-range.from" => none,
    "entry.port-range.to" => none,
    "entry.protocol" => entries.protocol,
    "entry.rule-action" => entries.rule_action,
    "entry.rule-number" => entries.rule_number,
    "network-acl-id" => network_acl_id,
    "owner-id" => owner_id,
    "vpc-id" => vpc_id,
};

/// The numbers of the rule that lets everything pass, and of the last one.
const RULES: [(i32, &str); 2] = [(100, "allow"), (32767, "deny")];

serve! { network_acls_server::NetworkAcls as NetworkAcls {
    describe_network_acls(DescribeNetworkAclsRequest) -> DescribeNetworkAclsResult: describe;
} }

fn id_of(vpc: &state::Vpc) -> String {
    vpc.id.replacen("vpc-", "acl-", 1)
}

fn tell(state: &State, vpc: &state::Vpc) -> NetworkAcl {
    let network_acl_id = id_of(vpc);
    let association = |subnet: &Subnet| NetworkAclAssociation {
        network_acl_association_id: subnet.id.replacen("subnet-", "aclassoc-", 1),
        network_acl_id: network_acl_id.clone(),
        subnet_id: subnet.id.clone(),
    };
    let entries = [true, false].into_iter().flat_map(|egress| {
        RULES.map(|(rule_number, action)| NetworkAclEntry {
            cidr_block: "0.0.0.0/0".into(),
            egress,
            protocol: "-1".into(),
            rule_action: action.into(),
            rule_number,
        })
    });
    NetworkAcl {
        associations: state.by(&Subnet::BY_VPC, &vpc.id).map(association).collect(),
        entries: entries.collect(),
        is_default: true,
        tags: Vec::new(),
        vpc_id: vpc.id.clone(),
        owner_id: vpc.account_id.clone(),
        network_acl_id,
    }
}

async fn describe(
    app: &App,
    request: DescribeNetworkAclsRequest,
) -> Result<DescribeNetworkAclsResult, ApiError> {
    let ids = &request.network_acl_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "networkAclIdSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    let is_known = |id: &&String| state.all::<state::Vpc>().any(|vpc| id_of(vpc) == **id);
    if let Some(id) = ids.iter().find(|id| !is_known(id)) {
        return Err(ApiError::new(
            ErrorCode::InvalidNetworkAclIdNotFound,
            format!("The networkAcl ID '{id}' does not exist"),
        ));
    }
    let wanted = state
        .all::<state::Vpc>()
        .filter(|vpc| ids.is_empty() || ids.contains(&id_of(vpc)));
    let tell = |vpc: &state::Vpc| {
        let told = tell(&state, vpc);
        filters.matches(&told).then_some(told)
    };
    let (network_acls, next_token) = paginate(wanted, page, |vpc| vpc.id.clone(), tell)?;
    Ok(DescribeNetworkAclsResult {
        network_acls,
        next_token,
    })
}
