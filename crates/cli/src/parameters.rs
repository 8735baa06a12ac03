//! Values of parameters: `file://`, and EC2's structures as people may write them.

use hearth_api::v1;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::calls::structures;
use crate::error::CliError;
use crate::shorthand;

/// The bytes of a parameter: those of a file for `file://PATH` and `fileb://PATH`, else its own.
pub(crate) fn load_bytes(parameter: &str, value: &str) -> Result<Vec<u8>, CliError> {
    let path = value
        .strip_prefix("file://")
        .or_else(|| value.strip_prefix("fileb://"));
    match path {
        Some(path) => std::fs::read(path)
            .map_err(|e| CliError::parameter(parameter, format!("Unable to load paramfile {value}: {e}"))),
        None => Ok(value.as_bytes().to_vec()),
    }
}

/// As [`load_bytes`], for parameters that must be text.
pub(crate) fn load_text(parameter: &str, value: &str) -> Result<String, CliError> {
    String::from_utf8(load_bytes(parameter, value)?)
        .map_err(|_| CliError::parameter(parameter, format!("{value} is not text (UTF-8)")))
}

pub(crate) fn filters(values: &[String]) -> Result<Vec<v1::Filter>, CliError> {
    structures::parameters("--filters", values)
}

pub(crate) fn tags(values: &[String]) -> Result<Vec<v1::Tag>, CliError> {
    structures::parameters("--tags", values)
}

pub(crate) fn tags_to_delete(values: &[String]) -> Result<Vec<v1::TagToDelete>, CliError> {
    structures::parameters("--tags", values)
}

pub(crate) fn tag_specifications(values: &[String]) -> Result<Vec<v1::TagSpecification>, CliError> {
    structures::parameters("--tag-specifications", values)
}

pub(crate) fn metadata_options(value: &str) -> Result<v1::InstanceMetadataOptions, CliError> {
    structures::parameter("--metadata-options", value)
}

pub(crate) fn maintenance_options(value: &str) -> Result<v1::InstanceMaintenanceOptions, CliError> {
    structures::parameter("--maintenance-options", value)
}

pub(crate) fn placement(value: &str) -> Result<v1::Placement, CliError> {
    structures::parameter("--placement", value)
}

pub(crate) fn block_device_mappings(values: &[String]) -> Result<Vec<v1::BlockDeviceMapping>, CliError> {
    let mappings: Vec<BlockDeviceMapping> = shorthand::items("--block-device-mappings", values)?;
    let wire = |m: BlockDeviceMapping| v1::BlockDeviceMapping {
        device_name: m.device_name,
        ebs: m.ebs.map(|ebs| v1::EbsBlockDevice {
            volume_size: ebs.volume_size.unwrap_or(0),
            delete_on_termination: ebs.delete_on_termination,
            ..Default::default()
        }),
    };
    Ok(mappings.into_iter().map(wire).collect())
}

pub(crate) fn ip_permissions(values: &[String]) -> Result<Vec<v1::IpPermission>, CliError> {
    let permissions: Vec<IpPermission> = shorthand::items("--ip-permissions", values)?;
    let wire = |p: IpPermission| v1::IpPermission {
        ip_protocol: p.ip_protocol,
        from_port: p.from_port,
        to_port: p.to_port,
        ip_ranges: p
            .ip_ranges
            .into_iter()
            .map(|r| v1::IpRange {
                cidr_ip: r.cidr_ip,
                description: r.description,
            })
            .collect(),
        user_id_group_pairs: p
            .user_id_group_pairs
            .into_iter()
            .map(|g| v1::UserIdGroupPair {
                group_id: g.group_id,
                group_name: g.group_name,
                description: g.description,
                user_id: g.user_id,
            })
            .collect(),
    };
    Ok(permissions.into_iter().map(wire).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct BlockDeviceMapping {
    device_name: String,
    ebs: Option<Ebs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Ebs {
    #[serde(default, deserialize_with = "integer")]
    volume_size: Option<i64>,
    #[serde(default, deserialize_with = "boolean")]
    delete_on_termination: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct IpPermission {
    #[serde(deserialize_with = "text")]
    ip_protocol: String,
    #[serde(default, deserialize_with = "integer")]
    from_port: Option<i32>,
    #[serde(default, deserialize_with = "integer")]
    to_port: Option<i32>,
    #[serde(default)]
    ip_ranges: Vec<IpRange>,
    #[serde(default)]
    user_id_group_pairs: Vec<GroupPair>,
    /// Empty in what Describe answers.
    #[serde(default, rename = "Ipv6Ranges", deserialize_with = "unsupported")]
    _ipv6_ranges: (),
    /// As `Ipv6Ranges`.
    #[serde(default, rename = "PrefixListIds", deserialize_with = "unsupported")]
    _prefix_list_ids: (),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct IpRange {
    cidr_ip: String,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GroupPair {
    #[serde(default)]
    group_id: String,
    #[serde(default)]
    group_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    user_id: String,
}

/// A list that Hearth has nothing for yet: it must be empty.
fn unsupported<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match Vec::<Value>::deserialize(deserializer)?.as_slice() {
        [] => Ok(()),
        _ => Err(D::Error::custom(
            "IPv6 ranges and prefix lists are not supported yet",
        )),
    }
}

/// An integer as JSON has it, or as the text that shorthand makes of it.
fn integer<'de, D: Deserializer<'de>, I: TryFrom<i64>>(deserializer: D) -> Result<Option<I>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::Null => return Ok(None),
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    };
    let number = number.and_then(|number: i64| I::try_from(number).ok());
    number
        .map(Some)
        .ok_or_else(|| D::Error::custom(format!("{value} is no integer that fits")))
}

/// A boolean as JSON has it, or as the text that shorthand makes of it.
fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    match &value {
        Value::Null => Ok(None),
        Value::Bool(boolean) => Ok(Some(*boolean)),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        _ => Err(D::Error::custom(format!("{value} is neither true nor false"))),
    }
}

/// A text; a JSON number in its place is taken as its digits (`"IpProtocol": 6`).
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(D::Error::custom(format!("{other} is no text"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorthand_and_json_mean_the_same() {
        let shorthand = [
            "Name=instance-state-name,Values=running".to_owned(),
            "Name=tag:a,Values=b,c".to_owned(),
        ];
        let json = [
            r#"[{"Name":"instance-state-name","Values":["running"]},{"Name":"tag:a","Values":["b","c"]}]"#
                .to_owned(),
        ];
        assert_eq!(filters(&shorthand).unwrap(), filters(&json).unwrap());

        let shorthand = ["DeviceName=/dev/xvda,Ebs={VolumeSize=8,DeleteOnTermination=False}".to_owned()];
        let json =
            [r#"{"DeviceName":"/dev/xvda","Ebs":{"VolumeSize":8,"DeleteOnTermination":false}}"#.to_owned()];
        assert_eq!(
            block_device_mappings(&shorthand).unwrap(),
            block_device_mappings(&json).unwrap()
        );
    }

    #[test]
    fn misspelt_names_are_told() {
        let error = filters(&["Nmae=x,Values=y".to_owned()]).unwrap_err().to_string();
        assert!(
            error.starts_with("Error parsing parameter '--filters': unknown field `Nmae`"),
            "{error}"
        );
        let error = block_device_mappings(&["DeviceName=x,Ebs={VolumeSize=big}".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"big\" is no integer"), "{error}");
    }

    #[test]
    fn files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, b"\xffdata").unwrap();
        assert_eq!(
            load_bytes("--user-data", &format!("fileb://{}", path.display())).unwrap(),
            b"\xffdata"
        );
        assert!(load_text("--user-data", &format!("file://{}", path.display())).is_err());
        let error = load_bytes("--user-data", "file:///nonexistent").unwrap_err();
        assert_eq!(error.exit_code(), crate::error::USAGE);
    }
}
