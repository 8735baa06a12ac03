//! The context of a call of the API: who asks, for what, and under which id. The door makes it, once
//! ([`crate::door::calls`]). Transactions take it from the task that asks for them, so that no service hands it on.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::Request;
use http::header::HOST;
use http::uri::Authority;

use crate::iam::session::Session;
use crate::state::{AccessKey, Role, Scope, State, User};

/// Who calls, for which account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub account_id: String,
    pub caller: Caller,
}

/// By what a caller is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The process at the other end of the API's socket, which acts for the owner's account.
    Process { uid: u32, pid: i32 },
    /// The key that the request was signed with.
    AccessKey(String),
    /// Credentials that end.
    Session(Session),
}

impl Caller {
    /// A process that the kernel says nothing about.
    pub const UNKNOWN: Self = Self::Process {
        uid: u32::MAX,
        pid: 0,
    };

    /// The account that it acts for; `None`: its key, user or role is gone. `state` is the whole, and processes act for
    /// the operator's account.
    pub fn account(&self, state: &State, operator: &str) -> Option<String> {
        let account = match self {
            Self::Process { .. } => operator,
            Self::AccessKey(id) => &state.get::<AccessKey>(id)?.account_id,
            Self::Session(session) => {
                let id = &session.principal_id;
                let user = state.get::<User>(id).map(|user| &user.account_id);
                let role = state.get::<Role>(id).map(|role| &role.account_id);
                let root = state.account(id).map(|account| &account.id);
                user.or(role).or(root)?
            }
        };
        Some(account.to_owned())
    }

    /// Those that share places: a user's processes do.
    pub fn peer(&self) -> Self {
        match self {
            Self::Process { uid, .. } => Self::Process { uid: *uid, pid: 0 },
            Self::AccessKey(_) | Self::Session(_) => self.clone(),
        }
    }
}

impl Caller {
    /// For another `hearthd`, which reads it ([`Caller::from_str`]).
    pub fn whole(&self) -> String {
        match self {
            Self::Session(session) => session.whole(),
            _ => self.to_string(),
        }
    }
}

/// `UID:PID`, or the access key's id, or a session's.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid, pid } => write!(f, "{uid}:{pid}"),
            Self::AccessKey(id) => f.write_str(id),
            Self::Session(session) => session.fmt(f),
        }
    }
}

/// A text that no caller is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no caller")]
pub struct NoCaller;

impl FromStr for Caller {
    type Err = NoCaller;

    fn from_str(text: &str) -> Result<Self, NoCaller> {
        if text.contains('/') {
            return Session::read(text).map(Self::Session).ok_or(NoCaller);
        }
        Ok(match text.split_once(':') {
            Some((uid, pid)) => Self::Process {
                uid: uid.parse().map_err(|_| NoCaller)?,
                pid: pid.parse().map_err(|_| NoCaller)?,
            },
            None => Self::AccessKey(text.to_owned()),
        })
    }
}

/// Where a request over a network came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub address: IpAddr,
    /// Whether it came over TLS.
    pub is_secure: bool,
}

/// `https://ADDRESS` or `http://ADDRESS`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { SECURE } else { PLAIN };
        write!(f, "{scheme}{}", self.address)
    }
}

/// The URL that a request over a network was sent to, as far as the caller says: `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(pub String);

impl Endpoint {
    /// By the authority of a request's URL, or its header `Host`. `None`: it has none.
    pub fn of<B>(request: &Request<B>, origin: Origin) -> Option<Self> {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let authority = match request.uri().authority() {
            Some(authority) => authority.clone(),
            None => host?.parse::<Authority>().ok()?,
        };
        let scheme = if origin.is_secure { SECURE } else { PLAIN };
        Some(Self(format!(
            "{scheme}{}",
            authority.as_str().rsplit('@').next()?
        )))
    }
}

const SECURE: &str = "https://";
const PLAIN: &str = "http://";

impl Origin {
    /// The origin that is displayed so; `None`: none is.
    pub fn read(text: &str) -> Option<Self> {
        let (address, is_secure) = match text.strip_prefix(SECURE) {
            Some(address) => (address, true),
            None => (text.strip_prefix(PLAIN)?, false),
        };
        Some(Self {
            address: address.parse().ok()?,
            is_secure,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Of this call alone: a UUID, as EC2 has it.
    pub request_id: String,
    /// EC2's name of the call, or Hearth's.
    pub action: String,
    pub principal: Principal,
    /// Where the request came from, of callers over a network.
    pub origin: Option<Origin>,
    /// Where it was sent to, of callers over a network.
    pub endpoint: Option<Endpoint>,
    /// Whether everything is to be checked and nothing to be done.
    pub dry_run: bool,
    /// The region that the call is for; empty for a call that is for none, of IAM or the operator.
    pub region: String,
    /// Whether the call is about the cloud itself, and not about what an account has of it.
    pub is_operators: bool,
}

tokio::task_local! {
    static CURRENT: Arc<Call>;
}

impl Call {
    pub fn new(action: String, principal: Principal) -> Self {
        Self {
            request_id: new_request_id(),
            action,
            principal,
            origin: None,
            endpoint: None,
            dry_run: false,
            region: String::new(),
            is_operators: false,
        }
    }

    /// What it sees of the state; `None`: the whole.
    pub fn scope(&self) -> Option<Scope> {
        (!self.is_operators).then(|| self.account_scope())
    }

    /// What the caller's account has where the call is for, whatever the call is about.
    pub fn account_scope(&self) -> Scope {
        Scope::new(&self.principal.account_id, &self.region)
    }

    /// The call that the running task serves; `None`: it works for no call.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs the work of a call.
    pub async fn serve<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// Runs a part of its work that does not wait.
    pub fn serve_now<T>(self: Arc<Self>, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }
}

/// Starts a task that works for the call that this one serves.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    match Call::current() {
        Some(call) => tokio::spawn(call.serve(work)),
        None => tokio::spawn(work),
    };
}

/// A request's id, of which there is no other.
pub fn new_request_id() -> String {
    request_id(rand::random())
}

/// A random UUID (RFC 9562, version 4).
fn request_id(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut text = format!("{bits:032x}");
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iam::session::SessionPolicies;

    #[test]
    fn request_ids_are_uuids() {
        assert_eq!(request_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(request_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn callers_are_told_to_another_hearthd() {
        for caller in [
            Caller::Process { uid: 1000, pid: 7 },
            Caller::AccessKey("AKIAIOSFODNN7EXAMPLE".into()),
            Caller::Session(Session {
                access_key_id: "ASIAIOSFODNN7EXAMPLE".into(),
                principal_id: "AROAIOSFODNN7EXAMPLE".into(),
                name: Some("a@b=c,d".into()),
                policies: None,
            }),
            Caller::Session(Session {
                access_key_id: "ASIAIOSFODNN7EXAMPLE".into(),
                principal_id: "AROAIOSFODNN7EXAMPLE".into(),
                name: Some("a".into()),
                policies: Some(SessionPolicies {
                    inline: Some("{\"Version\": \"/ä\"}".into()),
                    attached: vec!["arn:aws:iam::aws:policy/a".into()],
                }),
            }),
        ] {
            assert_eq!(caller.whole().parse(), Ok(caller));
        }
        // Without its policies a session could do more.
        assert!("ASIA/AROA/name/garbage".parse::<Caller>().is_err());
        assert!("a:b".parse::<Caller>().is_err());
        for (address, is_secure) in [("192.0.2.1", true), ("2001:db8::1", false)] {
            let address = address.parse().unwrap();
            let origin = Origin { address, is_secure };
            assert_eq!(Origin::read(&origin.to_string()), Some(origin));
        }
        assert!(Origin::read("192.0.2.1").is_none());
    }

    #[test]
    fn endpoints_are_told_as_they_were_called() {
        for (uri, host, is_secure, expected) in [
            (
                "/",
                Some("cloud.example:7602"),
                true,
                Some("https://cloud.example:7602"),
            ),
            (
                "https://[2001:db8::1]:7602/x",
                Some("other"),
                true,
                Some("https://[2001:db8::1]:7602"),
            ),
            (
                "http://user:secret@192.0.2.1/",
                None,
                false,
                Some("http://192.0.2.1"),
            ),
            ("/", Some("not a host"), true, None),
            ("/", None, true, None),
        ] {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let address = "192.0.2.2".parse().unwrap();
            let found = Endpoint::of(&request.body(()).unwrap(), Origin { address, is_secure });
            assert_eq!(found.map(|found| found.0).as_deref(), expected, "{uri} {host:?}");
        }
    }

    #[tokio::test]
    async fn the_work_of_a_call_knows_it() {
        let principal = Principal {
            account_id: "1".into(),
            caller: Caller::Process { uid: 0, pid: 1 },
        };
        assert_eq!(Call::current(), None);
        let call = Arc::new(Call::new("RunInstances".into(), principal));
        let seen = Arc::clone(&call).serve(async { Call::current() }).await;
        assert_eq!(seen, Some(call));
    }
}
