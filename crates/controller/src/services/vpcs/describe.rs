//! DescribeVpcs, and what older clients ask of EC2-Classic.

use hearth_api::filter::{Filters, Known, no};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    ClassicLinkDnsSupport, DescribeVpcClassicLinkDnsSupportRequest, DescribeVpcClassicLinkDnsSupportResult,
    DescribeVpcClassicLinkRequest, DescribeVpcClassicLinkResult, DescribeVpcsRequest, DescribeVpcsResponse,
    Vpc, VpcCidrBlockAssociation, VpcCidrBlockState, VpcClassicLink,
};
use hearth_api::{ApiError, Kind};

use crate::app::App;
use crate::services::input;
use crate::state::noun::tell_tags;
use crate::state::{self, DEFAULT_TENANCY, State};

pub(in crate::services) const FILTERS: Known<Vpc> = known! {
    tags: |item| &item.tags;
    "cidr" => cidr_block,
    "cidr-block-association.association-id" => cidr_block_association_set.association_id,
    "cidr-block-association.cidr-block" => cidr_block_association_set.cidr_block,
    "cidr-block-association.state" => cidr_block_association_set.cidr_block_state.state,
    "dhcp-options-id" => none,
    "ipv6-cidr-block-association.association-id" => none,
    "ipv6-cidr-block-association.ipv6-cidr-block" => none,
    "ipv6-cidr-block-association.ipv6-pool" => none,
    "ipv6-cidr-block-association.state" => none,
    "is-default" => is_default,
    "isDefault" => is_default,
    "owner-id" => owner_id,
    "state" => state,
    "vpc-id" => vpc_id,
};

pub(in crate::services) const CLASSIC_FILTERS: Known<VpcClassicLink> = known! {
    tags: |item| &item.tags;
    "is-classic-link-enabled" => (no),
};

/// The VPCs with these ids; none: all.
///
/// # Errors
/// One of them is not there.
fn wanted<'s>(state: &'s State, ids: &[String]) -> Result<impl Iterator<Item = &'s state::Vpc>, ApiError> {
    input::all_known(Kind::Vpc, ids, |id| state.get::<state::Vpc>(id).is_some())?;
    let is_wanted = |vpc: &&state::Vpc| ids.is_empty() || ids.contains(&vpc.id);
    Ok(state.all::<state::Vpc>().filter(is_wanted))
}

pub(super) async fn describe(
    app: &App,
    request: DescribeVpcsRequest,
) -> Result<DescribeVpcsResponse, ApiError> {
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(&request.vpc_ids, page, "vpcSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    let wanted = wanted(&state, &request.vpc_ids)?;
    let tell = |row: &state::Vpc| {
        let vpc = tell(row);
        filters.matches(&vpc).then_some(vpc)
    };
    let (vpcs, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeVpcsResponse { vpcs, next_token })
}

pub(super) fn tell(row: &state::Vpc) -> Vpc {
    Vpc {
        vpc_id: row.id.clone(),
        cidr_block: row.cidr.to_string(),
        state: "available".into(),
        is_default: row.is_default,
        owner_id: row.account_id.clone(),
        instance_tenancy: DEFAULT_TENANCY.into(),
        cidr_block_association_set: vec![VpcCidrBlockAssociation {
            // The first block's association is told apart by its VPC alone.
            association_id: row.id.replacen("vpc-", "vpc-cidr-assoc-", 1),
            cidr_block: row.cidr.to_string(),
            cidr_block_state: Some(VpcCidrBlockState {
                state: "associated".into(),
            }),
        }],
        tags: tell_tags(&row.tags),
    }
}

/// There is no EC2-Classic: no VPC is linked to it.
pub(super) async fn classic_link(
    app: &App,
    request: DescribeVpcClassicLinkRequest,
) -> Result<DescribeVpcClassicLinkResult, ApiError> {
    let filters = Filters::new(&request.filters, &CLASSIC_FILTERS)?;
    let state = app.state();
    let wanted = wanted(&state, &request.vpc_ids)?;
    let told = wanted.map(|row| VpcClassicLink {
        classic_link_enabled: false,
        tags: tell_tags(&row.tags),
        vpc_id: row.id.clone(),
    });
    Ok(DescribeVpcClassicLinkResult {
        vpcs: told.filter(|vpc| filters.matches(vpc)).collect(),
    })
}

pub(super) async fn classic_link_dns(
    app: &App,
    request: DescribeVpcClassicLinkDnsSupportRequest,
) -> Result<DescribeVpcClassicLinkDnsSupportResult, ApiError> {
    let page = Page::new(request.max_results, &request.next_token);
    let state = app.state();
    let wanted = wanted(&state, &request.vpc_ids)?;
    let tell = |row: &state::Vpc| {
        Some(ClassicLinkDnsSupport {
            classic_link_dns_supported: false,
            vpc_id: row.id.clone(),
        })
    };
    let (vpcs, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeVpcClassicLinkDnsSupportResult { next_token, vpcs })
}
