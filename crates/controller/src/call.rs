//! The context of a call of the API: who asks, for what, and under which id. The door makes it, once
//! ([`crate::door::calls`]). Transactions take it from the task that asks for them, so that no service hands it on.

use std::sync::Arc;

/// Who calls. There is one account, which whoever may open the API's socket acts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub account_id: String,
    /// Of the process at the other end of the socket.
    pub uid: u32,
    pub pid: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Of this call alone: a UUID, as EC2 has it.
    pub request_id: String,
    /// EC2's name of the call, or Hearth's.
    pub action: String,
    pub principal: Principal,
    /// Whether everything is to be checked and nothing to be done.
    pub dry_run: bool,
}

tokio::task_local! {
    static CURRENT: Arc<Call>;
}

impl Call {
    pub fn new(action: String, principal: Principal) -> Self {
        Self {
            request_id: request_id(rand::random()),
            action,
            principal,
            dry_run: false,
        }
    }

    /// The call that the running task serves; `None`: it works for no call.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs the work of a call.
    pub async fn serve<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }
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

    #[test]
    fn request_ids_are_uuids() {
        assert_eq!(request_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(request_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[tokio::test]
    async fn the_work_of_a_call_knows_it() {
        let principal = Principal {
            account_id: "1".into(),
            uid: 0,
            pid: 1,
        };
        assert_eq!(Call::current(), None);
        let call = Arc::new(Call::new("RunInstances".into(), principal));
        let seen = Arc::clone(&call).serve(async { Call::current() }).await;
        assert_eq!(seen, Some(call));
    }
}
