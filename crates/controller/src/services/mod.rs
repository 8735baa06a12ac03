//! The public API: one file or folder per EC2 noun. Each call is validated, does its work in one transaction, and
//! answers in EC2's words. Every error carries EC2's code and says what to do.

use std::sync::Arc;

use hearth_api::client::{MAX_ANSWER, MAX_REQUEST, SERVICES};
use hearth_api::v1::account_settings_server::AccountSettingsServer;
use hearth_api::v1::accounts_server::AccountsServer;
use hearth_api::v1::cloud_regions_server::CloudRegionsServer;
use hearth_api::v1::ec2_instance_connect_server::Ec2InstanceConnectServer;
use hearth_api::v1::hosts_server::HostsServer;
use hearth_api::v1::iam_groups_server::IamGroupsServer;
use hearth_api::v1::iam_instance_profiles_server::IamInstanceProfilesServer;
use hearth_api::v1::iam_policies_server::IamPoliciesServer;
use hearth_api::v1::iam_roles_server::IamRolesServer;
use hearth_api::v1::iam_users_server::IamUsersServer;
use hearth_api::v1::image_disks_server::ImageDisksServer;
use hearth_api::v1::images_server::ImagesServer;
use hearth_api::v1::instance_types_server::InstanceTypesServer;
use hearth_api::v1::instances_server::InstancesServer;
use hearth_api::v1::internet_gateways_server::InternetGatewaysServer;
use hearth_api::v1::key_pairs_server::KeyPairsServer;
use hearth_api::v1::kms_server::KmsServer;
use hearth_api::v1::network_acls_server::NetworkAclsServer;
use hearth_api::v1::network_interfaces_server::NetworkInterfacesServer;
use hearth_api::v1::placement_groups_server::PlacementGroupsServer;
use hearth_api::v1::profile_associations_server::ProfileAssociationsServer;
use hearth_api::v1::regions_server::RegionsServer;
use hearth_api::v1::route_tables_server::RouteTablesServer;
use hearth_api::v1::security_groups_server::SecurityGroupsServer;
use hearth_api::v1::service_quotas_server::ServiceQuotasServer;
use hearth_api::v1::snapshots_server::SnapshotsServer;
use hearth_api::v1::ssm_server::SsmServer;
use hearth_api::v1::storage_server::StorageServer;
use hearth_api::v1::sts_server::StsServer;
use hearth_api::v1::subnets_server::SubnetsServer;
use hearth_api::v1::tags_server::TagsServer;
use hearth_api::v1::volumes_server::VolumesServer;
use hearth_api::v1::vpcs_server::VpcsServer;
use hearth_api::v1::watch_server::WatchServer;
use hearth_api::{ApiError, DESCRIPTORS};
use tonic::service::Routes;
use tonic::{Response, Status};

use crate::app::App;

mod account_settings;
mod accounts;
mod client_tokens;
mod cloud_regions;
#[cfg(test)]
mod documented;
mod encryption;
mod hosts;
mod iam;
mod image_attributes;
mod image_disks;
mod images;
mod input;
mod instance_connect;
mod instance_types;
mod instances;
mod internet_gateways;
mod join_tokens;
mod key_pairs;
mod kms;
mod network_acls;
mod network_interfaces;
mod placement;
mod profile_associations;
mod regions;
mod requirements;
mod route_tables;
mod security_groups;
mod service_quotas;
mod sharing;
mod snapshots;
pub(crate) mod ssm;
mod storage;
mod sts;
mod subnets;
mod tags;
mod volumes;
mod vpcs;
mod watch;

pub use image_disks::Imports;
pub(crate) use image_disks::partial::sweep as sweep_partial_uploads;
pub(crate) use instances::TOKENS_OPTIONAL;
pub(crate) use profile_associations::tell_profile;
pub use storage::Surveys;
pub(crate) use volumes::devices::Slot;

/// Ends every rpc.
fn answer<T>(result: Result<T, ApiError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(Status::from)
}

/// A service whose calls are each a function of the app and the request.
macro_rules! serve {
    ($module:ident::$service:ident as $name:ident {
        $($rpc:ident($request:ident) -> $answer:ident: $call:path;)*
    }) => {
        pub(in $crate::services) struct $name(pub(in $crate::services) std::sync::Arc<$crate::app::App>);

        #[tonic::async_trait]
        impl hearth_api::v1::$module::$service for $name {
            $(async fn $rpc(
                &self,
                request: tonic::Request<hearth_api::v1::$request>,
            ) -> Result<tonic::Response<hearth_api::v1::$answer>, tonic::Status> {
                $crate::services::answer($call(&self.0, request.into_inner()).await)
            })*
        }
    };
}
use serve;

/// All services of the API with health and reflection (v1 and v1alpha, which grpcurl still asks for).
pub async fn routes(app: &Arc<App>) -> anyhow::Result<Routes> {
    macro_rules! service {
        ($server:ident, $noun:expr) => {
            $server::new($noun)
                .max_decoding_message_size(MAX_REQUEST)
                .max_encoding_message_size(MAX_ANSWER)
        };
    }
    let app = || Arc::clone(app);
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_serving::<InstancesServer<instances::Instances>>()
        .await;
    // The agents' protocol is in the descriptors and not served here.
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        SERVICES
            .iter()
            .fold(builder, |builder, service| builder.with_service_name(*service))
    };
    Ok(
        Routes::new(service!(InstancesServer, instances::Instances(app())))
            .add_service(service!(
                AccountSettingsServer,
                account_settings::AccountSettings(app())
            ))
            .add_service(service!(
                Ec2InstanceConnectServer,
                instance_connect::InstanceConnect(app())
            ))
            .add_service(service!(AccountsServer, accounts::Accounts(app())))
            .add_service(service!(CloudRegionsServer, cloud_regions::CloudRegions(app())))
            .add_service(service!(HostsServer, hosts::Hosts(app())))
            .add_service(service!(IamUsersServer, iam::Users(app())))
            .add_service(service!(IamGroupsServer, iam::Groups(app())))
            .add_service(service!(IamRolesServer, iam::Roles(app())))
            .add_service(service!(IamInstanceProfilesServer, iam::InstanceProfiles(app())))
            .add_service(service!(IamPoliciesServer, iam::Policies(app())))
            .add_service(service!(ImageDisksServer, image_disks::ImageDisks(app())))
            .add_service(service!(ImagesServer, images::Images(app())))
            .add_service(service!(
                InstanceTypesServer,
                instance_types::InstanceTypes(app())
            ))
            .add_service(service!(
                InternetGatewaysServer,
                internet_gateways::InternetGateways(app())
            ))
            .add_service(service!(KeyPairsServer, key_pairs::KeyPairs(app())))
            .add_service(service!(KmsServer, kms::Kms(app())))
            .add_service(service!(NetworkAclsServer, network_acls::NetworkAcls(app())))
            .add_service(service!(
                NetworkInterfacesServer,
                network_interfaces::NetworkInterfaces(app())
            ))
            .add_service(service!(PlacementGroupsServer, placement::PlacementGroups(app())))
            .add_service(service!(
                ProfileAssociationsServer,
                profile_associations::ProfileAssociations(app())
            ))
            .add_service(service!(RegionsServer, regions::Regions(app())))
            .add_service(service!(RouteTablesServer, route_tables::RouteTables(app())))
            .add_service(service!(
                SecurityGroupsServer,
                security_groups::SecurityGroups(app())
            ))
            .add_service(service!(
                ServiceQuotasServer,
                service_quotas::ServiceQuotas(app())
            ))
            .add_service(service!(SnapshotsServer, snapshots::Snapshots(app())))
            .add_service(service!(SsmServer, ssm::Ssm(app())))
            .add_service(service!(StorageServer, storage::Storage(app())))
            .add_service(service!(StsServer, sts::Sts(app())))
            .add_service(service!(SubnetsServer, subnets::Subnets(app())))
            .add_service(service!(TagsServer, tags::Tags(app())))
            .add_service(service!(VolumesServer, volumes::Volumes(app())))
            .add_service(service!(VpcsServer, vpcs::Vpcs(app())))
            .add_service(service!(WatchServer, watch::Watch(app())))
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?),
    )
}
