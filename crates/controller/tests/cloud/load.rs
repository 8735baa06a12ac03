//! A mixed load on the API, which remembers what was acknowledged, and what must be true afterwards.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hearth_api::{ApiError, Client, ErrorCode, v1};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::support::{instances, name};

/// Between two calls of one client: addresses are to last.
const PAUSE: Duration = Duration::from_millis(20);

/// What clients asked for, and what they were told.
#[derive(Default)]
pub struct Ledger {
    /// Tokens of launches that were asked for.
    asked: Vec<String>,
    /// Reservation and instance by token.
    launched: HashMap<String, (String, String)>,
    /// The last value of an instance's tag that was acknowledged, and those that were asked for since.
    tags: HashMap<String, (Option<String>, Vec<String>)>,
    terminated: HashSet<String>,
    groups: HashMap<String, String>,
    /// Calls that were acknowledged.
    pub acknowledged: usize,
    /// Calls whose outcome the client was not told.
    pub lost: usize,
}

pub struct Load {
    ledger: Arc<Mutex<Ledger>>,
    ended: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Clients take the endpoints in turn. Launches are like `launch`.
    pub fn start(
        ledger: &Arc<Mutex<Ledger>>,
        endpoints: &[String],
        launch: &v1::RunInstancesRequest,
        clients: usize,
        round: &str,
    ) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let clients = (0..clients).map(|n| {
            let one = One {
                name: format!("{round}-{n}"),
                endpoint: endpoints[n % endpoints.len()].clone(),
                launch: launch.clone(),
                ledger: Arc::clone(ledger),
                ended: Arc::clone(&ended),
                instances: Vec::new(),
            };
            tokio::spawn(one.run())
        });
        Self {
            ledger: Arc::clone(ledger),
            clients: clients.collect(),
            ended,
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.ledger.lock().unwrap().acknowledged
    }

    pub async fn stop(self) {
        self.ended.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

struct One {
    name: String,
    endpoint: String,
    launch: v1::RunInstancesRequest,
    ledger: Arc<Mutex<Ledger>>,
    ended: Arc<AtomicBool>,
    /// Those that this client launched and has not terminated. It terminates as many as it launches, so that a long load
    /// does not fill the subnet.
    instances: Vec<String>,
}

impl One {
    async fn run(mut self) {
        let mut client = None;
        for call in 0.. {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
            if client.is_none() {
                client = Client::connect(&self.endpoint).await.ok();
            }
            let Some(connected) = &client else { continue };
            let done = match (call % 6, self.instances.last().cloned()) {
                (0 | 1, _) | (_, None) => self.launch(connected, call).await,
                (2, Some(instance)) => self.tag(connected, instance, call).await,
                (3, _) => self.group(connected, call).await,
                (_, Some(instance)) => self.terminate(connected, instance).await,
            };
            let mut ledger = self.ledger.lock().unwrap();
            match done {
                Ok(()) => ledger.acknowledged += 1,
                Err(status) if is_refusal(&status) => {}
                Err(_) => {
                    ledger.lost += 1;
                    client = None;
                }
            }
        }
    }

    async fn launch(&mut self, client: &Client, call: usize) -> Result<(), Status> {
        let token = format!("{}-{call}", self.name);
        self.ledger.lock().unwrap().asked.push(token.clone());
        let mut request = self.launch.clone();
        request.client_token = token.clone();
        let answer = client
            .clone()
            .instances
            .run_instances(request)
            .await?
            .into_inner();
        let instance = answer.instances[0].instance_id.clone();
        let mut ledger = self.ledger.lock().unwrap();
        ledger
            .launched
            .insert(token, (answer.reservation_id, instance.clone()));
        self.instances.push(instance);
        Ok(())
    }

    async fn tag(&mut self, client: &Client, instance: String, call: usize) -> Result<(), Status> {
        let value = call.to_string();
        {
            let mut ledger = self.ledger.lock().unwrap();
            let (_, since) = ledger.tags.entry(instance.clone()).or_default();
            since.push(value.clone());
        }
        let request = v1::CreateTagsRequest {
            resources: vec![instance.clone()],
            tags: vec![v1::Tag {
                key: "load".into(),
                value: value.clone(),
            }],
            dry_run: false,
        };
        client.clone().tags.create_tags(request).await?;
        let mut ledger = self.ledger.lock().unwrap();
        ledger.tags.insert(instance, (Some(value), Vec::new()));
        Ok(())
    }

    async fn group(&mut self, client: &Client, call: usize) -> Result<(), Status> {
        let group_name = format!("{}-{call}", self.name);
        let request = v1::CreateSecurityGroupRequest {
            group_name: group_name.clone(),
            description: "of the load".into(),
            ..Default::default()
        };
        let mut groups = client.clone().security_groups;
        let answer = groups.create_security_group(request).await?.into_inner();
        let mut ledger = self.ledger.lock().unwrap();
        ledger.groups.insert(answer.group_id, group_name);
        Ok(())
    }

    async fn terminate(&mut self, client: &Client, instance: String) -> Result<(), Status> {
        self.instances.pop();
        let request = v1::TerminateInstancesRequest {
            instance_ids: vec![instance.clone()],
            ..Default::default()
        };
        client.clone().instances.terminate_instances(request).await?;
        self.ledger.lock().unwrap().terminated.insert(instance);
        Ok(())
    }
}

/// Whether the call is known to have changed nothing.
fn is_refusal(status: &Status) -> bool {
    ApiError::from_status(status)
        .is_some_and(|error| !matches!(error.code, ErrorCode::Unavailable | ErrorCode::InternalError))
}

impl Ledger {
    /// Repeats all launches that were asked for: those that were acknowledged answer the same, the others are made by now.
    pub async fn repeat(&mut self, client: &Client, launch: &v1::RunInstancesRequest) {
        for token in &self.asked {
            let mut request = launch.clone();
            request.client_token = token.clone();
            let again = match client.clone().instances.run_instances(request).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => {
                    // All of its instances are terminated: it was launched.
                    let code = ApiError::from_status(&status).map(|error| error.code);
                    assert_eq!(code, Some(ErrorCode::IdempotentInstanceTerminated), "{status:?}");
                    continue;
                }
            };
            let told = (
                again.reservation_id.clone(),
                again.instances[0].instance_id.clone(),
            );
            let before = self.launched.entry(token.clone()).or_insert_with(|| told.clone());
            assert_eq!(*before, told, "{token} was launched twice");
        }
    }

    /// Nothing that was acknowledged is lost, no token launched twice, and what is claimed is what there is.
    pub async fn check(&self, client: &Client) {
        let all = instances(client).await;
        let by_id: HashMap<&str, &v1::Instance> = all.iter().map(|i| (i.instance_id.as_str(), i)).collect();
        assert_eq!(by_id.len(), all.len());
        let mut tokens = HashSet::new();
        let mut addresses = HashSet::new();
        let mut alive = 0;
        for instance in &all {
            assert!(
                tokens.insert(&instance.client_token),
                "{} launched twice",
                instance.client_token
            );
            if name(instance) != "terminated" {
                alive += 1;
                assert_eq!(instance.network_interfaces.len(), 1);
                assert_eq!(instance.block_device_mappings.len(), 1);
                assert!(
                    addresses.insert(&instance.private_ip_address),
                    "an address went to two"
                );
            }
        }
        for (token, (reservation, id)) in &self.launched {
            let instance = by_id.get(id.as_str());
            let instance = instance.unwrap_or_else(|| panic!("{token} is lost: {reservation}, {id}"));
            assert_eq!(instance.client_token, *token);
        }
        for id in &self.terminated {
            let state = by_id.get(id.as_str()).map(|instance| name(instance));
            assert!(
                matches!(state, Some("shutting-down" | "terminated")),
                "{id} is {state:?}"
            );
        }
        for (id, (acknowledged, since)) in &self.tags {
            let instance = by_id[id.as_str()];
            let tag = instance.tags.iter().find(|tag| tag.key == "load");
            let tag = tag.map(|tag| tag.value.clone());
            let is_gone = name(instance) == "terminated";
            let may = tag == *acknowledged || tag.as_ref().is_some_and(|tag| since.contains(tag)) || is_gone;
            assert!(
                may,
                "{id} has the tag {tag:?}, and not {acknowledged:?} or one of {since:?}"
            );
        }
        let request = v1::DescribeSecurityGroupsRequest::default();
        let mut groups = client.clone().security_groups;
        let answer = groups.describe_security_groups(request).await.unwrap();
        let there: HashSet<String> = answer
            .into_inner()
            .security_groups
            .into_iter()
            .map(|group| group.group_id)
            .collect();
        for (id, name) in &self.groups {
            assert!(there.contains(id), "the group {name}, {id}, is lost");
        }
        let hosts = client.clone().hosts.list_hosts(v1::ListHostsRequest {}).await;
        let claimed: i64 = hosts
            .unwrap()
            .into_inner()
            .hosts
            .iter()
            .map(|host| host.claimed.unwrap_or_default().vcpus)
            .sum();
        // Instances have one vCPU each. Their states may change between the two calls.
        if claimed != alive {
            let alive = instances(client)
                .await
                .iter()
                .filter(|instance| name(instance) != "terminated")
                .count();
            assert_eq!(claimed, alive as i64, "claims of instances that there are not");
        }
    }
}
