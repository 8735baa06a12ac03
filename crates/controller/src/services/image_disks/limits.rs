//! What uploads may take: how many at once, how long, and how much all images of an account together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hearth_api::{ApiError, ErrorCode};
use tokio::time::Instant;

use crate::config::Config;
use crate::state::{Image, Snapshot, State};

/// Uploads at the same time. Each holds up to two messages in memory.
const AT_ONCE: usize = 16;
/// ... of them those of one account.
const OF_ACCOUNT: usize = 4;
/// How long any upload may take ...
const START: Duration = Duration::from_secs(120);
/// ... and how many bytes of data and of skipped zeros bring another second.
const DATA_RATE: u64 = 16 << 10;
const ZERO_RATE: u64 = 16 << 20;
/// How long the longest may take.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The uploads under way, by account.
#[derive(Debug, Default)]
pub(in crate::services) struct Uploads(Mutex<HashMap<String, UnderWay>>);

#[derive(Debug, Default, Clone, Copy)]
struct UnderWay {
    count: usize,
    /// Sum of the disks' sizes.
    bytes: u64,
}

/// An upload's place among those under way, until it is dropped.
#[derive(Debug)]
pub(in crate::services) struct Slot {
    uploads: Arc<Uploads>,
    account_id: String,
    bytes: u64,
}

impl Uploads {
    /// # Errors
    /// Too many uploads are under way, or the image would be too much once all of them are registered.
    pub(in crate::services) fn admit(
        self: &Arc<Self>,
        account_id: &str,
        bytes: u64,
        config: &Config,
        [images, stored]: [u64; 2],
    ) -> Result<Slot, ApiError> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all: usize = accounts.values().map(|under_way| under_way.count).sum();
        let under_way = accounts.get(account_id).copied().unwrap_or_default();
        let full = [
            (under_way.count, OF_ACCOUNT, " of this account"),
            (of_all, AT_ONCE, ""),
        ];
        if let Some((_, most, whose)) = full.into_iter().find(|(count, most, _)| count >= most) {
            return Err(ApiError::new(
                ErrorCode::RequestLimitExceeded,
                format!(
                    "{most} images{whose} are being uploaded, which is as many as may be. Try again later."
                ),
            ));
        }
        within(
            config,
            images + under_way.count as u64 + 1,
            stored.saturating_add(under_way.bytes).saturating_add(bytes),
        )?;
        let own = accounts.entry(account_id.to_owned()).or_default();
        own.count += 1;
        own.bytes += bytes;
        Ok(Slot {
            uploads: Arc::clone(self),
            account_id: account_id.to_owned(),
            bytes,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut accounts = self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = accounts.get_mut(&self.account_id) {
            own.count -= 1;
            own.bytes -= self.bytes;
        }
        accounts.retain(|_, under_way| under_way.count > 0);
    }
}

/// An account's images, and the bytes that are stored for its images and snapshots.
pub(in crate::services) fn totals(state: &State, account_id: &str) -> [u64; 2] {
    let [images, _] = state.sum(&Image::TOTAL, account_id);
    let [_, stored] = state.sum(&Snapshot::TOTAL, account_id);
    [images, stored]
}

/// Whether one more image of `bytes` bytes may be stored for an account.
pub(in crate::services) fn one_more(
    state: &State,
    account_id: &str,
    config: &Config,
    bytes: u64,
) -> Result<(), ApiError> {
    let [count, stored] = totals(state, account_id);
    within(config, count + 1, stored.saturating_add(bytes))
}

/// Whether anything more may be stored for an account.
pub(in crate::services) fn has_room(
    state: &State,
    account_id: &str,
    config: &Config,
) -> Result<(), ApiError> {
    let [_, stored] = totals(state, account_id);
    within(config, 0, stored.saturating_add(1))
}

fn within(config: &Config, images: u64, bytes: u64) -> Result<(), ApiError> {
    let exceeded = |what: String| {
        ApiError::new(
            ErrorCode::ResourceLimitExceeded,
            format!(
                "{what}, what is being uploaded, or is deregistered and in use, included. Deregister images, delete \
                 snapshots, or start hearthd with a larger limit."
            ),
        )
    };
    if images > config.image_limit.into() {
        return Err(exceeded(format!(
            "An account may have {} images (--image-limit)",
            config.image_limit
        )));
    }
    if bytes > u64::from(config.image_gib_limit) << 30 {
        return Err(exceeded(format!(
            "The disks of an account's images and snapshots may have {} GiB together (--image-gib-limit)",
            config.image_gib_limit
        )));
    }
    Ok(())
}

/// How long an upload may keep us waiting.
#[derive(Debug)]
pub(super) struct Patience {
    begin: Instant,
    idle: Duration,
    data: u64,
    /// Where the last chunk ended.
    offset: u64,
}

impl Patience {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            begin: Instant::now(),
            idle: Duration::from_secs(config.upload_idle_seconds.into()),
            data: 0,
            offset: 0,
        }
    }

    /// A chunk has come.
    pub(super) fn came(&mut self, offset: i64, bytes: usize) {
        self.data = self.data.saturating_add(bytes as u64);
        self.offset = offset.unsigned_abs().saturating_add(bytes as u64);
    }

    /// When the next message has to be there, and what is wrong if it is not.
    pub(super) fn ends(&self) -> (Instant, ApiError) {
        let skipped = self.offset.saturating_sub(self.data);
        let earned = Duration::from_secs(self.data / DATA_RATE + skipped / ZERO_RATE);
        let end = self.begin + START.saturating_add(earned).min(LONGEST);
        let idle = Instant::now() + self.idle;
        let why = if idle <= end {
            format!("nothing came for {} seconds", self.idle.as_secs())
        } else {
            format!(
                "it is too slow: {} bytes came in {} seconds",
                self.data,
                self.begin.elapsed().as_secs()
            )
        };
        let error = ApiError::new(
            ErrorCode::RequestExpired,
            format!("The upload was ended: {why}. What came is kept for a day: upload again to go on."),
        );
        (idle.min(end), error)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        config: Config,
    }

    fn config(arguments: &[&str]) -> Config {
        Arguments::parse_from([&["hearthd"], arguments].concat()).config
    }

    #[test]
    fn places_and_bytes_are_given_back() {
        let uploads = Arc::new(Uploads::default());
        let config = config(&["--image-limit", "20", "--image-gib-limit", "100"]);
        let admit = |account: usize| uploads.admit(&account.to_string(), 1 << 30, &config, [0, 0]);
        let slots: Vec<Slot> = (0..AT_ONCE)
            .map(|count| {
                let account = count / OF_ACCOUNT;
                let slot = admit(account).unwrap();
                if count % OF_ACCOUNT == OF_ACCOUNT - 1 {
                    assert_eq!(admit(account).unwrap_err().code, ErrorCode::RequestLimitExceeded);
                }
                slot
            })
            .collect();
        assert_eq!(admit(AT_ONCE).unwrap_err().code, ErrorCode::RequestLimitExceeded);
        drop(slots);
        assert!(uploads.0.lock().unwrap().is_empty());
        for (stored, fits) in [
            ([19, 0], true),
            ([20, 0], false),
            ([0, 99 << 30], true),
            ([0, (99 << 30) + 1], false),
        ] {
            let admitted = uploads.admit("1", 1 << 30, &config, stored);
            assert_eq!(admitted.is_ok(), fits, "{stored:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn data_earns_time_and_claims_earn_little() {
        let mut patience = Patience::new(&config(&[]));
        let left = |patience: &Patience| patience.ends().0 - Instant::now();
        assert_eq!(left(&patience).as_secs(), 30);
        tokio::time::advance(Duration::from_secs(110)).await;
        assert_eq!(left(&patience).as_secs(), 10);
        assert!(patience.ends().1.message.contains("too slow"));
        patience.came(0, 160 << 10);
        assert_eq!(left(&patience).as_secs(), 20);
        patience.came(160 << 10, 1 << 20);
        assert_eq!(left(&patience).as_secs(), 30);
        assert!(patience.ends().1.message.contains("nothing came for 30 seconds"));
        // 16 TiB of zeros are claimed.
        patience.came(16 << 40, 0);
        tokio::time::advance(Duration::from_secs(24 * 3600)).await;
        assert_eq!(left(&patience).as_secs(), 0);
    }
}
