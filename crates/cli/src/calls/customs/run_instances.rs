//! RunInstances: `--count`, user data as it is, public addresses by a flag.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::{Custom, Finish, Request};
use crate::error::CliError;
use crate::parameters::load_bytes;

const COUNT: &str = "count";
const USER_DATA: &str = "user-data";
const PUBLIC: &str = "associate-public-ip-address";
const NOT_PUBLIC: &str = "no-associate-public-ip-address";

pub(super) const CUSTOM: Custom = Custom {
    replaces: &["min_count", "max_count", "user_data"],
    flags,
    prepare,
};

fn flags(command: Command) -> Command {
    let count = Arg::new(COUNT).long(COUNT).value_name("NUMBER");
    let user_data = Arg::new(USER_DATA).long(USER_DATA).value_name("TEXT");
    let public = Arg::new(PUBLIC).long(PUBLIC).action(ArgAction::SetTrue);
    let not_public = Arg::new(NOT_PUBLIC).long(NOT_PUBLIC).action(ArgAction::SetTrue);
    command.args([
        count.help("How many: a number, or the least and the most, as 1:3. 1 unless told."),
        user_data.help("A script or cloud-config, usually as file://PATH; 16 KiB at most."),
        public
            .help("Gives a public address even where the subnet does not.")
            .overrides_with(NOT_PUBLIC),
        not_public.help("Gives no public address even where the subnet does."),
    ])
}

fn prepare(matches: &ArgMatches, request: &mut Request) -> Result<Option<Finish>, CliError> {
    let given = matches.get_one::<String>(COUNT);
    if given.is_some() || !request.contains_key("MinCount") {
        let (min, max) = count(given.map_or("1", String::as_str))?;
        request.insert("MinCount".into(), min.into());
        request.insert("MaxCount".into(), max.into());
    }
    if let Some(text) = matches.get_one::<String>(USER_DATA) {
        let bytes = load_bytes(&format!("--{USER_DATA}"), text)?;
        request.insert("UserData".into(), BASE64_STANDARD.encode(bytes).into());
    }
    if matches.get_flag(PUBLIC) || matches.get_flag(NOT_PUBLIC) {
        public_address(matches.get_flag(PUBLIC), request)?;
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
    if request.contains_key("NetworkInterfaces") {
        return Err(CliError::Usage(format!(
            "--{PUBLIC} and --{NOT_PUBLIC} make the instance's network interface: say AssociatePublicIpAddress=... in \
             --network-interfaces."
        )));
    }
    if request.contains_key("SecurityGroups") {
        return Err(CliError::Usage(format!(
            "--{PUBLIC} and --{NOT_PUBLIC} go with --security-group-ids, and not with the names of --security-groups."
        )));
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
