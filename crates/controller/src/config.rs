//! What `hearthd` is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use hearth_api::endpoint::DEFAULT_SOCKET;
use hearth_repository::Place;
use ipnet::Ipv4Net;

use crate::store::DatabaseUrl;

const UPLOADS: &str = "uploads";

#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Where the database, the AMIs' disks and the certificate authority are.
    #[arg(long, env = "HEARTH_DATA_DIR", default_value = "/var/lib/hearth/controller")]
    pub data_dir: PathBuf,

    /// The database: `sqlite`, a file in the data directory, or postgres://USER:PASSWORD@HOST:5432/DATABASE, which several
    /// hearthd may share. A password is better put into the environment or ~/.pgpass than on the command line.
    #[arg(long, env = "HEARTH_DATABASE", hide_env_values = true, value_name = "URL", default_value = DatabaseUrl::SQLITE)]
    pub database: DatabaseUrl,

    /// `HOST:PORT` at which agents, and other hearthd that share the database, dial this one. Where it listens, unless told
    /// otherwise.
    #[arg(long, env = "HEARTH_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Where AMIs and snapshots are, cut into chunks that are compressed and kept once: a directory, or s3://BUCKET/PREFIX of a
    /// store that speaks S3's protocol, whose endpoint and credentials are in the environment (AWS_ENDPOINT_URL_S3, AWS_REGION,
    /// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY). Unless told: repository in the data directory. Several hearthd that share a
    /// database share it too.
    #[arg(long, env = "HEARTH_REPOSITORY", value_name = "DIRECTORY|s3://BUCKET/PREFIX")]
    pub repository: Option<Place>,

    /// The Unix socket of the API. Members of its group may call: the group that hearthd runs as.
    #[arg(long, env = "HEARTH_SOCKET", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// Where host agents dial in (mutual TLS).
    #[arg(long, env = "HEARTH_AGENT_LISTEN", default_value = "127.0.0.1:7601")]
    pub agent_listen: SocketAddr,

    /// Where AWS's tools call, and hearth from other machines: with requests that are signed, over TLS, or in plain text from
    /// this machine. Nowhere, unless told. The owner's access key is in the file `credentials` of the data directory.
    #[arg(long, env = "HEARTH_EC2_LISTEN", value_name = "ADDRESS:PORT")]
    pub ec2_listen: Option<SocketAddr>,

    /// The certificate of that port and those that lead to its authority, PEM. A file that was replaced is read again. Without
    /// this the cloud's own authority makes one, and its certificate is in ca.pem beside the API's socket, for AWS_CA_BUNDLE.
    #[arg(
        long,
        env = "HEARTH_TLS_CERTIFICATE",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_certificate: Option<PathBuf>,

    /// The private key of that certificate, PEM.
    #[arg(
        long,
        env = "HEARTH_TLS_KEY",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    pub tls_key: Option<PathBuf>,

    /// Names and addresses, separated by commas, by which that port is called besides this machine's host name, localhost, and
    /// the addresses at which it is reached: for the certificate of the cloud's own authority.
    #[arg(
        long,
        env = "HEARTH_TLS_NAME",
        value_name = "NAME",
        value_delimiter = ',',
        conflicts_with = "tls_certificate"
    )]
    pub tls_name: Vec<String>,

    /// Answers requests in plain text of other machines on that port, too: for a proxy in front of it that ends TLS. Policies
    /// then see the proxy's address, and no TLS.
    #[arg(long, env = "HEARTH_EC2_PLAIN_HTTP")]
    pub ec2_plain_http: bool,

    /// The home region's name: of calls that say no other. What is in it stays when it gets another name. Others are made by
    /// `hearth create-region`.
    #[arg(long, env = "HEARTH_REGION", default_value = "local-1")]
    pub region: String,

    /// The home region's availability zones.
    #[arg(
        long,
        env = "HEARTH_ZONES",
        value_delimiter = ',',
        default_value = "local-1a,local-1b,local-1c"
    )]
    pub zones: Vec<String>,

    /// Public IPv4 addresses. The first is the hosts' own end of every uplink.
    #[arg(long, env = "HEARTH_PUBLIC_POOL", default_value = "198.18.0.0/24")]
    pub public_pool: Ipv4Net,

    /// The default VPC of a cloud that is new; an existing one keeps its own.
    #[arg(long, env = "HEARTH_VPC_CIDR", default_value = "172.31.0.0/16")]
    pub vpc_cidr: Ipv4Net,

    /// A file of TOML with types of instances besides EC2's (docs/homelab.md says how). It is read at the start. Several hearthd
    /// that share a database need the same.
    #[arg(long, env = "HEARTH_INSTANCE_TYPES", value_name = "FILE")]
    pub instance_types: Option<PathBuf>,

    /// Instances that an account may have in a region at the same time.
    #[arg(long, env = "HEARTH_INSTANCE_LIMIT", default_value_t = 1000)]
    pub instance_limit: u32,

    /// Images that an account may have at the same time.
    #[arg(long, env = "HEARTH_IMAGE_LIMIT", default_value_t = 1000)]
    pub image_limit: u32,

    /// GiB that may be stored for an account's images and snapshots together. Holes of images count.
    #[arg(long, env = "HEARTH_IMAGE_GIB_LIMIT", default_value_t = 4096)]
    pub image_gib_limit: u32,

    /// Seconds after which an upload that sends nothing ends. For tests.
    #[arg(long, hide = true, default_value_t = 30)]
    pub upload_idle_seconds: u32,

    /// Seconds that terminated instances stay visible.
    #[arg(long, env = "HEARTH_TERMINATED_VISIBLE", default_value_t = 3600)]
    pub terminated_visible: u32,

    /// How often an account may call, in percent of EC2's rates (RunInstances: 5 times at once, then 2 a second; other
    /// changes 50 and 5; calls that only tell 100 and 20; for each action). 0: no limit.
    #[arg(long, env = "HEARTH_REQUEST_RATE_PERCENT", default_value_t = 100)]
    pub request_rate_percent: u32,

    /// Seconds without a session after which a host counts as lost: its state is unknown, and the status of its instances
    /// is impaired. A connection that was cut off is noticed within 30 seconds; those come on top.
    #[arg(long, env = "HEARTH_HOST_SILENCE_SECONDS", default_value_t = 30)]
    pub host_silence_seconds: u32,

    /// Seconds after which a launch or a start that has come to nothing is given up.
    #[arg(long, env = "HEARTH_PENDING_SECONDS", default_value_t = 3600)]
    pub pending_seconds: u32,

    /// Seconds after which an instance that stops or shuts down is ended by force, and the attachment or the modification of a
    /// volume that has come to nothing is given up.
    #[arg(long, env = "HEARTH_ENDING_SECONDS", default_value_t = 600)]
    pub ending_seconds: u32,

    /// Seconds after which a volume that its guest does not let go is `busy`.
    #[arg(long, env = "HEARTH_BUSY_SECONDS", default_value_t = 60)]
    pub busy_seconds: u32,

    /// Seconds that certificates of hosts and of the server are valid: 90 days. For tests of their renewal.
    #[arg(long, hide = true, default_value_t = 90 * 24 * 3600)]
    pub certificate_seconds: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--region '{0}': name it by letters, digits and hyphens, such as local-1")]
    Region(String),
    #[error("--zones: name at least one availability zone, each once")]
    Zones,
    #[error("--vpc-cidr {0}: EC2 admits /16 to /28")]
    VpcCidr(Ipv4Net),
    #[error("--public-pool {0}: at least four addresses are needed, a /30 or larger")]
    PublicPool(Ipv4Net),
}

impl Config {
    pub fn repository(&self) -> Place {
        let own = || Place::Directory(self.data_dir.join("repository"));
        self.repository.clone().unwrap_or_else(own)
    }

    /// Where disks are while they are being uploaded: in the repository's directory, or the data directory.
    pub fn uploads_dir(&self) -> PathBuf {
        match self.repository() {
            Place::Directory(directory) => directory.join(UPLOADS),
            Place::Bucket { .. } => self.data_dir.join(UPLOADS),
        }
    }

    /// # Errors
    /// What is wrong, and what to do.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.region.is_empty() || !self.region.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConfigError::Region(self.region.clone()));
        }
        let distinct: std::collections::BTreeSet<_> = self.zones.iter().collect();
        if self.zones.is_empty()
            || distinct.len() != self.zones.len()
            || self.zones.iter().any(String::is_empty)
        {
            return Err(ConfigError::Zones);
        }
        if !(16..=28).contains(&self.vpc_cidr.prefix_len()) {
            return Err(ConfigError::VpcCidr(self.vpc_cidr));
        }
        if self.public_pool.prefix_len() > 30 {
            return Err(ConfigError::PublicPool(self.public_pool));
        }
        Ok(())
    }
}
