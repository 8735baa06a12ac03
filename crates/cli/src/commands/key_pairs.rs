//! Key pairs.

use clap::Args;
use hearth_api::v1;

use super::{DryRun, Filtering, Tagging};
use crate::context::Context;
use crate::error::CliError;
use crate::home::NewKeyFile;
use crate::shapes::Done;
use crate::shapes::key_pairs::{KeyPairs, NewKeyPair};
use crate::{parameters, terminal};

/// Makes a key pair and prints its private key, which is not kept anywhere else.
#[derive(Args)]
pub(super) struct CreateKeyPair {
    #[arg(long, value_name = "NAME")]
    key_name: String,
    /// rsa or ed25519.
    #[arg(long, value_name = "TYPE", default_value = "rsa")]
    key_type: String,
    /// Puts the private key where `hearth ssh` finds it (~/.hearth/keys/NAME.pem) in place of printing it.
    #[arg(long)]
    save: bool,
    #[command(flatten)]
    tagging: Tagging,
    #[command(flatten)]
    dry_run: DryRun,
}

impl CreateKeyPair {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        // Before the call: a key that cannot be kept should not be made.
        let file = self
            .save
            .then(|| NewKeyFile::create(&self.key_name))
            .transpose()?;
        let request = v1::CreateKeyPairRequest {
            key_name: self.key_name,
            key_type: self.key_type,
            dry_run: self.dry_run.dry_run,
            tag_specifications: parameters::tag_specifications(&self.tagging.tag_specifications)?,
        };
        let answer = context.client().await?.key_pairs.create_key_pair(request).await;
        let answer = context.answered("CreateKeyPair", answer)?;
        let mut material = answer.key_material;
        if let Some(file) = file {
            let path = file.keep(&material)?;
            terminal::say(&format_args!("The private key is in {}", path.display()));
            material = String::new();
        }
        context.print(&NewKeyPair::new(answer.key_pair.unwrap_or_default(), material))
    }
}

/// Makes a key pair of a public key that exists.
#[derive(Args)]
pub(super) struct ImportKeyPair {
    #[arg(long, value_name = "NAME")]
    key_name: String,
    /// An OpenSSH line, RFC 4716, or DER in base64; usually as fileb://PATH.
    #[arg(long, value_name = "KEY")]
    public_key_material: String,
    #[command(flatten)]
    tagging: Tagging,
    #[command(flatten)]
    dry_run: DryRun,
}

impl ImportKeyPair {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::ImportKeyPairRequest {
            key_name: self.key_name,
            public_key_material: parameters::load_bytes("--public-key-material", &self.public_key_material)?,
            dry_run: self.dry_run.dry_run,
            tag_specifications: parameters::tag_specifications(&self.tagging.tag_specifications)?,
        };
        let answer = context.client().await?.key_pairs.import_key_pair(request).await;
        context.print(&NewKeyPair::new(
            context.answered("ImportKeyPair", answer)?,
            String::new(),
        ))
    }
}

/// Describes key pairs.
#[derive(Args)]
pub(super) struct DescribeKeyPairs {
    #[arg(long, num_args = 1.., value_name = "NAME")]
    key_names: Vec<String>,
    #[arg(long, num_args = 1.., value_name = "KEY")]
    key_pair_ids: Vec<String>,
    /// Tells the public keys too.
    #[arg(long)]
    include_public_key: bool,
    #[command(flatten)]
    filtering: Filtering,
}

impl DescribeKeyPairs {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeKeyPairsRequest {
            key_names: self.key_names,
            key_pair_ids: self.key_pair_ids,
            filters: parameters::filters(&self.filtering.filters)?,
            include_public_key: self.include_public_key,
            dry_run: self.filtering.dry_run.dry_run,
        };
        let answer = context
            .client()
            .await?
            .key_pairs
            .describe_key_pairs(request)
            .await;
        context.print(&KeyPairs::from(context.answered("DescribeKeyPairs", answer)?))
    }
}

/// Deletes a key pair; instances keep the public key they were launched with.
#[derive(Args)]
pub(super) struct DeleteKeyPair {
    #[arg(long, value_name = "NAME", required_unless_present = "key_pair_id")]
    key_name: Option<String>,
    #[arg(long, value_name = "KEY")]
    key_pair_id: Option<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl DeleteKeyPair {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DeleteKeyPairRequest {
            key_name: self.key_name.unwrap_or_default(),
            key_pair_id: self.key_pair_id.unwrap_or_default(),
            dry_run: self.dry_run.dry_run,
        };
        let answer = context.client().await?.key_pairs.delete_key_pair(request).await;
        context.answered("DeleteKeyPair", answer)?;
        context.print(&Done::new("Deleted."))
    }
}
