//! Internet gateways: what subnets use by their routes. The host translates public addresses at the edge of the VPC.
//! <https://docs.aws.amazon.com/vpc/latest/userguide/VPC_Internet_Gateway.html>

use hearth_api::filter::{Filters, Known};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use serde_json::json;

use super::{input, serve};
use crate::app::App;
use crate::state::noun::{keep_tags, tell_tags};
use crate::state::{self, NetworkInterface, Vpc};

pub(super) const FILTERS: Known<InternetGateway> = known! {
    tags: |item| &item.tags;
    "attachment.state" => attachments.state,
    "attachment.vpc-id" => attachments.vpc_id,
    "internet-gateway-id" => internet_gateway_id,
    "owner-id" => owner_id,
};

serve! { internet_gateways_server::InternetGateways as InternetGateways {
    create_internet_gateway(CreateInternetGatewayRequest) -> CreateInternetGatewayResult: create;
    attach_internet_gateway(AttachInternetGatewayRequest) -> AttachInternetGatewayResult: attach;
    detach_internet_gateway(DetachInternetGatewayRequest) -> DetachInternetGatewayResult: detach;
    delete_internet_gateway(DeleteInternetGatewayRequest) -> DeleteInternetGatewayResult: delete;
    describe_internet_gateways(DescribeInternetGatewaysRequest) -> DescribeInternetGatewaysResult: describe;
} }

fn tell(row: &state::InternetGateway) -> InternetGateway {
    let attachment = |vpc_id: &String| InternetGatewayAttachment {
        state: "available".into(),
        vpc_id: vpc_id.clone(),
    };
    InternetGateway {
        attachments: row.vpc_id.iter().map(attachment).collect(),
        internet_gateway_id: row.id.clone(),
        owner_id: row.account_id.clone(),
        tags: tell_tags(&row.tags),
    }
}

async fn create(
    app: &App,
    request: CreateInternetGatewayRequest,
) -> Result<CreateInternetGatewayResult, ApiError> {
    let made = Kind::InternetGateway;
    let tags = input::tags_for(&request.tag_specifications, &[made], made)?;
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let row = state::InternetGateway {
                id: Id::new(made).to_string(),
                account_id: scope.account_id().to_owned(),
                region: scope.region().to_owned(),
                vpc_id: None,
                created_at: tx.now(),
                tags: keep_tags(&tags),
            };
            tx.audit(json!({ "internet_gateway": row.id }));
            tx.event("internet-gateway.created", &row.id);
            let internet_gateway = Some(tell(&row));
            tx.put(row);
            Ok(CreateInternetGatewayResult { internet_gateway })
        })
        .await
}

/// The ids of a gateway and a VPC.
fn ids(gateway: &str, vpc: &str) -> Result<(String, String), ApiError> {
    let gateway = input::id(Kind::InternetGateway, gateway, "InternetGatewayId")?.to_string();
    Ok((gateway, input::id(Kind::Vpc, vpc, "VpcId")?.to_string()))
}

fn find(state: &state::State, id: &str) -> Result<state::InternetGateway, ApiError> {
    let found = state.own::<state::InternetGateway>(id).cloned();
    found.ok_or_else(|| Kind::InternetGateway.not_found(&[id]))
}

async fn attach(
    app: &App,
    request: AttachInternetGatewayRequest,
) -> Result<AttachInternetGatewayResult, ApiError> {
    let (id, vpc_id) = ids(&request.internet_gateway_id, &request.vpc_id)?;
    app.store
        .transact(move |tx| {
            let mut row = find(tx, &id)?;
            if tx.own::<Vpc>(&vpc_id).is_none() {
                return Err(Kind::Vpc.not_found(&[&vpc_id]));
            }
            if let Some(attached) = &row.vpc_id {
                return Err(ApiError::new(
                    ErrorCode::ResourceAlreadyAssociated,
                    format!("resource {id} is already attached to network {attached}"),
                ));
            }
            if let Some(other) = tx.gateway_of(&vpc_id) {
                return Err(ApiError::new(
                    ErrorCode::InvalidParameterValue,
                    format!(
                        "Network {vpc_id} already has an internet gateway attached: {}",
                        other.id
                    ),
                ));
            }
            tx.audit(json!({ "internet_gateway": id, "vpc": vpc_id }));
            tx.event("internet-gateway.attached", &id);
            row.vpc_id = Some(vpc_id);
            tx.put(row);
            Ok(AttachInternetGatewayResult {})
        })
        .await
}

async fn detach(
    app: &App,
    request: DetachInternetGatewayRequest,
) -> Result<DetachInternetGatewayResult, ApiError> {
    let (id, vpc_id) = ids(&request.internet_gateway_id, &request.vpc_id)?;
    app.store
        .transact(move |tx| {
            let mut row = find(tx, &id)?;
            if row.vpc_id.as_ref() != Some(&vpc_id) {
                return Err(ApiError::new(
                    ErrorCode::GatewayNotAttached,
                    format!("resource {id} is not attached to network {vpc_id}"),
                ));
            }
            let mut interfaces = tx.by(&NetworkInterface::BY_VPC, &vpc_id);
            if let Some(interface) = interfaces.find(|interface| interface.public_ip.is_some()) {
                return Err(ApiError::new(
                    ErrorCode::DependencyViolation,
                    format!(
                        "Network {vpc_id} has some mapped public address(es). Please unmap those public address(es) \
                         before detaching the gateway: {} has one. Stop or terminate its instance.",
                        interface.id
                    ),
                ));
            }
            drop(interfaces);
            row.vpc_id = None;
            tx.put(row);
            tx.audit(json!({ "internet_gateway": id, "vpc": vpc_id }));
            tx.event("internet-gateway.detached", &id);
            Ok(DetachInternetGatewayResult {})
        })
        .await
}

/// Routes that name it stay, and lead nowhere.
async fn delete(
    app: &App,
    request: DeleteInternetGatewayRequest,
) -> Result<DeleteInternetGatewayResult, ApiError> {
    let given = &request.internet_gateway_id;
    let id = input::id(Kind::InternetGateway, given, "InternetGatewayId")?.to_string();
    app.store
        .transact(move |tx| {
            if let Some(vpc_id) = find(tx, &id)?.vpc_id {
                return Err(ApiError::new(
                    ErrorCode::DependencyViolation,
                    format!(
                        "The internetGateway '{id}' has dependencies and cannot be deleted: it is attached to {vpc_id}. \
                         Detach it first."
                    ),
                ));
            }
            tx.remove::<state::InternetGateway>(&id);
            tx.audit(json!({ "internet_gateway": id }));
            tx.event("internet-gateway.deleted", &id);
            Ok(DeleteInternetGatewayResult {})
        })
        .await
}

async fn describe(
    app: &App,
    request: DescribeInternetGatewaysRequest,
) -> Result<DescribeInternetGatewaysResult, ApiError> {
    let ids = &request.internet_gateway_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "internetGatewayIdSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::InternetGateway, ids, |id| {
        state.get::<state::InternetGateway>(id).is_some()
    })?;
    let wanted = state
        .all::<state::InternetGateway>()
        .filter(|row| ids.is_empty() || ids.contains(&row.id));
    let tell = |row: &state::InternetGateway| {
        let told = tell(row);
        filters.matches(&told).then_some(told)
    };
    let (internet_gateways, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeInternetGatewaysResult {
        internet_gateways,
        next_token,
    })
}
