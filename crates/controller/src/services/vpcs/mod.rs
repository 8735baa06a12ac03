//! VPCs: made, described, changed, deleted.
//! <https://docs.aws.amazon.com/vpc/latest/userguide/configure-your-vpc.html>

use super::serve;

mod attributes;
mod create;
mod delete;
pub(super) mod describe;

pub(super) use create::block;

serve! { vpcs_server::Vpcs as Vpcs {
    create_vpc(CreateVpcRequest) -> CreateVpcResult: create::create;
    create_default_vpc(CreateDefaultVpcRequest) -> CreateDefaultVpcResult: create::create_default;
    delete_vpc(DeleteVpcRequest) -> DeleteVpcResult: delete::delete;
    describe_vpcs(DescribeVpcsRequest) -> DescribeVpcsResponse: describe::describe;
    describe_vpc_attribute(DescribeVpcAttributeRequest) -> DescribeVpcAttributeResult: attributes::describe;
    modify_vpc_attribute(ModifyVpcAttributeRequest) -> ModifyVpcAttributeResult: attributes::modify;
    describe_vpc_classic_link(DescribeVpcClassicLinkRequest) -> DescribeVpcClassicLinkResult: describe::classic_link;
    describe_vpc_classic_link_dns_support(DescribeVpcClassicLinkDnsSupportRequest) -> DescribeVpcClassicLinkDnsSupportResult: describe::classic_link_dns;
} }
