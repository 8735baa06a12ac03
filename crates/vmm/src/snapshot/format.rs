//! The container of a snapshot's state: sections by name, each with a checksum.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `HEARTHSN` |
//! | 8 | 4 | version, little-endian as all numbers here |
//! | 12 | 4 | number of sections |
//! | 16 | 8 | length of the whole file |
//! | 24 | 16 each | sections: name (4 bytes), CRC-32 of the content (4), its length (8) |
//! | then | 4 | CRC-32 of all before it |
//! | then | | the contents, one after the other, in the order of the table |
//!
//! Whatever was cut off, added or flipped is found: every byte is under a checksum or is one. The checksums are
//! against accidents; who may write a snapshot is a matter of the file's permissions.

use super::SnapshotError;

const MAGIC: &[u8; 8] = b"HEARTHSN";
/// Grows when a section's content changes its meaning; older ones are not read for ever, newer ones never.
pub const VERSION: u32 = 3;
const HEADER: usize = 24;
const ENTRY: usize = 16;
const CHECKSUM: usize = 4;
/// More are no file of ours.
const SECTION_LIMIT: u32 = 64;

/// A section's name.
pub type Name = [u8; 4];

/// Puts sections into one run of bytes.
#[must_use]
pub fn encode(sections: &[(Name, Vec<u8>)]) -> Vec<u8> {
    let table = HEADER + ENTRY * sections.len() + CHECKSUM;
    let total = table + sections.iter().map(|(_, content)| content.len()).sum::<usize>();
    let mut file = Vec::with_capacity(total);
    file.extend_from_slice(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend((sections.len() as u32).to_le_bytes());
    file.extend((total as u64).to_le_bytes());
    for (name, content) in sections {
        file.extend(name);
        file.extend(crc32fast::hash(content).to_le_bytes());
        file.extend((content.len() as u64).to_le_bytes());
    }
    file.extend(crc32fast::hash(&file).to_le_bytes());
    for (_, content) in sections {
        file.extend(content);
    }
    file
}

/// The sections of a file, whole and as they were written.
#[derive(Debug)]
pub struct Sections<'a>(Vec<(Name, &'a [u8])>);

impl<'a> Sections<'a> {
    /// Reads and checks a whole file. It copies nothing.
    ///
    /// # Errors
    /// It is something else, from a newer version, cut short, or damaged.
    pub fn decode(file: &'a [u8]) -> Result<Self, SnapshotError> {
        let cut = || SnapshotError::Cut {
            there: file.len() as u64,
        };
        if file.get(..MAGIC.len()) != Some(MAGIC) {
            return Err(SnapshotError::NoSnapshot);
        }
        let version = u32_at(file, 8).ok_or_else(cut)?;
        if version != VERSION {
            return Err(SnapshotError::Version { version });
        }
        let count = u32_at(file, 12).ok_or_else(cut)?;
        let total = u64_at(file, 16).ok_or_else(cut)?;
        if count > SECTION_LIMIT {
            return Err(SnapshotError::Damaged("header"));
        }
        let table_end = HEADER + ENTRY * count as usize;
        let header = file.get(..table_end).ok_or_else(cut)?;
        let checksum = u32_at(file, table_end).ok_or_else(cut)?;
        if crc32fast::hash(header) != checksum {
            return Err(SnapshotError::Damaged("header"));
        }
        if (file.len() as u64) < total {
            return Err(cut());
        }
        let mut rest = &file[table_end + CHECKSUM..];
        let mut sections = Vec::with_capacity(count as usize);
        for entry in header[HEADER..].chunks_exact(ENTRY) {
            let name = [entry[0], entry[1], entry[2], entry[3]];
            let (Some(checksum), Some(len)) = (u32_at(entry, 4), u64_at(entry, 8)) else {
                return Err(cut());
            };
            let len = usize::try_from(len).map_err(|_| cut())?;
            let (content, behind) = rest.split_at_checked(len).ok_or_else(cut)?;
            if crc32fast::hash(content) != checksum {
                return Err(SnapshotError::Damaged(describe(name)));
            }
            sections.push((name, content));
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(SnapshotError::Damaged("end"));
        }
        Ok(Self(sections))
    }

    /// # Errors
    /// There is no such section.
    pub fn get(&self, name: Name) -> Result<&'a [u8], SnapshotError> {
        let found = self.0.iter().find(|section| section.0 == name);
        found
            .map(|section| section.1)
            .ok_or(SnapshotError::Damaged(describe(name)))
    }
}

fn describe(name: Name) -> &'static str {
    match name {
        super::ABOUT => "description",
        super::PAGES => "page table",
        super::VCPUS => "vCPUs",
        super::MACHINE => "machine",
        super::DEVICES => "devices",
        _ => "section",
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn sections() -> impl Strategy<Value = Vec<(Name, Vec<u8>)>> {
        vec((any::<Name>(), vec(any::<u8>(), 0..200)), 0..6)
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(sections in sections()) {
            let file = encode(&sections);
            let decoded = Sections::decode(&file).unwrap();
            let expected: Vec<_> = sections.iter().map(|(name, content)| (*name, content.as_slice())).collect();
            prop_assert_eq!(decoded.0, expected);
        }

        #[test]
        fn any_cut_is_refused(sections in sections(), cut in any::<prop::sample::Index>()) {
            let file = encode(&sections);
            prop_assert!(Sections::decode(&file[..cut.index(file.len())]).is_err());
        }

        #[test]
        fn any_flip_is_refused(sections in sections(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut file = encode(&sections);
            let at = at.index(file.len());
            file[at] ^= 1_u8 << bit;
            prop_assert!(Sections::decode(&file).is_err());
        }

        #[test]
        fn anything_else_is_refused(mut bytes in vec(any::<u8>(), 0..300), ours in any::<bool>()) {
            if ours && bytes.len() >= 12 {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
            }
            prop_assert!(Sections::decode(&bytes).is_err());
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let file = encode(&[(*b"ABOU", vec![1, 2, 3]), (*b"PAGE", vec![4])]);
        let why = |file: &[u8]| Sections::decode(file).unwrap_err().to_string();
        assert!(why(b"something else").contains("no snapshot"));
        assert!(why(&file[..file.len() - 1]).contains("cut short"));
        let mut newer = file.clone();
        newer[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
        let version = format!("version {}", VERSION + 1);
        assert!(why(&newer).contains(&version), "{}", why(&newer));
        let mut flipped = file.clone();
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert!(why(&flipped).contains("page table"), "{}", why(&flipped));
        let mut longer = file;
        longer.push(0);
        assert!(why(&longer).contains("damaged"));
    }
}
