//! What keys of KMS do: they seal the data keys of encrypted disks, and what callers give them ([`ciphertext`]). Their material is sealed under the key of hearthd's file
//! ([`crate::vault`]), so that the database alone opens nothing. Opened keys are in memory as long as they are needed, and
//! zeroed then.

use hearth_api::{ApiError, ErrorCode};
use hearth_repository::DataKey;
use rand::RngCore as _;
use zeroize::Zeroizing;

use crate::seal::{Broken, SealingKey};
use crate::state::{Encryption, KmsAlias, KmsKey, Material, Scope, State, Tags, Tx, Volume};
use crate::vault::Vault;

pub mod ciphertext;

/// Bytes that a seal is longer than what it seals.
const TAG: usize = 16;
/// Days between the rotations of keys that the cloud makes.
pub const YEARLY: u32 = 365;

/// A data key, opened. Whoever has it reads and writes what lies under it.
pub type Opened = Zeroizing<[u8; DataKey::LENGTH]>;

/// Why a KMS key does not open a data key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "The KMS key {0} is not there: it was deleted, or is in another region, or its policy does not let you use it."
    )]
    Gone(String),
    #[error("The KMS key {arn} is {state}, and cannot be used: {remedy}.")]
    State {
        arn: String,
        state: &'static str,
        remedy: &'static str,
    },
    #[error("a data key, or the key that seals it, cannot be opened")]
    Broken(#[from] Broken),
}

/// As EC2 says it.
impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        let code = match &error {
            KeyError::Gone(_) => ErrorCode::InvalidKmsKeyNotFound,
            KeyError::State { .. } => ErrorCode::InvalidKmsKeyInvalidState,
            KeyError::Broken(_) => return Self::internal(&error),
        };
        Self::new(code, error.to_string())
    }
}

/// Random bytes.
pub fn random(count: usize) -> Zeroizing<Vec<u8>> {
    // The tag goes behind it: it must not be moved, and a copy left.
    let mut bytes = Zeroizing::new(Vec::with_capacity(count + TAG));
    bytes.resize(count, 0);
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

fn of_material(key_id: &str) -> String {
    format!("kms/material/{key_id}")
}

fn of_data_key(key_id: &str) -> String {
    format!("kms/data-key/{key_id}")
}

/// New material for a key.
///
/// # Errors
/// It cannot be sealed.
pub fn material(vault: &Vault, key_id: &str, now: i64, on_demand: bool) -> Result<Material, Broken> {
    let mut bytes = random(32);
    Ok(Material {
        sealed: vault
            .root
            .seal(&of_material(key_id), std::mem::take(&mut bytes))?,
        made_at: now,
        on_demand,
    })
}

/// A new key, with material.
///
/// # Errors
/// As [`material`].
pub fn new_key(vault: &Vault, scope: &Scope, now: i64) -> Result<KmsKey, Broken> {
    let id = uuid(rand::random());
    Ok(KmsKey {
        account_id: scope.account_id().to_owned(),
        region: scope.region().to_owned(),
        description: String::new(),
        is_managed: false,
        is_enabled: true,
        deletion: None,
        materials: vec![material(vault, &id, now, false)?],
        rotation_days: None,
        rotates_from: now,
        created_at: now,
        tags: Tags::new(),
        policy: None,
        id,
    })
}

/// RFC 9562, version 4.
pub fn uuid(random: u128) -> String {
    uuid_text(random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62))
}

/// The bytes of a UUID as texts have it.
fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    hex::decode(text.replace('-', "")).ok()?.try_into().ok()
}

fn uuid_text(bytes: u128) -> String {
    let hex = format!("{bytes:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// The key that the cloud makes for what an account encrypts in a region without naming one. It is made when it is not there yet.
///
/// # Errors
/// As [`material`].
pub fn managed_key(tx: &mut Tx<'_>, vault: &Vault, scope: &Scope) -> Result<KmsKey, Broken> {
    if let Some(made) = tx.kms_key(scope, KmsAlias::EBS) {
        return Ok(made.clone());
    }
    let now = tx.now();
    let key = KmsKey {
        description: "Default key that protects my EBS volumes when no other key is defined".to_owned(),
        is_managed: true,
        rotation_days: Some(YEARLY),
        ..new_key(vault, scope, now)?
    };
    tx.put(key.clone());
    tx.put(KmsAlias {
        id: uuid(rand::random()),
        account_id: key.account_id.clone(),
        region: key.region.clone(),
        name: KmsAlias::EBS.to_owned(),
        key_id: key.id.clone(),
        created_at: now,
        updated_at: now,
    });
    tx.event("kms-key.created", &key.id);
    Ok(key)
}

/// # Errors
/// It is disabled, or to be deleted.
pub fn check(key: &KmsKey) -> Result<(), KeyError> {
    if key.can_be_used() {
        return Ok(());
    }
    let (state, remedy) = match &key.deletion {
        Some(_) => (
            "pending deletion",
            "cancel that by CancelKeyDeletion, and enable it by EnableKey",
        ),
        None => ("disabled", "enable it by EnableKey"),
    };
    Err(KeyError::State {
        arn: key.arn(),
        state,
        remedy,
    })
}

/// A new data key under a KMS key.
///
/// # Errors
/// It cannot be sealed.
pub fn new_data_key(vault: &Vault, key: &KmsKey) -> Result<Encryption, Broken> {
    let material = key.materials.len().checked_sub(1).ok_or(Broken)?;
    let sealing = sealing_key(vault, key, material)?;
    let mut bytes = random(DataKey::LENGTH);
    Ok(Encryption {
        key_id: key.id.clone(),
        account_id: key.account_id.clone(),
        material,
        data_key: sealing.seal(&of_data_key(&key.id), std::mem::take(&mut bytes))?,
    })
}

fn sealing_key(vault: &Vault, key: &KmsKey, material: usize) -> Result<SealingKey, Broken> {
    SealingKey::of(&material_of(vault, key, material)?)
}

/// One of a key's materials, opened.
fn material_of(vault: &Vault, key: &KmsKey, material: usize) -> Result<Zeroizing<Vec<u8>>, Broken> {
    let material = key.materials.get(material).ok_or(Broken)?;
    vault.root.open(&of_material(&key.id), &material.sealed)
}

/// Whether the KMS key of something encrypted may be used for more than goes on already.
///
/// # Errors
/// It is disabled, to be deleted, or gone.
pub fn usable(state: &State, encryption: &Encryption, region: &str) -> Result<(), KeyError> {
    check(key_of(state, encryption, region)?)
}

/// Whether all volumes of an instance can be opened for a start.
///
/// # Errors
/// As [`usable`].
pub fn usable_by(state: &State, instance_id: &str) -> Result<(), KeyError> {
    let volumes = state.by(&Volume::BY_INSTANCE, instance_id);
    let encrypted = volumes.filter_map(|volume| Some((volume.encryption.as_ref()?, &volume.region)));
    for (encryption, region) in encrypted {
        usable(state, encryption, region)?;
    }
    Ok(())
}

fn key_of<'s>(state: &'s State, encryption: &Encryption, region: &str) -> Result<&'s KmsKey, KeyError> {
    let key = state.of_anybody::<KmsKey>(&encryption.key_id);
    key.ok_or_else(|| KeyError::Gone(encryption.arn(region)))
}

/// Opens a data key, also of a KMS key that is disabled or to be deleted: for what goes on already, such as the disk of an
/// instance that runs.
///
/// # Errors
/// The KMS key is gone, or a seal is broken.
pub fn open(state: &State, vault: &Vault, encryption: &Encryption, region: &str) -> Result<Opened, KeyError> {
    let key = key_of(state, encryption, region)?;
    let sealing = sealing_key(vault, key, encryption.material)?;
    let bytes = sealing.open(&of_data_key(&key.id), &encryption.data_key)?;
    let opened: &[u8; DataKey::LENGTH] = bytes.as_slice().try_into().map_err(|_| Broken)?;
    Ok(Zeroizing::new(*opened))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn vault() -> Vault {
        let key = || SealingKey::read(&SealingKey::generate()).unwrap();
        Vault {
            root: key(),
            cloud: key(),
        }
    }

    #[test]
    fn ids_are_random_uuids() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn data_keys_outlive_rotations_and_not_their_kms_key() {
        let (vault, scope) = (vault(), Scope::new("1", "local-1"));
        let mut state = State::default();
        let mut tx = Tx::new(&mut state, 0);
        let mut key = managed_key(&mut tx, &vault, &scope).unwrap();
        assert_eq!(managed_key(&mut tx, &vault, &scope).unwrap(), key, "made once");
        let before = new_data_key(&vault, &key).unwrap();
        key.materials.push(material(&vault, &key.id, 1, true).unwrap());
        let after = new_data_key(&vault, &key).unwrap();
        assert_eq!((before.material, after.material), (0, 1));
        tx.put(key.clone());
        tx.finish().unwrap();
        let opened = |state: &State, of| open(state, &vault, of, "local-1");
        let (one, other) = (opened(&state, &before).unwrap(), opened(&state, &after).unwrap());
        assert_ne!(one, other);
        // A disabled key opens for what goes on, and for nothing else.
        let mut tx = Tx::new(&mut state, 0);
        tx.update::<KmsKey>(&key.id, |key| key.is_enabled = false);
        tx.finish().unwrap();
        assert_eq!(opened(&state, &before).unwrap(), one);
        assert!(matches!(
            usable(&state, &before, "local-1"),
            Err(KeyError::State { .. })
        ));
        // Data keys of other keys, other material, other vaults.
        let mixed = Encryption {
            material: 1,
            ..before.clone()
        };
        assert!(matches!(opened(&state, &mixed), Err(KeyError::Broken(_))));
        let stranger = self::vault();
        assert!(open(&state, &stranger, &before, "local-1").is_err());
        let mut tx = Tx::new(&mut state, 0);
        tx.remove::<KmsKey>(&key.id);
        tx.finish().unwrap();
        assert!(
            state.kms_key(&scope, KmsAlias::EBS).is_none(),
            "its alias goes with it"
        );
        let gone = opened(&state, &before).unwrap_err();
        assert!(matches!(&gone, KeyError::Gone(arn) if *arn == key.arn()));
    }
}
