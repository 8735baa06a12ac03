//! RunInstances: `--count`, user data as it is, public addresses by a flag.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{ArgMatches, Args, FromArgMatches as _};
use serde_json::json;

use super::{Custom, Finish, Request};
use crate::error::CliError;
use crate::parameters::load_bytes;

pub(super) const CUSTOM: Custom = Custom {
    replaces: &["min_count", "max_count", "user_data"],
    flags: Launch::augment_args,
    prepare,
};

#[derive(Args)]
struct Launch {
    /// How many: a number, or the least and the most, as 1:3. 1 unless told.
    #[arg(long, value_name = "NUMBER")]
    count: Option<String>,
    /// A script or cloud-config, usually as file://PATH; 16 KiB at most.
    #[arg(long, value_name = "TEXT")]
    user_data: Option<String>,
    /// Gives a public address even where the subnet does not.
    #[arg(long, overrides_with = "no_associate_public_ip_address")]
    associate_public_ip_address: bool,
    /// Gives no public address even where the subnet does.
    #[arg(long)]
    no_associate_public_ip_address: bool,
}

fn prepare(matches: &ArgMatches, request: &mut Request) -> Result<Option<Finish>, CliError> {
    let launch = Launch::from_arg_matches(matches)?;
    if launch.count.is_some() || !request.contains_key("MinCount") {
        let (min, max) = count(launch.count.as_deref().unwrap_or("1"))?;
        request.insert("MinCount".into(), min.into());
        request.insert("MaxCount".into(), max.into());
    }
    if let Some(text) = launch.user_data {
        let bytes = load_bytes("--user-data", &text)?;
        request.insert("UserData".into(), BASE64_STANDARD.encode(bytes).into());
    }
    if launch.associate_public_ip_address || launch.no_associate_public_ip_address {
        public_address(launch.associate_public_ip_address, request)?;
    }
    Ok(None)
}

/// The least and the most that `--count` names.
fn count(text: &str) -> Result<(i32, i32), CliError> {
    let number = |text: &str| {
        text.parse::<i32>()
            .map_err(|_| CliError::parameter("--count", format!("'{text}' is no number; say 2, or 1:3")))
    };
    match text.split_once(':') {
        Some((min, max)) => Ok((number(min)?, number(max)?)),
        None => number(text).map(|n| (n, n)),
    }
}

/// The answer to the question stands in an interface's specification, and with it what else is said of the interface.
fn public_address(is_wanted: bool, request: &mut Request) -> Result<(), CliError> {
    let refused = |why: &str| {
        let flags = "--associate-public-ip-address and --no-associate-public-ip-address";
        Err(CliError::Usage(format!("{flags} {why}.")))
    };
    if request.contains_key("NetworkInterfaces") {
        return refused(
            "make the instance's network interface: say AssociatePublicIpAddress=... in --network-interfaces",
        );
    }
    if request.contains_key("SecurityGroups") {
        return refused("go with --security-group-ids, and not with the names of --security-groups");
    }
    let mut interface = json!({ "DeviceIndex": 0, "AssociatePublicIpAddress": is_wanted });
    for (of_launch, of_interface) in [
        ("SubnetId", "SubnetId"),
        ("SecurityGroupIds", "Groups"),
        ("PrivateIpAddress", "PrivateIpAddress"),
    ] {
        if let Some(value) = request.remove(of_launch) {
            interface[of_interface] = value;
        }
    }
    request.insert("NetworkInterfaces".into(), json!([interface]));
    Ok(())
}
