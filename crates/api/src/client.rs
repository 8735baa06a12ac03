//! A client of the public API: one connection, all services.

use tonic::transport::{Channel, Endpoint, Error};

use crate::v1::images_client::ImagesClient;
use crate::v1::instance_types_client::InstanceTypesClient;
use crate::v1::instances_client::InstancesClient;
use crate::v1::key_pairs_client::KeyPairsClient;
use crate::v1::regions_client::RegionsClient;
use crate::v1::security_groups_client::SecurityGroupsClient;
use crate::v1::subnets_client::SubnetsClient;
use crate::v1::tags_client::TagsClient;
use crate::v1::vpcs_client::VpcsClient;

/// Where `hearthd` listens unless told otherwise.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7600";

/// The environment variable that names another endpoint.
pub const ENDPOINT_VARIABLE: &str = "HEARTH_ENDPOINT";

/// Bytes of one message, both ways: a Describe without pages over thousands of instances fits.
pub const MAX_MESSAGE_SIZE: usize = 64 << 20;

/// All services of the public API over one connection. Cheap to clone; calls of clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub images: ImagesClient<Channel>,
    pub instance_types: InstanceTypesClient<Channel>,
    pub instances: InstancesClient<Channel>,
    pub key_pairs: KeyPairsClient<Channel>,
    pub regions: RegionsClient<Channel>,
    pub security_groups: SecurityGroupsClient<Channel>,
    pub subnets: SubnetsClient<Channel>,
    pub tags: TagsClient<Channel>,
    pub vpcs: VpcsClient<Channel>,
}

impl Client {
    /// Connects to an endpoint such as [`DEFAULT_ENDPOINT`].
    ///
    /// # Errors
    /// When `endpoint` is no URI, or nobody listens there.
    pub async fn connect(endpoint: &str) -> Result<Self, Error> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?
            .connect_timeout(std::time::Duration::from_secs(10))
            .http2_keep_alive_interval(std::time::Duration::from_secs(20))
            .tcp_nodelay(true)
            .connect()
            .await?;
        Ok(Self::new(channel))
    }

    /// The services over a connection that exists.
    pub fn new(channel: Channel) -> Self {
        macro_rules! service {
            ($client:ident) => {
                $client::new(channel.clone())
                    .max_decoding_message_size(MAX_MESSAGE_SIZE)
                    .max_encoding_message_size(MAX_MESSAGE_SIZE)
            };
        }
        Self {
            images: service!(ImagesClient),
            instance_types: service!(InstanceTypesClient),
            instances: service!(InstancesClient),
            key_pairs: service!(KeyPairsClient),
            regions: service!(RegionsClient),
            security_groups: service!(SecurityGroupsClient),
            subnets: service!(SubnetsClient),
            tags: service!(TagsClient),
            vpcs: service!(VpcsClient),
        }
    }
}
