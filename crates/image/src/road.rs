//! How a disk boots: the answer of [`crate::find_road`] and [`crate::inspect`].

use std::fmt;
use std::str::FromStr;

/// The road that boots a disk.
///
/// The direct road is taken only when the boot loader's configuration is understood in every part that decides
/// kernel, command line and initrds. Everything else is left to the disk's own loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Road<T> {
    /// The monitor loads the kernel itself: what `T` holds is what the disk's own loader would boot by default.
    Direct(T),
    /// UEFI firmware runs the loader in the disk's EFI system partition.
    Firmware {
        /// Why the direct road is not taken.
        because: Construct,
    },
}

/// What the direct road met that it does not understand or cannot boot.
///
/// `Display` is a sentence's end without a full stop: "/boot/grub/grub.cfg: line 12: the command chainloader".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Construct {
    place: String,
    what: String,
}

/// Bytes of a construct's text: names come from the disk.
const MAX_TEXT: usize = 300;

impl Construct {
    /// `place` is a file, a line or a partition; `what` is the construct there.
    #[must_use]
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Construct {
        Construct {
            place: shortened(place.into()),
            what: shortened(what.into()),
        }
    }
}

impl fmt::Display for Construct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            return f.write_str(&self.what);
        }
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Cuts text that a disk may have written.
pub(crate) fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push_str("...");
    }
    text
}

/// The boot mode of an image, in EC2's words (`BootModeValues`).
///
/// Of a disk it is what the disk can do; of an AMI it is what was asked for within that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    /// The direct road alone. A disk without an EFI system partition with a loader has no other one.
    LegacyBios,
    /// Firmware alone.
    Uefi,
    /// Both. The direct road is taken where it is certain.
    UefiPreferred,
}

impl BootMode {
    /// All, in EC2's order.
    pub const ALL: [BootMode; 3] = [BootMode::LegacyBios, BootMode::Uefi, BootMode::UefiPreferred];

    /// Whether a disk that can do this can be given the mode `asked`.
    #[must_use]
    pub fn admits(self, asked: BootMode) -> bool {
        self == BootMode::UefiPreferred || self == asked
    }

    /// EC2's spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BootMode::LegacyBios => "legacy-bios",
            BootMode::Uefi => "uefi",
            BootMode::UefiPreferred => "uefi-preferred",
        }
    }
}

/// A word that is no boot mode.
#[derive(Debug, thiserror::Error)]
#[error("no boot mode: expecting legacy-bios, uefi or uefi-preferred")]
pub struct UnknownBootMode;

impl FromStr for BootMode {
    type Err = UnknownBootMode;

    fn from_str(word: &str) -> Result<BootMode, UnknownBootMode> {
        let mut modes = BootMode::ALL.into_iter();
        modes.find(|mode| mode.as_str() == word).ok_or(UnknownBootMode)
    }
}
