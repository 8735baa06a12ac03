//! Every call of AWS's models, with random members, written and read by botocore: the tables lose nothing.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use hearth_ec2::model::{Protocol, Service};
use hearth_ec2::{form, json, xml};
use prost_reflect::DynamicMessage;
use prost_reflect::prost::Message as _;
use serde::Deserialize;
use serde::de::DeserializeSeed as _;
use serde_json::{Value, json};

use crate::mirror::Mirror;

#[derive(Deserialize)]
#[serde(untagged)]
enum Question {
    Body { call: String, body: String },
    Output { call: String, output: Value },
    Done { done: u64, operations: usize },
}

impl Mirror {
    /// What a request's body says, as JSON.
    pub fn input(&self, call: &str, body: &str) -> Result<Value> {
        let of = self.table.call(call).context("no such call")?;
        let bytes = match self.protocol {
            Protocol::Json => json::message(&self.table, of, body.as_bytes())?,
            _ => form::message(&self.table, of, form_urlencoded::parse(body.as_bytes()))?,
        };
        let message = DynamicMessage::decode(self.messages(call)?.0, bytes.as_slice())?;
        Ok(json!({ "input": serde_json::to_value(&message)? }))
    }

    pub fn answer(&self, call: &str, output: Value) -> Result<Value> {
        let message = self.messages(call)?.1.deserialize(output)?;
        let of = self.table.call(call).context("no such call")?;
        let bytes = message.encode_to_vec();
        let answer = match self.protocol {
            Protocol::Json => json::answer(&self.table, of, &bytes)?,
            _ => xml::answer(&self.table, of, &bytes, "the-request")?,
        };
        Ok(json!({ "answer": answer }))
    }
}

fn round_trip(service: Service, rounds: u32) -> Result<()> {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        println!("SKIPPED: round_trip of {service:?}: HEARTH_PYTHON is not set (scripts/test sets it)");
        return Ok(());
    };
    let mirror = Mirror::of(service)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/query/stranger.py");
    let mut child = Command::new(python)
        .args([script, service.name(), &rounds.to_string(), "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut answers = child.stdin.take().context("its standard input")?;
    let questions = BufReader::new(child.stdout.take().context("its standard output")?);
    let mut asked = BTreeSet::new();
    let mut done = None;
    for line in questions.lines() {
        let answer = match serde_json::from_str(&line?)? {
            Question::Body { call, body } => {
                let answer = mirror.input(&call, &body);
                asked.insert(call);
                answer
            }
            Question::Output { call, output } => mirror.answer(&call, output),
            Question::Done {
                done: calls,
                operations,
            } => {
                done = Some((calls, operations));
                break;
            }
        };
        let answer = answer.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        writeln!(answers, "{answer}")?;
    }
    drop(answers);
    ensure!(child.wait()?.success(), "botocore found a difference");
    let (calls, operations) = done.context("botocore did not come to its end")?;
    ensure!(asked.len() == operations && operations == mirror.operations);
    println!(
        "FIGURE round trip: {service:?}: {operations} operations, {calls} times to and fro, no difference"
    );
    Ok(())
}

#[test]
fn all_of_ec2_goes_to_botocore_and_back() -> Result<()> {
    round_trip(Service::Ec2, 3)
}

#[test]
fn all_of_iam_goes_to_botocore_and_back() -> Result<()> {
    round_trip(Service::Iam, 3)
}

#[test]
fn all_of_sts_goes_to_botocore_and_back() -> Result<()> {
    round_trip(Service::Sts, 10)
}

#[test]
fn all_of_ssm_goes_to_botocore_and_back() -> Result<()> {
    round_trip(Service::Ssm, 3)
}

#[test]
fn all_of_kms_goes_to_botocore_and_back() -> Result<()> {
    round_trip(Service::Kms, 3)
}

#[test]
fn all_of_service_quotas_goes_to_botocore_and_back() -> Result<()> {
    round_trip(Service::ServiceQuotas, 10)
}

#[test]
fn all_of_instance_connect_goes_to_botocore_and_back() -> Result<()> {
    round_trip(Service::Ec2InstanceConnect, 10)
}

/// The mirror's numbers are in another order.
#[test]
fn members_are_answered_in_the_models_order() -> Result<()> {
    let pair = json!({ "KeyFingerprint": "d", "KeyName": "c", "KeyType": "b", "KeyPairId": "a" });
    let parameter = json!({ "Version": 1, "Value": "c", "Type": "b", "Name": "a" });
    for (service, call, output, order) in [
        (
            Service::Ec2,
            "DescribeKeyPairs",
            json!({ "KeyPairs": [pair] }),
            ["keyPairId", "keyType", "keyName", "keyFingerprint"],
        ),
        (
            Service::Ssm,
            "GetParameter",
            json!({ "Parameter": parameter }),
            ["Name", "Type", "Value", "Version"],
        ),
    ] {
        let answer = Mirror::of(service)?.answer(call, output)?;
        let answer = answer["answer"].as_str().context("an answer")?;
        let found: Vec<usize> = order.iter().filter_map(|name| answer.find(name)).collect();
        ensure!(found.len() == order.len() && found.is_sorted(), "{answer}");
    }
    Ok(())
}
