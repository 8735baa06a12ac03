//! The nouns, one file for each or for a few that belong together.

mod access_keys;
mod account_settings;
mod accounts;
mod attachment;
mod cloud;
mod hosts;
pub mod iam;
mod images;
mod incarnations;
mod instances;
mod key_pairs;
mod kms;
mod kms_grants;
mod moves;
mod names;
mod networks;
mod placement;
mod regions;
mod routes;
mod scrubs;
mod security_groups;
mod snapshots;
mod volumes;

pub use access_keys::{AccessKey, base32, new_secret};
pub use account_settings::{AccountSettings, MetadataDefaults};
pub use accounts::Account;
pub use attachment::{Attachment, PRIMARY, Progress};
pub use cloud::{ClientToken, Cloud};
pub use hosts::{Admission, Drain, Host, HostKey, HostReport, JoinToken, MAX_REPAIRS, Repair};
pub use iam::{Bearer, Entity, Grants, Group, InstanceProfile, Policy, PolicyVersion, Role, User};
pub use images::{AVAILABLE, DEREGISTERED, Image, ImageDevice, ImageSource, PENDING, StoreMapping};
pub use incarnations::Incarnation;
pub use instances::{
    AUTO_RECOVERY_DEFAULT, AUTO_RECOVERY_DISABLED, Instance, METADATA_TAGS_ENABLED, Observation,
    ProfileAssociation, Reservation, SHUTDOWN_STOP, SHUTDOWN_TERMINATE, StoreDisk, store_gib,
};
pub use key_pairs::KeyPair;
pub use kms::{Encryption, KmsAlias, KmsKey, Material};
pub use kms_grants::{Constraints, KmsGrant};
pub use moves::{Move, Stage};
pub use networks::{NetworkInterface, Subnet, Vpc, address_key, block_key, hex};
pub use placement::{DEFAULT_TENANCY, PlacementGroup, PlacementGroupMember, Strategy};
pub use regions::Region;
pub use routes::{Association, InternetGateway, RouteTable};
pub use scrubs::{MAX_DAMAGES, Scrub, ScrubState, StorageDamage};
pub use security_groups::{SecurityGroup, SecurityGroupRule, folded};
pub use snapshots::{Base, Contents, Copying, Disk, Pending, Snapshot};
pub use volumes::{Known, Modification, ModificationState, Volume};

/// Hands the list of all nouns, with the names of their tables, to a macro.
macro_rules! all {
    ($then:ident) => {
        $then! {
            clouds: Cloud,
            account_settings: AccountSettings,
            accounts: Account,
            regions: Region,
            hosts: Host,
            host_reports: HostReport,
            host_keys: HostKey,
            join_tokens: JoinToken,
            vpcs: Vpc,
            subnets: Subnet,
            internet_gateways: InternetGateway,
            route_tables: RouteTable,
            security_groups: SecurityGroup,
            security_group_rules: SecurityGroupRule,
            key_pairs: KeyPair,
            kms_keys: KmsKey,
            kms_aliases: KmsAlias,
            kms_grants: KmsGrant,
            images: Image,
            reservations: Reservation,
            client_tokens: ClientToken,
            instances: Instance,
            observations: Observation,
            incarnations: Incarnation,
            network_interfaces: NetworkInterface,
            volumes: Volume,
            moves: Move,
            snapshots: Snapshot,
            scrubs: Scrub,
            users: User,
            groups: Group,
            roles: Role,
            instance_profiles: InstanceProfile,
            policies: Policy,
            access_keys: AccessKey,
            placement_groups: PlacementGroup,
            placement_group_members: PlacementGroupMember,
        }
    };
}
pub(super) use all;
