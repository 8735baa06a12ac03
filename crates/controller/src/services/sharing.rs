//! Who else may use an image or a snapshot: some accounts, or all.

use std::collections::BTreeSet;

use hearth_api::{ApiError, ErrorCode};

use crate::state::{Encryption, KmsKey, State};

/// The group of all accounts, the only one that there is.
pub(super) const ALL: &str = "all";
/// Accounts that something is shared with.
const MOST: usize = 1000;

/// Whom a change names: an account, or a group.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub account: String,
    pub group: String,
}

/// What is shared with whom from now on.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    pub add: Vec<Named>,
    pub remove: Vec<Named>,
}

/// A change in its older form: an operation, and whom it names.
///
/// # Errors
/// There is no such operation.
pub(super) fn listed(operation: &str, groups: &[String], accounts: &[String]) -> Result<Change, ApiError> {
    let groups = groups.iter().map(|group| Named {
        account: String::new(),
        group: group.clone(),
    });
    let accounts = accounts.iter().map(|account| Named {
        account: account.clone(),
        group: String::new(),
    });
    let named = groups.chain(accounts).collect();
    let mut change = Change::default();
    match operation {
        "add" => change.add = named,
        "remove" => change.remove = named,
        "" => return Err(ApiError::missing("OperationType")),
        other => {
            let expected = "Expecting add or remove.";
            return Err(ApiError::invalid_value("OperationType", other, expected));
        }
    }
    Ok(change)
}

/// Whether something encrypted may be shared as a change says: nobody else can use the key that the cloud makes for an account,
/// and nothing encrypted is public.
/// <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-modifying-snapshot-permissions.html>
///
/// # Errors
/// What `refuse` makes of a sentence.
pub(super) fn check_encrypted(
    state: &State,
    change: &Change,
    encryption: Option<&Encryption>,
    refuse: impl Fn(bool) -> ApiError,
) -> Result<(), ApiError> {
    let Some(encryption) = encryption.filter(|_| !change.add.is_empty()) else {
        return Ok(());
    };
    let key = state.of_anybody::<KmsKey>(&encryption.key_id);
    let is_managed = key.is_some_and(|key| key.is_managed);
    let is_public = change.add.iter().any(|named| !named.group.is_empty());
    match is_managed || is_public {
        true => Err(refuse(is_managed)),
        false => Ok(()),
    }
}

/// Carries a change out.
///
/// # Errors
/// It names no account and no group, or too many.
pub(super) fn apply(
    change: &Change,
    is_public: &mut bool,
    shared_with: &mut BTreeSet<String>,
) -> Result<(), ApiError> {
    let item = |value: &str, of: &str| {
        ApiError::new(
            ErrorCode::InvalidAmiAttributeItemValue,
            format!("Invalid attribute item value \"{value}\" for {of} item type."),
        )
    };
    let is_account = |account: &str| account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let adding = change.add.iter().map(|named| (named, true));
    let removing = change.remove.iter().map(|named| (named, false));
    for (Named { account, group }, may) in adding.chain(removing) {
        match (account.as_str(), group.as_str()) {
            ("", ALL) => *is_public = may,
            (account, "") if is_account(account) && may => drop(shared_with.insert(account.to_owned())),
            (account, "") if is_account(account) => drop(shared_with.remove(account)),
            (account, "") => return Err(item(account, "userId")),
            ("", group) => return Err(item(group, "group")),
            _ => return Err(ApiError::combination("UserId", "Group")),
        }
    }
    if shared_with.len() > MOST {
        let message = format!("It can be shared with at most {MOST} accounts. Share it with all.");
        return Err(ApiError::new(ErrorCode::ResourceLimitExceeded, message));
    }
    Ok(())
}

/// Whom something is shared with, all accounts first.
pub(super) fn tell(is_public: bool, shared_with: &BTreeSet<String>) -> impl Iterator<Item = Named> {
    let everybody = is_public.then(|| Named {
        account: String::new(),
        group: ALL.to_owned(),
    });
    let accounts = shared_with.iter().map(|account| Named {
        account: account.clone(),
        group: String::new(),
    });
    everybody.into_iter().chain(accounts)
}
