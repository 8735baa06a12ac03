//! The port of AWS's tools and the command line: beside moto's server, which answers from memory and checks no signature, and
//! beside aws, in one run.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use chrono::DateTime;
use hearth_api::client::Client;
use hearth_api::v1;
use hearth_ec2::Service;
use hearth_ec2::signature::{Keys, Unusable, verify_at};
use hearth_tests::simulated::{Behaviour, Fleet, Hearthd};
use hearth_tests::upload_image;
use http::Request;
use serde::Deserialize;

use crate::stats::{Row, Samples, print};

const REGION: &str = "us-east-1";
const INSTANCES: usize = 1000;
/// One takes all instances at 64 vCPUs each.
const HOSTS: usize = 20;
const RUNS: &str = "21";
/// An AMI that moto knows without being told.
const AMI_OF_MOTO: &str = "ami-12c6146b";
const DESCRIBE: &str = "Action=DescribeInstances&Version=2016-11-15";

/// What is measured over HTTP.
#[derive(Default)]
struct Figures {
    describe: Samples,
    dry_run: Samples,
}

pub fn run() -> Result<()> {
    let python = std::env::var("HEARTH_PYTHON").context("HEARTH_PYTHON")?;
    let moto = std::env::var("HEARTH_BENCH_MOTO").context("HEARTH_BENCH_MOTO")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let dir = tempfile::Builder::new().prefix("hearth-bench-").tempdir()?;
    let (figures, own_start, aws_start) = runtime.block_on(hearth(dir.path(), &python))?;
    let of_moto = with_moto(&python, &moto)?;
    let mut signature = Samples::default();
    runtime.block_on(check_signatures(&mut signature))?;
    println!("\nface: {INSTANCES} simulated instances, one caller at a time\n");
    print(
        &["Hearth", "moto", "aws"],
        &[
            Row {
                name: "DescribeInstances of 1,000, ms",
                contenders: vec![figures.describe, of_moto.describe, Samples::default()],
            },
            Row {
                name: "RunInstances with DryRun, ms",
                contenders: vec![figures.dry_run, of_moto.dry_run, Samples::default()],
            },
            Row {
                name: "the check of a signature alone, us",
                contenders: vec![signature, Samples::default(), Samples::default()],
            },
            Row {
                name: "describe-regions by the command line, from its start to its end, ms",
                contenders: vec![own_start, Samples::default(), aws_start],
            },
        ],
    );
    Ok(())
}

/// Hearth's figures, and those of both command lines.
async fn hearth(dir: &Path, python: &str) -> Result<(Figures, Samples, Samples)> {
    let zone = format!("{REGION}a");
    let arguments = [
        "--ec2-listen",
        "127.0.0.1:0",
        "--region",
        REGION,
        "--zones",
        &zone,
        "--instance-limit",
        "100000",
    ];
    let hearthd = Hearthd::start(&hearth_tests::binary("hearthd")?, dir, &arguments).await?;
    let client = hearthd.client().await?;
    let disk = std::fs::read(std::env::var("HEARTH_TINY_AMI").context("HEARTH_TINY_AMI")?)?;
    let image = upload_image(client.image_disks.clone(), "bench", &disk).await?;
    let _fleet = Fleet::join(&client, dir, HOSTS, &[zone], Behaviour::default()).await?;
    fill(&client, &image).await?;
    let said = std::fs::read(hearthd.data_dir().join("endpoints.json"))?;
    let said: serde_json::Value = serde_json::from_slice(&said)?;
    let endpoint = format!("http://{}", said["ec2_listen"].as_str().context("ec2_listen")?);
    let credentials = hearthd.data_dir().join("credentials");
    let profile = std::fs::read_to_string(&credentials)?;
    let of = |name: &str| {
        let mut lines = profile.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))
            .context("the owner's key")
    };
    let keys = (of("aws_access_key_id")?, of("aws_secret_access_key")?);
    let figures = requests(python, &endpoint, keys, &image)?;
    let mut own = Command::new(hearth_tests::binary("hearth")?);
    own.arg("describe-regions")
        .env(
            "HEARTH_ENDPOINT",
            format!("unix:{}", dir.join("api.sock").display()),
        )
        .env("HEARTH_HOME", dir);
    let mut aws = Command::new(python);
    aws.args(["-m", "awscli", "ec2", "describe-regions"])
        .env("AWS_ENDPOINT_URL", &endpoint)
        .env("AWS_DEFAULT_REGION", REGION)
        .env("AWS_SHARED_CREDENTIALS_FILE", &credentials)
        .env("AWS_PAGER", "");
    Ok((figures, starts(&mut own)?, starts(&mut aws)?))
}

/// Launches the instances, and waits until they run.
async fn fill(client: &Client, image: &str) -> Result<()> {
    let mut instances = client.instances.clone();
    for _ in 0..INSTANCES / 100 {
        let request = v1::RunInstancesRequest {
            image_id: image.to_owned(),
            instance_type: "t2.nano".into(),
            min_count: 100,
            max_count: 100,
            // The pool of public addresses is smaller.
            network_interfaces: vec![v1::InstanceNetworkInterfaceSpecification {
                device_index: Some(0),
                associate_public_ip_address: Some(false),
                ..Default::default()
            }],
            ..v1::RunInstancesRequest::default()
        };
        instances.run_instances(request).await?;
    }
    let running = v1::Filter {
        name: "instance-state-name".into(),
        values: vec!["running".into()],
    };
    let began = Instant::now();
    loop {
        let request = v1::DescribeInstancesRequest {
            filters: vec![running.clone()],
            ..v1::DescribeInstancesRequest::default()
        };
        let answer = instances.describe_instances(request).await?.into_inner();
        let count: usize = answer
            .reservations
            .iter()
            .map(|reservation| reservation.instances.len())
            .sum();
        if count == INSTANCES {
            return Ok(());
        }
        ensure!(
            began.elapsed() < Duration::from_secs(120),
            "{count} of {INSTANCES} instances run"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A line of timing.py's.
#[derive(Deserialize)]
struct Timing {
    took: Vec<f64>,
    instances: usize,
}

fn timed(
    python: &str,
    endpoint: &str,
    (key, secret): (&str, &str),
    runs: &str,
    forms: &[&str],
) -> Result<Vec<Timing>> {
    let output = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/timing.py"))
        .args([endpoint, REGION, key, secret, runs])
        .args(forms)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "timing.py failed");
    let said = String::from_utf8(output.stdout)?;
    said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn requests(python: &str, endpoint: &str, keys: (&str, &str), image: &str) -> Result<Figures> {
    let dry_run = format!(
        "Action=RunInstances&Version=2016-11-15&DryRun=true&ImageId={image}&InstanceType=t2.nano&MinCount=1&MaxCount=1"
    );
    let timings = timed(python, endpoint, keys, RUNS, &[DESCRIBE, &dry_run])?;
    let [describe, dry_run] = &timings[..] else {
        anyhow::bail!("timing.py did not say all");
    };
    ensure!(
        describe.instances == INSTANCES,
        "{} instances described",
        describe.instances
    );
    let mut figures = Figures::default();
    describe.took.iter().for_each(|took| figures.describe.add(*took));
    dry_run.took.iter().for_each(|took| figures.dry_run.add(*took));
    Ok(figures)
}

/// Ends when dropped.
struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_moto(python: &str, moto: &str) -> Result<Figures> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let server = Command::new(moto)
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _server = Moto(server);
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(began.elapsed() < Duration::from_secs(120), "moto does not listen");
        std::thread::sleep(Duration::from_millis(100));
    }
    let endpoint = format!("http://127.0.0.1:{port}");
    let keys = ("test", "test");
    // The run that does not count launches half of them, too.
    let half = INSTANCES / 2;
    let launch = format!(
        "Action=RunInstances&Version=2016-11-15&ImageId={AMI_OF_MOTO}&InstanceType=t2.nano&MinCount={half}&MaxCount={half}"
    );
    timed(python, &endpoint, keys, "1", &[&launch])?;
    requests(python, &endpoint, keys, AMI_OF_MOTO)
}

/// How long a program takes from its start to its end, some times.
fn starts(program: &mut Command) -> Result<Samples> {
    let mut samples = Samples::default();
    for run in 0..12 {
        let began = Instant::now();
        let output = program.output()?;
        let took = began.elapsed();
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // The first brings it into memory.
        if run > 0 {
            samples.add(took.as_secs_f64() * 1000.0);
        }
    }
    Ok(samples)
}

struct One;

impl Keys for One {
    type Signer = String;

    fn find(&self, access_key_id: &str, session_token: Option<&str>) -> Result<(String, String), Unusable> {
        match (access_key_id, session_token) {
            ("AKIDEXAMPLE", None) => Ok((
                "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
                access_key_id.to_owned(),
            )),
            _ => Err(Unusable::Unknown),
        }
    }
}

/// Of a request of the length of RunInstances.
async fn check_signatures(samples: &mut Samples) -> Result<()> {
    const FORM: &str = include_str!("face/form.txt");
    const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/ec2/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date, Signature=2ea7cf4cb9fbfefdb9226f47d3438ee269a12e692f2c749d00d4dfc95d74cb06";
    const TIMES: u32 = 1000;
    let now = DateTime::from_timestamp(1_440_938_160, 0).context("2015-08-30T12:36:00Z")?;
    for _ in 0..21 {
        let requests: Vec<Request<Bytes>> = (0..TIMES)
            .map(|_| {
                Request::post("/")
                    .header("host", "127.0.0.1:8773")
                    .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
                    .header("user-agent", "aws-cli/1.46.3 md/Botocore#1.44.8")
                    .header("x-amz-date", "20150830T123600Z")
                    .header("authorization", AUTHORIZATION)
                    .body(Bytes::from_static(FORM.as_bytes()))
            })
            .collect::<Result<_, _>>()?;
        let began = Instant::now();
        for request in requests {
            let verified = verify_at(now, request, Service::Ec2, REGION, &One).await;
            ensure!(verified.is_ok(), "{:?}", verified.err());
        }
        samples.add(began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES));
    }
    Ok(())
}
