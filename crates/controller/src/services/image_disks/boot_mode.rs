//! The boot mode of an AMI: what UploadImage asks for, within what the disk can do.

use hearth_api::ApiError;
use hearth_image::BootMode;

use crate::inspection::Inspected;

/// `None` where the caller leaves it to what the disk can do.
///
/// # Errors
/// It is none of EC2's three values.
pub(in crate::services) fn asked(value: &str) -> Result<Option<BootMode>, ApiError> {
    if value.is_empty() {
        return Ok(None);
    }
    let unknown = |_| {
        let expected = "Expecting legacy-bios, uefi or uefi-preferred.";
        ApiError::invalid_value("BootMode", value, expected)
    };
    value.parse().map(Some).map_err(unknown)
}

/// What the image is registered with.
///
/// # Errors
/// The disk cannot do what was asked for; the error says what is in the way.
pub(in crate::services) fn registered(
    asked: Option<BootMode>,
    disk: &Inspected,
) -> Result<BootMode, ApiError> {
    let can = disk.boot_mode;
    let Some(asked) = asked else { return Ok(can) };
    if can.admits(asked) {
        return Ok(asked);
    }
    let obstacle = if can == BootMode::LegacyBios {
        "it has no EFI system partition with EFI/BOOT/BOOTX64.EFI, which UEFI firmware runs".to_owned()
    } else {
        format!(
            "its boot loader's configuration is not understood well enough to boot its kernel directly ({})",
            disk.because
        )
    };
    Err(ApiError::invalid_value(
        "BootMode",
        asked.as_str(),
        format!(
            "The disk cannot be booted so: {obstacle}. Give {}, or leave BootMode out. Nothing was kept.",
            can.as_str()
        ),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn disk(boot_mode: BootMode) -> Inspected {
        Inspected {
            boot_mode,
            kernel_path: "/boot/vmlinuz".into(),
            because: match boot_mode {
                BootMode::Uefi => "/boot/grub/grub.cfg: line 3: the command chainloader".into(),
                _ => String::new(),
            },
        }
    }

    #[test]
    fn a_disk_is_registered_with_what_it_can_do() {
        for can in BootMode::ALL {
            assert_eq!(registered(None, &disk(can)).unwrap(), can);
            for asked in BootMode::ALL {
                let told = registered(Some(asked), &disk(can));
                if can == asked || can == BootMode::UefiPreferred {
                    assert_eq!(told.unwrap(), asked);
                    continue;
                }
                let message = told.unwrap_err().message;
                let obstacle = match can {
                    BootMode::Uefi => "(/boot/grub/grub.cfg: line 3: the command chainloader)",
                    _ => "no EFI system partition with EFI/BOOT/BOOTX64.EFI",
                };
                assert!(message.contains(obstacle), "{message}");
                assert!(message.contains(&format!("Give {},", can.as_str())), "{message}");
            }
        }
    }

    #[test]
    fn a_boot_mode_is_one_of_three_words() {
        assert_eq!(asked("").unwrap(), None);
        for mode in BootMode::ALL {
            assert_eq!(asked(mode.as_str()).unwrap(), Some(mode));
        }
        for word in ["UEFI", "bios", "uefi ", "legacy-bios\0"] {
            let message = asked(word).unwrap_err().message;
            assert!(
                message.contains("Expecting legacy-bios, uefi or uefi-preferred."),
                "{message}"
            );
        }
    }
}
