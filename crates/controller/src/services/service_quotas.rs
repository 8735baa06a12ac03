//! How much of what an account may have: what `hearthd` holds it to.
//! <https://docs.aws.amazon.com/servicequotas/latest/userguide/intro.html>

use hearth_api::page::{Page, paginate};
use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};

use super::volumes::{devices, quotas};
use super::{iam, input, instances, route_tables, security_groups, serve, subnets};
use crate::app::App;
use crate::config::Config;
use crate::state::{self, Bound, Entity as _, Noun as _};

/// Items of one answer.
const MOST: i32 = 100;
const ACCOUNT: &str = "ACCOUNT";
const RESOURCE: &str = "RESOURCE";

serve! { service_quotas_server::ServiceQuotas as ServiceQuotas {
    get_service_quota(GetServiceQuotaRequest) -> GetServiceQuotaResponse: get;
    list_service_quotas(ListServiceQuotasRequest) -> ListServiceQuotasResponse: list;
    get_aws_default_service_quota(GetAwsDefaultServiceQuotaRequest) -> GetAwsDefaultServiceQuotaResponse: get_default;
    list_aws_default_service_quotas(ListAwsDefaultServiceQuotasRequest) -> ListAwsDefaultServiceQuotasResponse: list_defaults;
    list_services(ListServicesRequest) -> ListServicesResponse: services;
} }

/// Services that have quotas, in the order of their codes.
const SERVICES: [(&str, &str); 4] = [
    ("ebs", "Amazon Elastic Block Store (Amazon EBS)"),
    ("ec2", "Amazon Elastic Compute Cloud (Amazon EC2)"),
    ("iam", "AWS Identity and Access Management (IAM)"),
    ("vpc", "Amazon Virtual Private Cloud (Amazon VPC)"),
];

/// How much there may be of something.
struct Quota {
    service: &'static str,
    /// AWS's, where AWS counts the same thing.
    code: &'static str,
    name: &'static str,
    level: &'static str,
    most: Most,
}

enum Most {
    Always(usize),
    /// A noun says it.
    Bound(Option<Bound>),
    /// An option of hearthd's says it: its name, its default, and what it says.
    Told(&'static str, u32, fn(&Config) -> u32),
}

const fn quota(
    service: &'static str,
    code: &'static str,
    name: &'static str,
    level: &'static str,
    most: Most,
) -> Quota {
    Quota {
        service,
        code,
        name,
        level,
        most,
    }
}

/// By service and code.
const QUOTAS: &[Quota] = &[
    quota(
        "ebs",
        "L-09BD8365",
        "Storage for Provisioned IOPS SSD (io2) volumes, in TiB",
        ACCOUNT,
        Most::Always(quotas::MAX_TIB),
    ),
    quota(
        "ebs",
        "L-17AF77E8",
        "Storage for Cold HDD (sc1) volumes, in TiB",
        ACCOUNT,
        Most::Always(quotas::MAX_TIB),
    ),
    quota(
        "ebs",
        "L-7A658B76",
        "Storage for General Purpose SSD (gp3) volumes, in TiB",
        ACCOUNT,
        Most::Always(quotas::MAX_TIB),
    ),
    quota(
        "ebs",
        "L-82ACEF56",
        "Storage for Throughput Optimized HDD (st1) volumes, in TiB",
        ACCOUNT,
        Most::Always(quotas::MAX_TIB),
    ),
    quota(
        "ebs",
        "L-8D977E7E",
        "IOPS for Provisioned IOPS SSD (io2) volumes",
        ACCOUNT,
        Most::Always(quotas::IO2_IOPS),
    ),
    quota(
        "ebs",
        "L-9CF3C2EB",
        "Storage for Magnetic (standard) volumes, in TiB",
        ACCOUNT,
        Most::Always(quotas::MAX_TIB),
    ),
    quota(
        "ebs",
        "L-B3A130E6",
        "IOPS for Provisioned IOPS SSD (io1) volumes",
        ACCOUNT,
        Most::Always(quotas::IO1_IOPS),
    ),
    quota(
        "ebs",
        "L-D18FCD1D",
        "Storage for General Purpose SSD (gp2) volumes, in TiB",
        ACCOUNT,
        Most::Always(quotas::MAX_TIB),
    ),
    quota(
        "ebs",
        "L-FD252861",
        "Storage for Provisioned IOPS SSD (io1) volumes, in TiB",
        ACCOUNT,
        Most::Always(quotas::MAX_TIB),
    ),
    quota(
        "ebs",
        "hearth-attachments",
        "Volumes per instance",
        RESOURCE,
        Most::Always(devices::MAX_VOLUMES),
    ),
    quota(
        "ebs",
        "hearth-snapshots",
        "Snapshots",
        ACCOUNT,
        Most::Bound(state::Snapshot::BOUND),
    ),
    quota(
        "ec2",
        "L-B665C33B",
        "AMIs",
        ACCOUNT,
        Most::Told("--image-limit", 1000, |config| config.image_limit),
    ),
    quota(
        "ec2",
        "hearth-client-tokens",
        "Client tokens",
        ACCOUNT,
        Most::Bound(state::ClientToken::BOUND),
    ),
    quota(
        "ec2",
        "hearth-image-gib",
        "GiB of the disks of AMIs",
        ACCOUNT,
        Most::Told("--image-gib-limit", 4096, |config| config.image_gib_limit),
    ),
    quota(
        "ec2",
        "hearth-instances",
        "Instances",
        ACCOUNT,
        Most::Told("--instance-limit", 1000, |config| config.instance_limit),
    ),
    quota(
        "ec2",
        "hearth-key-pairs",
        "Key pairs",
        ACCOUNT,
        Most::Bound(state::KeyPair::BOUND),
    ),
    quota(
        "ec2",
        "hearth-placement-groups",
        "Placement groups",
        ACCOUNT,
        Most::Bound(state::PlacementGroup::BOUND),
    ),
    quota(
        "ec2",
        "hearth-resource-tags",
        "Tags of all resources",
        ACCOUNT,
        Most::Bound(Some(state::TAGS)),
    ),
    quota(
        "ec2",
        "hearth-tags",
        "Tags per resource",
        RESOURCE,
        Most::Always(input::MAX_TAGS),
    ),
    quota(
        "iam",
        "L-0DA4ABF3",
        "Managed policies per role",
        RESOURCE,
        Most::Always(iam::MOST_ATTACHED),
    ),
    quota(
        "iam",
        "L-384571C4",
        "Managed policies per group",
        RESOURCE,
        Most::Always(iam::MOST_ATTACHED),
    ),
    quota(
        "iam",
        "L-4019AD8B",
        "Managed policies per user",
        RESOURCE,
        Most::Always(iam::MOST_ATTACHED),
    ),
    quota(
        "iam",
        "L-6E65F664",
        "Instance profiles per account",
        ACCOUNT,
        Most::Always(state::InstanceProfile::QUOTA.1),
    ),
    quota(
        "iam",
        "L-E95E4862",
        "Customer managed policies per account",
        ACCOUNT,
        Most::Always(state::Policy::QUOTA.1),
    ),
    quota(
        "iam",
        "L-F4A5425F",
        "Groups per account",
        ACCOUNT,
        Most::Always(state::Group::QUOTA.1),
    ),
    quota(
        "iam",
        "L-F55AF5E4",
        "Users per account",
        ACCOUNT,
        Most::Always(state::User::QUOTA.1),
    ),
    quota(
        "iam",
        "L-FE177D64",
        "Roles per account",
        ACCOUNT,
        Most::Always(state::Role::QUOTA.1),
    ),
    quota(
        "iam",
        "hearth-access-keys",
        "Access keys per user",
        RESOURCE,
        Most::Always(iam::MOST_KEYS),
    ),
    quota(
        "iam",
        "hearth-groups-per-user",
        "Groups per user",
        RESOURCE,
        Most::Always(iam::MOST_GROUPS),
    ),
    quota(
        "vpc",
        "L-0EA8095F",
        "Inbound or outbound rules per security group",
        RESOURCE,
        Most::Always(security_groups::MAX_RULES),
    ),
    quota(
        "vpc",
        "L-2AFB9258",
        "Security groups per network interface",
        RESOURCE,
        Most::Always(instances::MAX_GROUPS),
    ),
    quota(
        "vpc",
        "L-407747CB",
        "Subnets per VPC",
        RESOURCE,
        Most::Always(subnets::MOST),
    ),
    quota(
        "vpc",
        "L-589F43AA",
        "Route tables per VPC",
        RESOURCE,
        Most::Always(route_tables::MOST),
    ),
    quota(
        "vpc",
        "L-93826ACB",
        "Routes per route table",
        RESOURCE,
        Most::Always(route_tables::MOST_ROUTES),
    ),
    quota(
        "vpc",
        "L-A4707A72",
        "Internet gateways per Region",
        ACCOUNT,
        Most::Bound(state::InternetGateway::BOUND),
    ),
    quota(
        "vpc",
        "L-E79EC296",
        "VPC security groups per Region",
        ACCOUNT,
        Most::Bound(state::SecurityGroup::BOUND),
    ),
    quota(
        "vpc",
        "L-F678F1CE",
        "VPCs per Region",
        ACCOUNT,
        Most::Bound(state::Vpc::BOUND),
    ),
];

fn service_name(code: &str) -> Result<&'static str, ApiError> {
    let found = SERVICES.iter().find(|(known, _)| *known == code);
    found.map(|(_, name)| *name).ok_or_else(|| {
        no_such(format!(
            "The service '{code}' has no quotas. ListServices lists those that have."
        ))
    })
}

fn no_such(message: String) -> ApiError {
    ApiError::new(ErrorCode::NoSuchResourceException, message)
}

/// A quota as it is, or as it is unless options of hearthd say otherwise.
fn tell(app: &App, quota: &Quota, is_default: bool) -> Result<ServiceQuota, ApiError> {
    let (value, description) = match &quota.most {
        Most::Always(most) | Most::Bound(Some(Bound { most, .. })) => {
            (u32::try_from(*most).unwrap_or(u32::MAX), String::new())
        }
        Most::Bound(None) => {
            let message = format!("The quota '{}' is none of Hearth's.", quota.name);
            return Err(no_such(message));
        }
        Most::Told(option, default, told) => {
            let value = if is_default { *default } else { told(&app.config) };
            (value, format!("The option {option} of hearthd changes it."))
        }
    };
    let is_global = quota.service == "iam";
    let scope = app.scope();
    let region = if is_global { "" } else { scope.region() };
    Ok(ServiceQuota {
        service_code: quota.service.to_owned(),
        service_name: service_name(quota.service)?.to_owned(),
        quota_arn: format!(
            "arn:aws:servicequotas:{region}:{}:{}/{}",
            scope.account_id(),
            quota.service,
            quota.code
        ),
        quota_code: quota.code.to_owned(),
        quota_name: quota.name.to_owned(),
        value: value.into(),
        unit: "None".to_owned(),
        adjustable: false,
        global_quota: is_global,
        quota_applied_at_level: quota.level.to_owned(),
        description,
    })
}

fn find(app: &App, service: &str, code: &str, is_default: bool) -> Result<ServiceQuota, ApiError> {
    service_name(service)?;
    let found = QUOTAS
        .iter()
        .find(|quota| quota.service == service && quota.code == code);
    let found = found.ok_or_else(|| {
        no_such(format!(
            "The service '{service}' has no quota '{code}'. ListServiceQuotas lists those that it has."
        ))
    })?;
    tell(app, found, is_default)
}

/// A page, whose token is refused in the words of this service.
fn page<S, T>(
    items: impl IntoIterator<Item = S>,
    (max_results, next_token): (Option<i32>, &str),
    key: impl Fn(&S) -> String,
    tell: impl Fn(S) -> Option<T>,
) -> Result<(Vec<T>, String), ApiError> {
    let told = paginate(items, Page::of_at_most(MOST, max_results, next_token), key, tell);
    told.map_err(|error| match error.code {
        ErrorCode::InvalidNextToken => {
            ApiError::new(ErrorCode::InvalidPaginationTokenException, error.message)
        }
        _ => error,
    })
}

/// A service's quotas that a request wants.
fn page_of(
    app: &App,
    service: &str,
    asked: (Option<i32>, &str),
    is_default: bool,
    is_wanted: impl Fn(&Quota) -> bool,
) -> Result<(Vec<ServiceQuota>, String), ApiError> {
    service_name(service)?;
    let quotas = QUOTAS
        .iter()
        .filter(|quota| quota.service == service && is_wanted(quota));
    let key = |quota: &&Quota| quota.code.to_owned();
    page(quotas, asked, key, |quota| tell(app, quota, is_default).ok())
}

async fn get(app: &App, request: GetServiceQuotaRequest) -> Result<GetServiceQuotaResponse, ApiError> {
    let quota = find(app, &request.service_code, &request.quota_code, false)?;
    Ok(GetServiceQuotaResponse { quota: Some(quota) })
}

async fn get_default(
    app: &App,
    request: GetAwsDefaultServiceQuotaRequest,
) -> Result<GetAwsDefaultServiceQuotaResponse, ApiError> {
    let quota = find(app, &request.service_code, &request.quota_code, true)?;
    Ok(GetAwsDefaultServiceQuotaResponse { quota: Some(quota) })
}

async fn list(app: &App, request: ListServiceQuotasRequest) -> Result<ListServiceQuotasResponse, ApiError> {
    let level = match request.quota_applied_at_level.as_str() {
        "" => ACCOUNT,
        level @ (ACCOUNT | RESOURCE | "ALL") => level,
        other => {
            let expected = "Expecting ACCOUNT, RESOURCE or ALL.";
            return Err(ApiError::invalid_value("QuotaAppliedAtLevel", other, expected));
        }
    };
    // Who names a quota wants it, whatever its level.
    let is_wanted = |quota: &Quota| match request.quota_code.as_str() {
        "" => level == "ALL" || quota.level == level,
        code => quota.code == code,
    };
    let asked = (request.max_results, request.next_token.as_str());
    let (quotas, next_token) = page_of(app, &request.service_code, asked, false, is_wanted)?;
    Ok(ListServiceQuotasResponse { next_token, quotas })
}

async fn list_defaults(
    app: &App,
    request: ListAwsDefaultServiceQuotasRequest,
) -> Result<ListAwsDefaultServiceQuotasResponse, ApiError> {
    let asked = (request.max_results, request.next_token.as_str());
    let (quotas, next_token) = page_of(app, &request.service_code, asked, true, |_| true)?;
    Ok(ListAwsDefaultServiceQuotasResponse { next_token, quotas })
}

async fn services(_: &App, request: ListServicesRequest) -> Result<ListServicesResponse, ApiError> {
    let asked = (request.max_results, request.next_token.as_str());
    let tell = |(code, name): (&str, &str)| {
        Some(ServiceInfo {
            service_code: code.to_owned(),
            service_name: name.to_owned(),
        })
    };
    let (services, next_token) = page(SERVICES, asked, |(code, _)| (*code).to_owned(), tell)?;
    Ok(ListServicesResponse { next_token, services })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages go on from codes, and callers find quotas by them.
    #[test]
    fn quotas_are_in_the_order_of_their_codes() {
        let codes: Vec<_> = QUOTAS.iter().map(|quota| (quota.service, quota.code)).collect();
        assert!(codes.is_sorted_by(|one, other| one < other), "{codes:?}");
        assert!(SERVICES.is_sorted());
        assert!(QUOTAS.iter().all(|quota| service_name(quota.service).is_ok()));
        assert!(
            QUOTAS
                .iter()
                .all(|quota| !matches!(quota.most, Most::Bound(None)))
        );
    }
}
