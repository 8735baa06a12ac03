//! Subnets: made, described, changed, deleted.
//! <https://docs.aws.amazon.com/vpc/latest/userguide/configure-subnets.html>

use super::serve;

mod create;
pub(super) mod describe;
mod modify;

pub(super) use create::MOST;

serve! { subnets_server::Subnets as Subnets {
    create_subnet(CreateSubnetRequest) -> CreateSubnetResult: create::create;
    create_default_subnet(CreateDefaultSubnetRequest) -> CreateDefaultSubnetResult: create::create_default;
    delete_subnet(DeleteSubnetRequest) -> DeleteSubnetResult: modify::delete;
    modify_subnet_attribute(ModifySubnetAttributeRequest) -> ModifySubnetAttributeResult: modify::modify;
    describe_subnets(DescribeSubnetsRequest) -> DescribeSubnetsResponse: describe::describe;
} }
