//! AWS's own command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

use crate::{Cloud, skipped};

const PYTHON: &str = "HEARTH_PYTHON";

/// The command line, as root of a cloud.
#[derive(Debug)]
pub struct Aws {
    python: OsString,
    endpoint: String,
    credentials: PathBuf,
}

impl Aws {
    /// Whether it is there; if not, the test is skipped, loudly.
    pub fn is_there(test: &str) -> bool {
        let is_there = std::env::var_os(PYTHON).is_some();
        if !is_there {
            skipped(test, "HEARTH_PYTHON is not set (scripts/test sets it)");
        }
        is_there
    }

    /// # Errors
    /// It is not there, or the cloud has no endpoint for it.
    pub fn of(cloud: &Cloud) -> Result<Aws> {
        Ok(Aws {
            python: std::env::var_os(PYTHON).context(PYTHON)?,
            endpoint: cloud.ec2_endpoint()?,
            credentials: cloud.path("controller/credentials"),
        })
    }

    async fn run(&self, words: &str) -> Result<Output> {
        let mut command = Command::new(&self.python);
        command
            .args(["-m", "awscli"])
            .args(["ec2", "--output", "text", "--region", "local-1", "--endpoint-url"])
            .arg(&self.endpoint)
            .args(words.split_whitespace())
            .env("AWS_SHARED_CREDENTIALS_FILE", &self.credentials)
            .env("AWS_EC2_METADATA_DISABLED", "true");
        Ok(tokio::task::spawn_blocking(move || command.output()).await??)
    }

    /// What a command of `aws ec2` prints as text, without the last newline.
    ///
    /// # Errors
    /// It fails.
    pub async fn ec2(&self, words: &str) -> Result<String> {
        let output = self.run(words).await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "aws ec2 {words}: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// What a command of `aws ec2` that fails says.
    ///
    /// # Errors
    /// It does not fail.
    pub async fn refused(&self, words: &str) -> Result<String> {
        let output = self.run(words).await?;
        ensure!(!output.status.success(), "aws ec2 {words} was not refused");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
