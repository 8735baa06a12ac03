//! Names as the protos, EC2 and the command line have them.

use prost_reflect::{FieldDescriptor, MessageDescriptor};

/// `create-placement-group` of `CreatePlacementGroup`, and `send-ssh-public-key` of `SendSSHPublicKey`.
pub(crate) fn kebab_of_pascal(name: &str) -> String {
    let mut kebab = String::new();
    let letters: Vec<char> = name.chars().collect();
    for (at, c) in letters.iter().enumerate() {
        let is_capital = |at: usize| letters.get(at).is_some_and(char::is_ascii_uppercase);
        let is_small = |at: usize| letters.get(at).is_some_and(char::is_ascii_lowercase);
        // A word begins after a small letter, and with the last of several capitals.
        if at > 0 && is_capital(at) && (!is_capital(at - 1) || is_small(at + 1)) {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

/// The fields of a message in the order of the protos, which is that of AWS's models.
pub(super) fn fields(message: &MessageDescriptor) -> impl Iterator<Item = FieldDescriptor> {
    let declared = message.descriptor_proto().field.iter();
    declared.filter_map(|field| message.get_field(field.number().cast_unsigned()))
}

/// A field as EC2 calls it: `GroupName`.
pub(super) fn member(field: &FieldDescriptor) -> String {
    let mut characters = field.json_name().chars();
    let first = characters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

/// `group-name` of `group_name`.
pub(super) fn kebab(name: &str) -> String {
    name.replace('_', "-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn commands_are_called_as_awss() {
        for (operation, command) in [
            ("RunInstances", "run-instances"),
            ("SendSSHPublicKey", "send-ssh-public-key"),
            ("GetAWSDefaultServiceQuota", "get-aws-default-service-quota"),
            ("DescribeVpcs", "describe-vpcs"),
            (
                "SendSerialConsoleSSHPublicKey",
                "send-serial-console-ssh-public-key",
            ),
            ("GetSSH", "get-ssh"),
        ] {
            assert_eq!(super::kebab_of_pascal(operation), command);
        }
    }
}
