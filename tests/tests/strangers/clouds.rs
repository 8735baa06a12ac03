//! Fresh clouds for tests that expect an empty account: one at a time, each a copy of the same one, which has images and
//! nothing else. What is in the copy is the same in all: ids of images, the account, its access key.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use hearth_api::v1::{self, CreateTagsRequest, Tag};
use hearth_tests::simulated::{Behaviour, Fleet, Hearthd};
use hearth_tests::upload_image;
use serde::Serialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;

/// As many as us-east-1 has.
const ZONES: &str = "us-east-1a,us-east-1b,us-east-1c,us-east-1d,us-east-1e,us-east-1f";
/// In the first zones: tests launch in two.
const HOSTS: usize = 2;
const REGION: &str = "us-east-1";
/// Others that tests look at.
const FURTHER_REGIONS: [&str; 11] = [
    "ap-northeast-1",
    "ap-southeast-3",
    "ap-southeast-5",
    "ca-central-1",
    "cn-northwest-1",
    "eu-central-1",
    "eu-west-1",
    "sa-east-1",
    "us-gov-east-1",
    "us-gov-west-1",
    "us-west-1",
];
/// The name that tests know an image by that runs everywhere.
const PARAMETER: &str = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-6.1-x86_64";
/// Tests know so many images.
const IMAGES: usize = 4;

/// What is copied.
pub struct Template {
    dir: TempDir,
    program: PathBuf,
    pub images: Vec<String>,
}

/// One cloud with its hosts. Dropping it ends it.
struct Cloud {
    hearthd: Hearthd,
    _fleet: Fleet,
    _dir: TempDir,
}

/// What a test is told of its cloud.
#[derive(Serialize)]
struct Told {
    endpoint: String,
    /// A file as `~/.aws/credentials`.
    credentials: PathBuf,
}

/// In memory: a cloud per test writes its database anew.
fn directory() -> Result<TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("hearth-strangers-")
        .tempdir_in("/dev/shm");
    dir.context("making a directory in /dev/shm")
}

async fn start(program: &Path, dir: &Path) -> Result<Hearthd> {
    let arguments = [
        "--ec2-listen",
        "127.0.0.1:0",
        "--region",
        REGION,
        "--zones",
        ZONES,
    ];
    Hearthd::start(program, dir, &arguments).await
}

impl Template {
    /// Registers the images.
    ///
    /// # Errors
    /// `hearthd` does not start, or refuses the disk.
    pub async fn make(disk: &[u8]) -> Result<Self> {
        let dir = directory()?;
        let program = hearth_tests::binary("hearthd")?;
        let mut hearthd = start(&program, dir.path()).await?;
        let client = hearthd.client().await?;
        for region in FURTHER_REGIONS {
            let request = v1::CreateRegionRequest {
                region_name: region.to_owned(),
                availability_zones: ["a", "b", "c"].map(|letter| format!("{region}{letter}")).to_vec(),
                dry_run: false,
            };
            let made = client.cloud_regions.clone().create_region(request).await;
            made.with_context(|| format!("making the region {region}"))?;
        }
        let mut images = Vec::new();
        for number in 0..IMAGES {
            let name = format!("example-{number}");
            images.push(upload_image(client.image_disks.clone(), &name, disk).await?);
        }
        let named = CreateTagsRequest {
            resources: images[..1].to_vec(),
            tags: vec![Tag {
                key: "hearth:ssm-parameter".to_owned(),
                value: PARAMETER.to_owned(),
            }],
            ..CreateTagsRequest::default()
        };
        client.tags.clone().create_tags(named).await?;
        hearthd.kill()?;
        Ok(Self { dir, program, images })
    }

    async fn copy(self: Arc<Self>) -> Result<Cloud> {
        let dir = directory()?;
        let status = Command::new("cp")
            .args(["--archive", "--sparse=always"])
            .arg(self.dir.path().join("controller"))
            .arg(dir.path())
            .status()
            .context("running cp")?;
        ensure!(
            status.success(),
            "copying the template to {}",
            dir.path().display()
        );
        let hearthd = start(&self.program, dir.path()).await?;
        let client = hearthd.client().await?;
        let zones: Vec<String> = ZONES.split(',').map(str::to_owned).collect();
        let fleet = Fleet::join(&client, dir.path(), HOSTS, &zones[..HOSTS], Behaviour::default()).await?;
        Ok(Cloud {
            hearthd,
            _fleet: fleet,
            _dir: dir,
        })
    }

    /// Gives a fresh cloud for each line that comes over the socket, and ends the one before. For ever. The next one starts
    /// while the last one is used.
    ///
    /// # Errors
    /// A cloud does not start.
    pub async fn serve(self: Arc<Self>, socket: &Path) -> Result<()> {
        let listener = UnixListener::bind(socket).with_context(|| format!("binding {}", socket.display()))?;
        loop {
            let (stream, _) = listener.accept().await.context("accepting a test")?;
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let mut current = None;
            let mut next = tokio::spawn(Arc::clone(&self).copy());
            while lines.next_line().await.context("reading from a test")?.is_some() {
                drop(current.take());
                let cloud = next.await.context("starting a cloud")??;
                next = tokio::spawn(Arc::clone(&self).copy());
                let mut told = serde_json::to_vec(&cloud.told()?)?;
                told.push(b'\n');
                write.write_all(&told).await.context("telling a test")?;
                current = Some(cloud);
            }
        }
    }
}

impl Cloud {
    fn told(&self) -> Result<Told> {
        let data = self.hearthd.data_dir();
        let said = std::fs::read(data.join("endpoints.json")).context("reading endpoints.json")?;
        let said: serde_json::Value = serde_json::from_slice(&said)?;
        Ok(Told {
            endpoint: format!("http://{}", said["ec2_listen"].as_str().context("ec2_listen")?),
            credentials: data.join("credentials"),
        })
    }
}
