//! Tools that make what they describe of real guests.

use std::process::Command;

use hearth_tests::client::{figure, file};
use hearth_tests::{Cloud, can_run, skipped};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

const PYTHON: &str = "HEARTH_PYTHON";
const REGION: &str = "local-1";

/// The command of a script in the namespace from which guests are reached, where the cloud's endpoint is, too.
async fn command(cloud: &Cloud, python: &str, script: &str) -> Command {
    let listener = cloud.host.listen().unwrap();
    listener.set_nonblocking(true).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let listener = TcpListener::from_std(listener).unwrap();
    let hearthd = cloud.ec2_endpoint().unwrap().replace("http://", "");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let hearthd = hearthd.clone();
            tokio::spawn(async move {
                if let Ok(mut hearthd) = TcpStream::connect(hearthd).await {
                    let _ = copy_bidirectional(&mut client, &mut hearthd).await;
                }
            });
        }
    });
    let mut command = cloud.host.command(python);
    command
        .arg(file(script))
        .args([&endpoint, REGION])
        .arg(cloud.path("controller/credentials"));
    command
}

fn directory(cloud: &Cloud) -> std::path::PathBuf {
    let own = cloud.path("client");
    std::fs::create_dir(&own).unwrap();
    own
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "guests boot and end several times: scripts/test --strangers"]
async fn terraform_makes_volumes_snapshots_and_images_of_guests() {
    const NAME: &str = "terraform_makes_volumes_snapshots_and_images_of_guests";
    if !can_run(NAME) {
        return;
    }
    let Ok(python) = std::env::var(PYTHON) else {
        return skipped(NAME, "HEARTH_PYTHON is not set (scripts/test sets it)");
    };
    let cloud = Cloud::start().await.unwrap();
    let mut terraform = command(&cloud, &python, "terraform.py").await;
    terraform
        .arg(directory(&cloud))
        .args(["storage.tf", &cloud.image_id]);
    figure(terraform, || cloud.logs()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "guests boot and end several times: scripts/test --strangers"]
async fn packer_builds_an_image_by_ssh_and_an_instance_boots_of_it() {
    const NAME: &str = "packer_builds_an_image_by_ssh_and_an_instance_boots_of_it";
    if !can_run(NAME) {
        return;
    }
    let (Ok(python), Ok(packer)) = (std::env::var(PYTHON), std::env::var("HEARTH_PACKER")) else {
        return skipped(
            NAME,
            "HEARTH_PYTHON and HEARTH_PACKER are not set (scripts/test --strangers sets them)",
        );
    };
    let cloud = Cloud::start().await.unwrap();
    let mut build = command(&cloud, &python, "packer.py").await;
    build
        .arg(packer)
        .arg(directory(&cloud))
        .args(["root", &cloud.image_id]);
    let said = figure(build, || cloud.logs()).await;
    let image = said.lines().find_map(|line| line.strip_prefix("IMAGE ")).unwrap();
    let guest = cloud
        .launch_guest(|request| image.clone_into(&mut request.image_id))
        .await
        .unwrap();
    assert_eq!(guest.ssh("cat /etc/built").await.unwrap(), "by Packer");
}
