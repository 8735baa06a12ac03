//! A database in a guest, and what it has to hold after a blow to its host.
//!
//! Debian's SQLite moves amounts between accounts. Each transfer is a transaction, which also adds an entry with the next
//! number and a seal over the entry and the seal before. A committed number goes out of the guest by ssh, and from the
//! machine by its serial line, which QEMU writes to a file: it is known outside of the machine before anything else can
//! happen to it.
//!
//! `synchronous` is `EXTRA`: with `FULL` a commit does not flush the directory from which it removes the rollback journal,
//! and the last commit before a power cut may be undone (<https://sqlite.org/pragma.html#pragma_synchronous>).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::site::{LONG, Site};

const ACCOUNTS: u64 = 16;
const OPENING_BALANCE: u64 = 1000;

/// In the guest: runs SQL of the arguments or of the standard input, with the libraries that came along.
const SQL: &str = r#"cd "$HOME/ledger"; exec lib/ld-linux-x86-64.so.2 --library-path lib ./sqlite3 -batch -bail ledger.db "$@""#;

/// In the guest: makes transfers for ever, in the journal mode $1, and says each number when it is committed. `.once` opens its
/// file for each answer and closes it, so that nothing waits in a buffer; it can open pipes, and no sockets.
const WRITER: &str = r#"
n=$(sh ledger/sql 'select coalesce(max(seq), 0) from entry')
{
    echo "pragma journal_mode=$1; pragma synchronous=extra; pragma wal_autocheckpoint=40;"
    while :; do
        n=$((n + 1)); s=$((n % 16)); t=$(((s + 1 + n % 15) % 16)); a=$((n % 97 + 1))
        echo "begin immediate;
update account set balance = balance - $a where id = $s;
update account set balance = balance + $a where id = $t;
insert into entry select $n, $s, $t, $a, julianday('now'),
    hex(sha3('$n $s $t $a ' || coalesce((select seal from entry where seq = $n - 1), '')));
commit;
.once /proc/self/fd/1
select 'ledger: committed ' || max(seq) from entry;"
    done
} | sh ledger/sql | cat
"#;

const SCHEMA: &str = "
create table account (id integer primary key, balance integer not null);
create table entry (seq integer primary key, source integer not null, target integer not null, amount integer not null,
    at real not null, seal text not null);
with recursive n(i) as (select 0 union all select i + 1 from n where i < 15) insert into account select i, 1000 from n;
";

/// SQLite's own check; the sum of the balances; the entries and the last number; seals that are wrong; accounts that are
/// not what their entries make of them.
const CHECK: &str = "
begin;
pragma integrity_check;
select sum(balance) from account;
select count(*) from entry;
select coalesce(max(seq), 0) from entry;
select count(*) from (select seal, hex(sha3(seq || ' ' || source || ' ' || target || ' ' || amount || ' ' ||
    lag(seal, 1, '') over (order by seq))) as right_seal from entry) where seal <> right_seal;
select count(*) from account where balance <> 1000 + (select coalesce(sum(amount), 0) from entry where target = id)
    - (select coalesce(sum(amount), 0) from entry where source = id);
commit;
";

/// What an instance is known by, from within.
const IDENTITY: &str = "cat /etc/dropbear/dropbear_ed25519_host_key.text /sys/class/net/eth0/address /etc/hostname \
     /run/hearth/imds/instance-id; ip -o -4 address show eth0 | cut -d/ -f1";

pub struct Ledger {
    pub instance: String,
    identity: String,
}

impl Ledger {
    /// Brings the database into an instance, whose files are all flushed afterwards.
    pub fn open(site: &mut Site, instance: &str) -> Result<Self> {
        site.machine.put("/tmp/sql", SQL.as_bytes())?;
        site.machine.put("/tmp/writer", WRITER.as_bytes())?;
        site.machine.put("/tmp/check", CHECK.as_bytes())?;
        site.machine.put("/tmp/schema", SCHEMA.as_bytes())?;
        site.run(&format!(
            "set -e; cd /tmp; mkdir -p ledger/lib; mv sql writer check schema ledger; cp /usr/bin/sqlite3 ledger; \
             ldd ledger/sqlite3 | grep -o '/lib[^ ]*' | xargs cp -t ledger/lib; \
             tar -c ledger | hearth ssh {instance} --wait 300 -- 'tar -x && sh ledger/sql <ledger/schema && sync'; sync"
        ))?;
        let mut ledger = Self {
            instance: instance.to_owned(),
            identity: String::new(),
        };
        ledger.identity = ledger.identity(site)?;
        Ok(ledger)
    }

    /// From within the instance and from the control plane.
    fn identity(&self, site: &mut Site) -> Result<String> {
        let within = site.ssh(&self.instance, IDENTITY)?;
        let without = site.field(
            &self.instance,
            "[PrivateIpAddress,PublicIpAddress,PrivateDnsName]",
        )?;
        Ok(format!("{within}\n{without}"))
    }

    /// Starts writing, over one ssh connection, and waits for `count` more numbers than have been acknowledged.
    pub fn write(&self, site: &mut Site, journal_mode: &str, count: u64) -> Result<()> {
        let before = self.acknowledged(site)?;
        site.run(&format!(
            "systemd-run --quiet --collect --unit ledger --setenv HOME=/root --setenv PATH=$PATH \
             --property StandardOutput=file:/dev/ttyS0 --property StandardError=journal \
             -- hearth ssh {} --wait 300 -- sh ledger/writer {journal_mode}",
            self.instance
        ))?;
        self.wait_for(site, before + count)
    }

    /// Waits until this number has been acknowledged.
    pub fn wait_for(&self, site: &mut Site, number: u64) -> Result<()> {
        let deadline = Instant::now() + LONG;
        while self.acknowledged(site)? < number {
            if Instant::now() > deadline {
                let said = site.run("journalctl --no-pager --unit ledger | tail -n 20")?;
                anyhow::bail!("entry {number} does not come: {said}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The highest number that the outside knows to be committed.
    pub fn acknowledged(&self, site: &Site) -> Result<u64> {
        let console = site.machine.console()?;
        let numbers = console
            .lines()
            .filter_map(|line| line.trim_end().split_once("ledger: committed "))
            .filter_map(|(_, number)| number.parse().ok());
        Ok(numbers.max().unwrap_or(0))
    }

    /// Asserts that the instance is who it was and the database whole, with all that was acknowledged; the highest number.
    pub fn check(&self, site: &mut Site) -> Result<u64> {
        let acknowledged = self.acknowledged(site)?;
        let found = site.ssh(&self.instance, "sh ledger/sql <ledger/check")?;
        let [integrity, sum, count, last, broken_seals, wrong_accounts] =
            found.lines().collect::<Vec<_>>()[..]
        else {
            anyhow::bail!("the check says {found:?}");
        };
        ensure!(
            integrity == "ok" && broken_seals == "0" && wrong_accounts == "0" && count == last,
            "the check says {found:?}"
        );
        ensure!(
            sum == (ACCOUNTS * OPENING_BALANCE).to_string(),
            "the sum is {sum}"
        );
        let last: u64 = last
            .parse()
            .with_context(|| format!("the last number: {last:?}"))?;
        ensure!(
            last >= acknowledged,
            "{acknowledged} was acknowledged, {last} is the last"
        );
        let identity = self.identity(site)?;
        ensure!(
            identity == self.identity,
            "it was {}, and is {identity}",
            self.identity
        );
        Ok(last)
    }

    /// Whether the connection over which it began to write last still stands.
    pub fn writes_on(&self, site: &mut Site) -> Result<bool> {
        let ended = site.try_run("systemctl is-active --quiet ledger")?;
        Ok(ended.status.success())
    }

    /// The longest time between two commits of those from `first` on.
    pub fn longest_gap(&self, site: &mut Site, first: u64) -> Result<Duration> {
        let gap = site.ssh(
            &self.instance,
            &format!(
                "sh ledger/sql \"select max(gap) from (select 86400 * (at - lag(at) over (order by seq)) as gap \
                 from entry where seq >= {first})\""
            ),
        )?;
        let gap: f64 = gap
            .parse()
            .with_context(|| format!("a number of seconds: {gap:?}"))?;
        Ok(Duration::try_from_secs_f64(gap)?)
    }
}
