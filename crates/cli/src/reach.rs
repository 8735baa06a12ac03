//! How `hearthd` is reached: by its socket on this machine, or over TLS with an access key, as aws is told it.
//! <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-options.html>

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use hearth_api::client::{self, Introduction, Transport};
use hearth_api::endpoint::{DEFAULT_ENDPOINT, ENDPOINT_VARIABLE, socket_path};
use hearth_api::remote::{Address, Trust};

use crate::error::CliError;
use crate::profile::{self, Profile, variable};

const SOCKET: &str = "unix:";
const NO_CREDENTIALS: &str =
    "Unable to locate credentials. You can configure credentials by running \"aws configure\".";

#[derive(Args)]
pub(crate) struct Reach {
    /// Where hearthd is: https://HOST:PORT, or unix:PATH on this machine. Unless told, what AWS_ENDPOINT_URL_EC2,
    /// AWS_ENDPOINT_URL or the profile says; else its socket.
    #[arg(long, global = true, help_heading = "Global options", env = ENDPOINT_VARIABLE, value_name = "URL")]
    endpoint_url: Option<String>,

    /// The profile of ~/.aws/config and ~/.aws/credentials; unless told, what AWS_PROFILE says.
    #[arg(long, global = true, help_heading = "Global options", value_name = "NAME")]
    profile: Option<String>,

    /// The region that calls are for. Unless told, over a network what AWS_REGION, AWS_DEFAULT_REGION or the profile says; else
    /// the cloud's home region.
    #[arg(long, global = true, help_heading = "Global options", value_name = "REGION")]
    region: Option<String>,

    /// The authorities that hearthd's certificate may be of, PEM; unless told, what AWS_CA_BUNDLE or the profile says, else those
    /// of this machine.
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    ca_bundle: Option<PathBuf>,

    /// Believes whoever answers to be hearthd.
    #[arg(long, global = true, help_heading = "Global options")]
    no_verify_ssl: bool,
}

impl Reach {
    /// # Errors
    /// The endpoint that the command line names is none.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        let checked = match self.endpoint_url.as_deref() {
            Some(url) if url.starts_with(SOCKET) => socket_path(url).map(drop),
            Some(url) => Address::parse(url).map(drop),
            None => Ok(()),
        };
        checked.map_err(|error| CliError::parameter("--endpoint-url", error))
    }

    /// Connects.
    pub(crate) async fn transport(&self) -> Result<Transport, CliError> {
        if let Some(url) = self.endpoint_url.as_deref().filter(|url| url.starts_with(SOCKET)) {
            return self.socket(url).await;
        }
        let profile = Profile::load(self.profile.as_deref())?;
        let url = match &self.endpoint_url {
            Some(url) => Some(url.clone()),
            None => configured(&profile),
        };
        match url {
            Some(url) if url.starts_with(SOCKET) => self.socket(&url).await,
            Some(url) => self.remote(&url, &profile).await,
            None => self.socket(DEFAULT_ENDPOINT).await,
        }
    }

    /// On a socket the kernel says who calls.
    async fn socket(&self, endpoint: &str) -> Result<Transport, CliError> {
        if self.profile.is_some() {
            return Err(CliError::Usage(format!(
                "--profile says nothing at {endpoint}, where calls are those of this machine's user: name hearthd's URL by \
                 --endpoint-url"
            )));
        }
        let introduction = Introduction {
            credentials: None,
            region: self.region.as_deref().map(region).transpose()?,
        };
        Ok(client::socket(endpoint, introduction).await?)
    }

    async fn remote(&self, url: &str, profile: &Profile) -> Result<Transport, CliError> {
        let address = Address::parse(url)?;
        let own = match self.profile {
            // Who names a profile means it.
            Some(_) => None,
            None => profile::of_environment()?,
        };
        let credentials = match own {
            Some(credentials) => Some(credentials),
            None => profile.credentials()?,
        };
        let credentials = credentials.ok_or_else(|| CliError::Configuration(NO_CREDENTIALS.to_owned()))?;
        let meant = self
            .region
            .clone()
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .or_else(|| profile.get("region").map(str::to_owned));
        let introduction = Introduction {
            credentials: Some(Arc::new(credentials)),
            region: meant.as_deref().map(region).transpose()?,
        };
        Ok(client::remote(address, &self.trust(profile), introduction).await?)
    }

    fn trust(&self, profile: &Profile) -> Trust {
        if self.no_verify_ssl {
            return Trust::Anybody;
        }
        let bundle = self
            .ca_bundle
            .clone()
            .or_else(|| variable("AWS_CA_BUNDLE").map(PathBuf::from))
            .or_else(|| profile.get("ca_bundle").map(PathBuf::from));
        bundle.map_or(Trust::System, Trust::Bundle)
    }
}

/// The endpoint that the environment or the profile names.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>
fn configured(profile: &Profile) -> Option<String> {
    let ignored = variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    let ignored = ignored.or_else(|| profile.get("ignore_configured_endpoint_urls").map(str::to_owned));
    if ignored.is_some_and(|ignored| ignored.eq_ignore_ascii_case("true")) {
        return None;
    }
    variable("AWS_ENDPOINT_URL_EC2")
        .or_else(|| variable("AWS_ENDPOINT_URL"))
        .or_else(|| profile.endpoint_url().map(str::to_owned))
}

fn region(name: &str) -> Result<tonic::metadata::MetadataValue<tonic::metadata::Ascii>, CliError> {
    let value = name.parse();
    value.map_err(|_| CliError::parameter("--region", format!("'{name}' is no region's name")))
}
