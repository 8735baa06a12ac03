//! Accounts, for the operator: who rents this cloud.

use std::sync::Arc;

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};
use serde_json::json;

use super::serve;
use crate::app::App;
use crate::state::{
    self, AccessKey, AccountSettings, ClientToken, Group, InstanceProfile, InternetGateway, KmsAlias,
    KmsGrant, KmsKey, Noun as _, Policy, Region, Reservation, Role, RouteTable, SecurityGroup,
    SecurityGroupRule, State, Subnet, Tx, User, Vpc,
};
use crate::store::bootstrap::furnish;
use crate::views::timestamp;

/// Accounts of a cloud.
const MOST: usize = 1000;

serve! { accounts_server::Accounts as Accounts {
    create_account(CreateAccountRequest) -> CreateAccountResponse: create;
    list_accounts(ListAccountsRequest) -> ListAccountsResponse: list;
    create_account_access_key(CreateAccountAccessKeyRequest) -> CreateAccountAccessKeyResponse: create_key;
    close_account(CloseAccountRequest) -> CloseAccountResponse: close;
} }

fn tell(row: &state::Account) -> Account {
    Account {
        account_id: row.id.clone(),
        account_name: row.name.clone(),
        joined_timestamp: Some(timestamp(row.created_at)),
    }
}

async fn create(app: &App, request: CreateAccountRequest) -> Result<CreateAccountResponse, ApiError> {
    let name = request.account_name;
    if name.trim() != name || name.is_empty() || name.chars().any(char::is_control) {
        let expected = "Expecting 1 to 50 characters, without leading or trailing spaces.";
        return Err(ApiError::invalid_value("AccountName", &name, expected));
    }
    let (vpc_cidr, vault) = (app.config.vpc_cidr, Arc::clone(&app.vault));
    app.store
        .transact(move |tx| {
            if tx.any_by(&state::Account::BY_NAME, &name) {
                let message = format!("There is an account '{name}' already. Choose another name.");
                return Err(ApiError::new(ErrorCode::EntityAlreadyExists, message));
            }
            if tx.count::<state::Account>() >= MOST {
                let message = format!("There are {MOST} accounts, as many as may be.");
                return Err(ApiError::new(ErrorCode::ResourceLimitExceeded, message));
            }
            let mut id = state::Account::new_id();
            while tx.account(&id).is_some() {
                id = state::Account::new_id();
            }
            let account = state::Account {
                id,
                name,
                created_at: tx.now(),
            };
            let (key, secret) = AccessKey::generate(&vault.root, &account.id, None, tx.now())?;
            let access_key_id = key.id.clone();
            tx.put(account.clone());
            tx.put(key);
            let regions: Vec<Region> = tx.all::<Region>().cloned().collect();
            for region in &regions {
                furnish(tx, &account.id, region, vpc_cidr);
            }
            tx.audit(json!({ "created": account.id, "name": account.name }));
            tx.event("account.created", &account.id);
            Ok(CreateAccountResponse {
                account: Some(tell(&account)),
                access_key_id,
                secret_access_key: secret.0,
            })
        })
        .await
}

async fn list(app: &App, _: ListAccountsRequest) -> Result<ListAccountsResponse, ApiError> {
    let state = app.state();
    let mut accounts: Vec<&state::Account> = state.all().collect();
    accounts.sort_by_key(|account| (account.id != app.cloud.owner_id, account.created_at));
    Ok(ListAccountsResponse {
        accounts: accounts.into_iter().map(tell).collect(),
    })
}

/// Root keys of an account.
const MOST_KEYS: usize = 2;

async fn create_key(
    app: &App,
    request: CreateAccountAccessKeyRequest,
) -> Result<CreateAccountAccessKeyResponse, ApiError> {
    let (id, vault) = (request.account_id, Arc::clone(&app.vault));
    app.store
        .transact(move |tx| {
            known(tx, &id)?;
            if tx.by(&AccessKey::BY_ACCOUNT, &id).count() >= MOST_KEYS {
                let message =
                    format!("The root user of {id} has {MOST_KEYS} access keys. Its user deletes one: DeleteAccessKey.");
                return Err(ApiError::new(ErrorCode::LimitExceeded, message));
            }
            let (key, secret) = AccessKey::generate(&vault.root, &id, None, tx.now())?;
            let access_key_id = key.id.clone();
            tx.put(key);
            tx.audit(json!({ "account_of_key": id, "access_key": access_key_id }));
            Ok(CreateAccountAccessKeyResponse {
                access_key_id,
                secret_access_key: secret.0,
            })
        })
        .await
}

fn known(state: &State, id: &str) -> Result<(), ApiError> {
    match state.account(id) {
        Some(_) => Ok(()),
        None => {
            let expected = "There is no such account; ListAccounts tells them.";
            Err(ApiError::invalid_value("AccountId", id, expected))
        }
    }
}

/// What goes with an account, in this order: what refers to something goes before it. Anything else must be gone before.
macro_rules! goes {
    ($($noun:ty),* $(,)?) => {
        const GOES: &[&str] = &[$(<$noun>::KIND),*];

        fn remove_all(tx: &mut Tx<'_>, account_id: &str) {
            $(remove::<$noun>(tx, account_id);)*
        }
    };
}

goes! {
    ClientToken, Reservation, AccountSettings, AccessKey, InstanceProfile, User, Group, Role, Policy, SecurityGroupRule,
    SecurityGroup, RouteTable, InternetGateway, Subnet, Vpc, KmsAlias, KmsGrant, KmsKey,
}

async fn close(app: &App, request: CloseAccountRequest) -> Result<CloseAccountResponse, ApiError> {
    let id = request.account_id;
    if id == app.cloud.owner_id {
        let expected = "It is the operator's own, which stays.";
        return Err(ApiError::invalid_value("AccountId", &id, expected));
    }
    app.store
        .transact(move |tx| {
            known(tx, &id)?;
            if let Some((kind, left)) = tx.belonging(&id, GOES) {
                let message = format!(
                    "The account {id} still has the {kind} {left}. Delete what it has first; instances are gone an hour \
                     after their termination."
                );
                return Err(ApiError::new(ErrorCode::DependencyViolation, message));
            }
            remove_all(tx, &id);
            tx.remove::<state::Account>(&id);
            tx.audit(json!({ "closed": id }));
            tx.event("account.closed", &id);
            Ok(CloseAccountResponse { account_id: id })
        })
        .await
}

fn remove<N: state::Held>(tx: &mut Tx<'_>, account_id: &str) {
    let of_account = tx.all::<N>().filter(|object| object.account() == account_id);
    let ids: Vec<String> = of_account.map(|object| object.id().to_owned()).collect();
    tx.remove_all::<N>(ids);
}
