//! botocore's protocol cases: each has a model of its own. A form or JSON says what its parameters are, and a result becomes
//! its XML or JSON.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::{Context as _, Result, ensure};
use hearth_ec2::model::{Model, Service};
use hearth_ec2::{json as aws_json, xml};
use jiff::Timestamp;
use roxmltree::{Document, Node};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::mirror::Mirror;

const NAMESPACE: &str = "https://example.com/";

#[derive(Deserialize)]
struct Suite {
    metadata: Value,
    shapes: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    given: Value,
    #[serde(default)]
    params: Value,
    #[serde(default)]
    serialized: Value,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    response: Value,
    #[serde(rename = "errorCode")]
    error_code: Option<String>,
    #[serde(rename = "errorMessage")]
    error_message: Option<String>,
}

const COMPRESSED: &str = "the client compresses its body, and no call of the models lets it";
const TOKEN: &str = "the client makes up the token: what the form says, its parameters do not";
const OFFSET: &str = "the answer's time has an offset, which clients read and EC2 does not write";
const BODY: &str = "its answer has no body to be compared";
const FORMAT: &str = "no model that is served has a timestampFormat";
const NAMESPACES: &str = "no model that is served has an xmlNamespace of a member";
const NESTED: &str = "no call that is served has a list or map of lists or maps";
const FLAT: &str = "no model that is served has a flattened list or map";
const MEMBERS: &str = "errors of the services served have a code and a message, and no other members";

const DOCUMENT: &str = "no model that is served has a document";
const READ_ONLY: &str = "clients read it, and no service that is served writes it";

/// Cases that are not run, and why.
const SKIPPED: &[(&str, &str)] = &[
    ("SDKAppliedContentEncoding_awsJson1_1", COMPRESSED),
    (
        "SDKAppendsGzipAndIgnoresHttpProvidedEncoding_awsJson1_1",
        COMPRESSED,
    ),
    ("serializes_timestamp_shapes_with_iso8601_timestampformat", FORMAT),
    (
        "serializes_timestamp_shapes_with_httpdate_timestampformat",
        FORMAT,
    ),
    ("parses_iso8601_timestamps", FORMAT),
    ("parses_httpdate_timestamps", FORMAT),
    ("serializes_list_of_map_shapes", NESTED),
    ("serializes_map_of_list_shapes", NESTED),
    ("parses_list_of_map_shapes", NESTED),
    ("parses_list_of_list_shapes", NESTED),
    ("parses_map_of_list_shapes", NESTED),
    ("parses_map_of_map_shapes", NESTED),
    ("AwsJson11DateTimeWithNegativeOffset", OFFSET),
    ("AwsJson11DateTimeWithPositiveOffset", OFFSET),
    ("AwsJson11DateTimeWithFractionalSeconds", READ_ONLY),
    ("handles_unexpected_json_output", READ_ONLY),
    ("json_1_1_service_responds_with_no_payload", READ_ONLY),
    ("PutAndGetInlineDocumentsInput", DOCUMENT),
    ("AwsJson11ComplexError", MEMBERS),
    ("AwsJson11EmptyComplexError", MEMBERS),
    ("AwsJson11DeserializeIgnoreType", READ_ONLY),
    ("AwsJson11FooErrorUsingXAmznErrorType", READ_ONLY),
    ("AwsJson11FooErrorUsingXAmznErrorTypeWithUri", READ_ONLY),
    (
        "AwsJson11FooErrorUsingXAmznErrorTypeWithUriAndNamespace",
        READ_ONLY,
    ),
    ("AwsJson11FooErrorUsingCode", READ_ONLY),
    ("AwsJson11FooErrorUsingCodeAndNamespace", READ_ONLY),
    ("AwsJson11FooErrorUsingCodeUriAndNamespace", READ_ONLY),
    ("AwsJson11FooErrorWithDunderTypeAndNamespace", READ_ONLY),
    ("AwsJson11FooErrorWithDunderTypeUriAndNamespace", READ_ONLY),
    ("SDKAppliedContentEncoding_ec2Query", COMPRESSED),
    (
        "SDKAppendsGzipAndIgnoresHttpProvidedEncoding_ec2Query",
        COMPRESSED,
    ),
    ("SDKAppliedContentEncoding_awsQuery", COMPRESSED),
    (
        "SDKAppendsGzipAndIgnoresHttpProvidedEncoding_awsQuery",
        COMPRESSED,
    ),
    ("Ec2ProtocolIdempotencyTokenAutoFill", TOKEN),
    ("QueryProtocolIdempotencyTokenAutoFill", TOKEN),
    ("Ec2TimestampsInput", FORMAT),
    ("QueryTimestampsInput", FORMAT),
    ("FlattenedQueryLists", FLAT),
    ("QueryFlattenedListArgWithXmlName", FLAT),
    ("QueryFlattenedQueryMaps", FLAT),
    ("QueryFlattenedQueryMapsWithXmlName", FLAT),
    ("QueryQueryMapOfLists", NESTED),
    ("Ec2QueryDateTimeWithNegativeOffset", OFFSET),
    ("Ec2QueryDateTimeWithPositiveOffset", OFFSET),
    ("AwsQueryDateTimeWithNegativeOffset", OFFSET),
    ("AwsQueryDateTimeWithPositiveOffset", OFFSET),
    ("Ec2ComplexError", MEMBERS),
    ("QueryComplexError", MEMBERS),
    ("Ec2XmlNamespaces", NAMESPACES),
    ("QueryXmlNamespaces", NAMESPACES),
    ("Ec2XmlTimestampsWithEpochSecondsFormat", FORMAT),
    ("Ec2XmlTimestampsWithEpochSecondsOnTargetFormat", FORMAT),
    ("Ec2XmlTimestampsWithHttpDateFormat", FORMAT),
    ("Ec2XmlTimestampsWithHttpDateOnTargetFormat", FORMAT),
    ("QueryXmlTimestampsWithEpochSecondsFormat", FORMAT),
    ("QueryXmlTimestampsWithEpochSecondsOnTargetFormat", FORMAT),
    ("QueryXmlTimestampsWithHttpDateFormat", FORMAT),
    ("QueryXmlTimestampsWithHttpDateOnTargetFormat", FORMAT),
    ("QueryEmptyInputAndEmptyOutput", BODY),
    ("QueryNoInputAndNoOutput", BODY),
    ("QueryNoInputAndOutput", BODY),
    ("QueryQueryFlattenedXmlMap", FLAT),
    ("QueryQueryFlattenedXmlMapWithXmlName", FLAT),
    ("QueryQueryFlattenedXmlMapWithXmlNamespace", FLAT),
];

/// Cases of many members, some of which have what no model that is served has: lists in lists, and flattened ones. How many
/// elements are compared.
const IN_PART: [(&str, usize); 2] = [("Ec2XmlLists", 10), ("QueryXmlLists", 9)];

/// Why a case is not run. Of the cases of the same name only those that have no body.
fn skipped(case: &Case) -> Option<&'static str> {
    let found = SKIPPED.iter().find(|(id, _)| *id == case.id);
    found
        .map(|(_, why)| *why)
        .filter(|why| *why != BODY || case.response.is_object() && case.response.get("body").is_none())
}

fn suites(packed: &[u8]) -> Result<Vec<Suite>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// The shapes without the members that no model that is served could have.
fn shapes(given: &Value) -> Map<String, Value> {
    let all = given.as_object().expect("shapes");
    let is = |shape: &Value, kinds: &[&str]| kinds.contains(&shape["type"].as_str().unwrap_or_default());
    let named = |member: &Value| &all[member["shape"].as_str().unwrap_or_default()];
    let is_served = |member: &&Value| {
        let shape = named(member);
        let inner = match shape["type"].as_str() {
            Some("list") => named(&shape["member"]),
            Some("map") => named(&shape["value"]),
            _ => return member.get("flattened").is_none(),
        };
        member.get("flattened").is_none() && shape.get("flattened").is_none() && !is(inner, &["list", "map"])
    };
    let kept = all.iter().map(|(name, shape)| {
        let mut shape = shape.clone();
        if let Some(members) = shape.get_mut("members").and_then(Value::as_object_mut) {
            members.retain(|_, member| is_served(&&*member));
        }
        (name.clone(), shape)
    });
    kept.collect()
}

/// The model of one case.
fn mirror(suite: &Suite, case: &Case) -> Result<Mirror> {
    let name = case.given["name"].as_str().context("a call")?;
    let mut operation = json!({});
    if let Some(input) = case.given.get("input") {
        operation["input"] = input.clone();
    }
    if let Some(output) = case.given.get("output") {
        operation["output"] = output.clone();
        if suite.metadata["protocol"] == "query" {
            operation["output"]["resultWrapper"] = json!(format!("{name}Result"));
        }
    }
    let model: Model = serde_json::from_value(json!({
        "metadata": { "protocol": suite.metadata["protocol"], "xmlNamespace": NAMESPACE },
        "operations": { name: operation },
        "shapes": shapes(&suite.shapes),
    }))?;
    Mirror::of_model(&model)
}

/// Nothing that forms can say, or that matters in JSON.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || *value == json!([]) || *value == json!({})
}

fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), pruned(value)))
            .filter(|(_, value)| !is_nothing(value))
            .collect(),
        Value::Array(items) => items.iter().map(pruned).collect(),
        _ => value.clone(),
    }
}

/// A case's value as a message has it in JSON: what the model has, with times and bytes as text, and without what is empty.
fn plain(shapes: &Map<String, Value>, shape: &str, value: &Value) -> Value {
    let of = &shapes[shape];
    let name = |member: &Value| member["shape"].as_str().unwrap_or_default().to_owned();
    match of["type"].as_str().unwrap_or_default() {
        "structure" => {
            let members = of["members"].as_object().expect("members");
            let members = value
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(member, value)| {
                    let value = plain(shapes, &name(members.get(member)?), value);
                    Some((member.clone(), value))
                });
            Value::Object(members.filter(|(_, value)| !is_nothing(value)).collect())
        }
        "list" => {
            let items = value.as_array().into_iter().flatten();
            items
                .map(|item| plain(shapes, &name(&of["member"]), item))
                .collect()
        }
        "map" => {
            let entries = value.as_object().into_iter().flatten();
            let inner = name(&of["value"]);
            Value::Object(
                entries
                    .map(|(key, value)| (key.clone(), plain(shapes, &inner, value)))
                    .collect(),
            )
        }
        "blob" => {
            use base64::Engine as _;
            json!(base64::prelude::BASE64_STANDARD.encode(value.as_str().unwrap_or_default()))
        }
        "timestamp" => {
            let millis = value.as_f64().map_or(0.0, |seconds| seconds * 1000.0).round();
            let time = Timestamp::from_millisecond(format!("{millis}").parse().unwrap_or_default());
            json!(time.expect("a time").to_string())
        }
        "long" => json!(value.to_string()),
        // As precise as a message has it.
        "float" if value.is_f64() => {
            #[allow(clippy::cast_possible_truncation)]
            let narrow = value.as_f64().unwrap_or_default() as f32;
            json!(narrow)
        }
        _ => value.clone(),
    }
}

fn input(suite: &Suite, case: &Case) -> Result<()> {
    let form = match suite.metadata["protocol"].as_str() {
        // Calls without parameters may have no body.
        Some("json") => case.serialized["body"].as_str().unwrap_or_default(),
        _ => case.serialized["body"].as_str().context("a form")?,
    };
    let call = case.given["name"].as_str().context("a call")?;
    let found = mirror(suite, case)?.input(call, form)?;
    let shape = case.given["input"]["shape"].as_str();
    let expected = shape.map_or_else(
        || json!({}),
        |shape| plain(&shapes(&suite.shapes), shape, &case.params),
    );
    let found = pruned(&found["input"]);
    ensure!(found == expected, "{form}:\n{expected}\n{found}");
    Ok(())
}

/// An element without the space around it: its name, and its text or its children.
#[derive(Debug, PartialEq, PartialOrd, Clone)]
struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn of(node: Node<'_, '_>) -> Element {
        let text = node.text().unwrap_or_default().trim();
        // A time may be written in more than one way.
        let text = match text.parse::<Timestamp>() {
            Ok(time) => time.to_string(),
            Err(_) => text.to_owned(),
        };
        let mut children: Vec<Element> = node
            .children()
            .filter(Node::is_element)
            .map(Element::of)
            .collect();
        // A map has no order.
        if children.iter().all(|child| child.name == "entry") {
            children.sort_by(|one, other| one.partial_cmp(other).expect("text"));
        }
        Element {
            name: node.tag_name().name().to_owned(),
            text,
            children,
        }
    }

    /// Leaves out what the other has not: identifiers of requests, and empty lists, which are written unless a proto says
    /// that they are not (presence.proto).
    fn forget_more_than(&mut self, other: &Element) {
        self.children.retain(|child| {
            let is_empty = child.children.is_empty() && child.text.is_empty();
            let may_go = is_empty || child.name == "requestId" || child.name == "ResponseMetadata";
            !may_go || other.children.iter().any(|expected| expected.name == child.name)
        });
        for child in &mut self.children {
            if let Some(expected) = other.children.iter().find(|expected| expected.name == child.name) {
                child.forget_more_than(expected);
            }
        }
    }
}

/// What botocore's clients parse of JSON: without nulls, and numbers whatever their writing.
fn of_json(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), of_json(value)))
            .collect(),
        Value::Array(items) => items.iter().map(of_json).collect(),
        Value::Number(number) if number.as_i64().is_none() => {
            let seconds = number.as_f64().filter(|seconds| seconds.fract() == 0.0);
            seconds.map_or_else(
                || value.clone(),
                |whole| json!(format!("{whole}").parse::<i64>().ok()),
            )
        }
        _ => value.clone(),
    }
}

/// Leaves out what the other has not: lists and maps that are empty.
fn forget_more_than(found: &mut Value, other: &Value) {
    if let (Some(found), Some(other)) = (found.as_array_mut(), other.as_array()) {
        for (found, other) in found.iter_mut().zip(other) {
            forget_more_than(found, other);
        }
    }
    let (Some(found), Some(other)) = (found.as_object_mut(), other.as_object()) else {
        return;
    };
    found.retain(|name, value| other.contains_key(name) || *value != json!([]) && *value != json!({}));
    for (name, value) in found {
        forget_more_than(value, &other[name]);
    }
}

fn output_of_json(suite: &Suite, case: &Case) -> Result<()> {
    let mirror = mirror(suite, case)?;
    let expected = case.response["body"].as_str().context("a body")?;
    let mut expected = of_json(&serde_json::from_str(expected)?);
    let found = match &case.error_code {
        Some(code) => {
            // Errors' models have their message in either case, and clients read both.
            if let Some(members) = expected.as_object_mut() {
                let message = members.remove("Message").unwrap_or_else(|| json!(""));
                members.insert("message".to_owned(), message);
            }
            aws_json::error(code, case.error_message.as_deref().unwrap_or_default())
        }
        None => {
            let shape = case.given["output"]["shape"].as_str();
            let result = shape.map_or_else(
                || json!({}),
                |shape| plain(&shapes(&suite.shapes), shape, &case.result),
            );
            let answer = mirror.answer(case.given["name"].as_str().context("a call")?, result)?;
            answer["answer"].as_str().context("JSON")?.to_owned()
        }
    };
    let mut found = of_json(&serde_json::from_str(&found)?);
    forget_more_than(&mut found, &expected);
    ensure!(found == expected, "{expected:#}\n{found:#}");
    Ok(())
}

fn output(suite: &Suite, case: &Case) -> Result<()> {
    let mirror = mirror(suite, case)?;
    let expected = case.response["body"].as_str().context("XML")?;
    let call = case.given["name"].as_str().context("a call")?;
    let found = match &case.error_code {
        Some(code) => {
            let message = case.error_message.as_deref().context("a message")?;
            // Customized: what a client calls the error is not what it is called on the wire.
            xml::error(&mirror.table, code, message, false, "foo-id")
        }
        None => {
            let shape = case.given["output"]["shape"].as_str();
            let result = shape.map_or_else(
                || json!({}),
                |shape| plain(&shapes(&suite.shapes), shape, &case.result),
            );
            let answer = mirror.answer(call, result)?;
            let answer = answer["answer"].as_str().context("XML")?;
            answer.replace("the-request", "requestid")
        }
    };
    let (found, expected) = (Document::parse(&found)?, Document::parse(expected)?);
    let namespaces = (
        found.root_element().tag_name().namespace(),
        expected.root_element().tag_name().namespace(),
    );
    // The cases' errors of the query protocol have none. Those of IAM and STS have one.
    let is_same = namespaces.0 == namespaces.1 || case.error_code.is_some() && namespaces.1.is_none();
    ensure!(is_same, "{namespaces:?}");
    let (mut found, mut expected) = (
        Element::of(found.root_element()),
        Element::of(expected.root_element()),
    );
    // The element of the answer is named after the call. Two cases share another's call.
    expected.name.clone_from(&found.name);
    let wrapper = inner(&mut found).name.clone();
    if wrapper.ends_with("Result") {
        inner(&mut expected).name = wrapper;
    }
    if let Some((_, compared)) = IN_PART.iter().find(|(id, _)| *id == case.id) {
        let part = inner(&mut expected);
        let names: Vec<&str> = inner(&mut found)
            .children
            .iter()
            .map(|child| child.name.as_str())
            .collect();
        let all = part.children.len();
        part.children.retain(|child| names.contains(&child.name.as_str()));
        println!("in part: {}: {compared} of {all} elements", case.id);
        ensure!(part.children.len() == *compared);
    }
    found.forget_more_than(&expected);
    // Members of a structure have no order in XML.
    for element in [&mut found, &mut expected] {
        sort(element);
    }
    ensure!(found == expected, "{expected:#?}\n{found:#?}");
    Ok(())
}

/// What has a call's members: the wrapper of the query protocol, or the whole.
fn inner(answer: &mut Element) -> &mut Element {
    match answer.children.first() {
        Some(first) if first.name.ends_with("Result") => &mut answer.children[0],
        _ => answer,
    }
}

/// Children of different names have no order.
fn sort(element: &mut Element) {
    element.children.sort_by(|one, other| one.name.cmp(&other.name));
    element.children.iter_mut().for_each(sort);
}

fn run(what: &str, packed: &[u8], total: usize, check: fn(&Suite, &Case) -> Result<()>) -> Result<()> {
    let (mut passed, mut left_out, mut failed) = (0, BTreeMap::new(), Vec::new());
    for suite in suites(packed)? {
        for case in &suite.cases {
            if let Some(why) = skipped(case) {
                left_out.insert(case.id.clone(), why);
                continue;
            }
            match check(&suite, case) {
                Ok(()) => passed += 1,
                Err(error) => failed.push(format!("{}: {error:#}", case.id)),
            }
        }
    }
    for (id, why) in &left_out {
        println!("left out: {id}: {why}");
    }
    ensure!(failed.is_empty(), "{passed} passed; {}", failed.join("\n\n"));
    ensure!(passed + left_out.len() == total);
    println!(
        "FIGURE protocol cases: {what}: {passed} of {total} passed, {} left out",
        left_out.len()
    );
    Ok(())
}

#[test]
fn forms_of_ec2_say_their_parameters() -> Result<()> {
    run(
        "input of ec2",
        include_bytes!("cases/input-ec2.json.gz"),
        29,
        input,
    )
}

#[test]
fn forms_of_query_say_their_parameters() -> Result<()> {
    run(
        "input of query",
        include_bytes!("cases/input-query.json.gz"),
        38,
        input,
    )
}

#[test]
fn results_of_ec2_become_their_xml() -> Result<()> {
    run(
        "output of ec2",
        include_bytes!("cases/output-ec2.json.gz"),
        29,
        output,
    )
}

#[test]
fn results_of_query_become_their_xml() -> Result<()> {
    run(
        "output of query",
        include_bytes!("cases/output-query.json.gz"),
        38,
        output,
    )
}

#[test]
fn json_says_its_parameters() -> Result<()> {
    run(
        "input of json",
        include_bytes!("cases/input-json.json.gz"),
        54,
        input,
    )
}

#[test]
fn results_become_their_json() -> Result<()> {
    run(
        "output of json",
        include_bytes!("cases/output-json.json.gz"),
        58,
        output_of_json,
    )
}

/// What the cases that are left out need: no model has it.
#[test]
fn no_model_has_what_is_left_out() -> Result<()> {
    for (service, packed) in [
        (Service::Ec2, &include_bytes!("../../model/ec2.json.gz")[..]),
        (Service::Iam, include_bytes!("../../model/iam.json.gz")),
        (Service::Sts, include_bytes!("../../model/sts.json.gz")),
    ] {
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text)?;
        let model: Value = serde_json::from_str(&text)?;
        let shapes = model["shapes"].as_object().context("shapes")?;
        for (name, shape) in shapes {
            let members = shape["members"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(_, member)| member);
            for of in members.chain([shape]) {
                for key in ["flattened", "timestampFormat", "xmlNamespace"] {
                    ensure!(of.get(key).is_none(), "{service:?}: {name} has {key}");
                }
            }
            for inner in [&shape["member"], &shape["value"]] {
                let inner = inner["shape"].as_str().map(|inner| &shapes[inner]["type"]);
                let is_several = inner.is_some_and(|kind| kind == "list" || kind == "map");
                ensure!(!is_several, "{service:?}: {name} has several of several");
            }
        }
    }
    Ok(())
}
