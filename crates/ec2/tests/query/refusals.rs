//! What is wrong with a request is said with EC2's codes.

use std::borrow::Cow;

use anyhow::Result;
use hearth_ec2::model::Service;
use hearth_ec2::{Refusal, form, json, xml};
use prost_reflect::{DynamicMessage, Value};

use crate::mirror::Mirror;

fn read(mirror: &Mirror, call: &str, form: &str) -> Result<Vec<u8>, Refusal> {
    let call = mirror.table.call(call).expect("a call of the model");
    form::message(&mirror.table, call, form_urlencoded::parse(form.as_bytes()))
}

#[test]
fn malformed_parameters_are_refused_with_their_names() -> Result<()> {
    let mirror = Mirror::of(Service::Ec2)?;
    let cases = [
        (
            "Nmae=1",
            "UnknownParameter",
            "The parameter Nmae is not recognized",
        ),
        (
            "minCount=1",
            "UnknownParameter",
            "The parameter minCount is not recognized",
        ),
        (
            "Placement.Zone=a",
            "UnknownParameter",
            "The parameter Placement.Zone is not recognized",
        ),
        (
            "MinCount.1=1",
            "UnknownParameter",
            "The parameter MinCount is not recognized",
        ),
        (
            "Placement=a",
            "UnknownParameter",
            "The parameter Placement is not recognized",
        ),
        ("=1", "UnknownParameter", "The parameter  is not recognized"),
        (
            "Placement..Tenancy=1",
            "UnknownParameter",
            "The parameter Placement. is not recognized",
        ),
        (
            "MinCount=one",
            "InvalidParameterValue",
            "Value (one) for parameter MinCount is invalid. An integer of 32 bits is expected.",
        ),
        (
            "MinCount=2147483648",
            "InvalidParameterValue",
            "Value (2147483648) for parameter MinCount is invalid. An integer of 32 bits is expected.",
        ),
        (
            "BlockDeviceMapping.2.Ebs.DeleteOnTermination=yes",
            "InvalidParameterValue",
            "Value (yes) for parameter BlockDeviceMapping.2.Ebs.DeleteOnTermination is invalid. 'true' or 'false' is expected.",
        ),
        (
            "SecurityGroupId=sg-1&SecurityGroupId.1=sg-2",
            "InvalidParameterCombination",
            "The parameter SecurityGroupId.1 has a value and members. It can have one of them.",
        ),
        (
            "SecurityGroupId.1=sg-1&SecurityGroupId=sg-2",
            "InvalidParameterCombination",
            "The parameter SecurityGroupId has a value and members. It can have one of them.",
        ),
        (
            "MinCount=1&MinCount=2",
            "InvalidParameterCombination",
            "The parameter MinCount is there twice",
        ),
        ("SecurityGroupId=sg-1", "MalformedQueryString", "SecurityGroupId"),
        (
            "SecurityGroupId.0=sg-1",
            "MalformedQueryString",
            "SecurityGroupId.0",
        ),
        (
            "SecurityGroupId.01=sg-1",
            "MalformedQueryString",
            "SecurityGroupId.01",
        ),
        (
            "SecurityGroupId.-1=sg-1",
            "MalformedQueryString",
            "SecurityGroupId.-1",
        ),
        (
            "SecurityGroupId.100000=sg-1",
            "MalformedQueryString",
            "SecurityGroupId.100000",
        ),
        (
            "SecurityGroupId.a=sg-1",
            "MalformedQueryString",
            "SecurityGroupId.a",
        ),
    ];
    for (form, code, message) in cases {
        let refusal = read(&mirror, "RunInstances", form).expect_err(form);
        assert_eq!(refusal.code(), code, "{form}");
        assert!(refusal.to_string().contains(message), "{form}: {refusal}");
    }
    let blob = read(&mirror, "ImportKeyPair", "PublicKeyMaterial=%%%").expect_err("no base64");
    assert_eq!(blob.code(), "InvalidParameterValue");
    let many = (0..30_000).map(|n| (Cow::from(format!("Filter.{n}.Name")), Cow::from("a")));
    let call = mirror.table.call("DescribeVpcs").expect("a call of the model");
    let refusal = form::message(&mirror.table, call, many).expect_err("too many");
    assert_eq!(refusal, Refusal::TooMany(20_001));
    let deep = format!("{}a=1", "a.".repeat(100_000));
    let refusal = read(&mirror, "DescribeVpcs", &deep).expect_err("too deep");
    assert_eq!(refusal.code(), "UnknownParameter");
    assert!(mirror.table.call("RunInstance").is_none());
    Ok(())
}

#[test]
fn numbers_of_items_may_be_left_out_and_order_them() -> Result<()> {
    let mirror = Mirror::of(Service::Ec2)?;
    let form = "Action=RunInstances&Version=2016-11-15&SecurityGroupId.10=c&SecurityGroupId.9=b&SecurityGroupId.2=a&\
                X-Amz-Date=20261127T000000Z&Signature=a&AWSAccessKeyId=b";
    let bytes = read(&mirror, "RunInstances", form)?;
    let message = DynamicMessage::decode(mirror.messages("RunInstances")?.0, bytes.as_slice())?;
    let groups: Vec<_> = ["a", "b", "c"].map(|id| Value::String(id.to_owned())).into();
    assert_eq!(
        message.get_field_by_name("security_group_ids").as_deref(),
        Some(&Value::List(groups))
    );
    assert_eq!(message.fields().count(), 1);
    Ok(())
}

#[test]
fn an_error_is_xml_whatever_it_says() -> Result<()> {
    for (service, expected) in [
        (
            Service::Ec2,
            "<Response><Errors><Error><Code>InvalidAction</Code><Message>The action &lt;a&gt;\u{fffd}&#xD;&amp; is not valid for \
             this web service.</Message></Error></Errors><RequestID>r</RequestID></Response>",
        ),
        (
            Service::Sts,
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>InvalidAction</Code><Message>The action &lt;a&gt;\u{fffd}&#xD;&amp; is not valid for this web \
             service.</Message></Error><RequestId>r</RequestId></ErrorResponse>",
        ),
    ] {
        let mirror = Mirror::of(service)?;
        let refusal = Refusal::InvalidAction("<a>\u{1}\r&".to_owned());
        let said = xml::error(&mirror.table, refusal.code(), &refusal.to_string(), false, "r");
        assert_eq!(
            said,
            format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{expected}")
        );
    }
    Ok(())
}

#[test]
fn what_is_no_message_is_no_answer() -> Result<()> {
    let mirror = Mirror::of(Service::Ec2)?;
    let call = mirror.table.call("DescribeVpcs").expect("a call of the model");
    let of = mirror.messages("DescribeVpcs")?.1;
    let number = of
        .get_field_by_name("next_token")
        .map_or(0, |field| field.number());
    let tag = u8::try_from(number << 3)?;
    // Cut off, not UTF-8, of another type, and not in order.
    let cases: [&[u8]; 5] = [
        &[tag | 2, 5, b'a'],
        &[tag | 2, 1, 0xff],
        &[tag, 1],
        &[tag | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[250, 1, 0, tag | 2, 0],
    ];
    for bytes in cases {
        assert!(xml::answer(&mirror.table, call, bytes, "r").is_err(), "{bytes:?}");
    }
    Ok(())
}

#[test]
fn malformed_json_is_refused_with_the_members_names() -> Result<()> {
    let mirror = Mirror::of(Service::Ssm)?;
    let call = mirror.table.call("GetParameters").expect("a call of the model");
    let deep = format!("{{\"Names\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        ("[]", "SerializationException", "no object"),
        ("{", "SerializationException", "EOF"),
        ("{\"Names\":[\"a\"]}}", "SerializationException", "trailing"),
        ("\u{fffd}", "SerializationException", "expected value"),
        (&deep, "SerializationException", "recursion limit"),
        ("{\"Nmaes\":[]}", "UnknownParameter", "Nmaes"),
        ("{\"names\":[]}", "UnknownParameter", "names"),
        (
            "{\"Names\":\"a\"}",
            "InvalidParameterValue",
            "A list is expected.",
        ),
        ("{\"Names\":{}}", "InvalidParameterValue", "A list is expected."),
        (
            "{\"Names\":[\"a\",1]}",
            "InvalidParameterValue",
            "Names.2 is invalid. A string",
        ),
        (
            "{\"Names\":[null]}",
            "InvalidParameterValue",
            "Names.1 is invalid. A string",
        ),
        (
            "{\"WithDecryption\":\"true\"}",
            "InvalidParameterValue",
            "true or false",
        ),
        ("{\"WithDecryption\":1}", "InvalidParameterValue", "true or false"),
    ];
    for (body, code, message) in cases {
        let refusal = json::message(&mirror.table, call, body.as_bytes()).expect_err(message);
        assert_eq!(refusal.code(), code, "{message}");
        assert!(refusal.to_string().contains(message), "{message}: {refusal}");
    }
    let call = mirror
        .table
        .call("GetParametersByPath")
        .expect("a call of the model");
    for number in ["1.5", "2147483648", "1e99", "\"1\"", "true", "[1]"] {
        let body = format!("{{\"MaxResults\":{number}}}");
        let refusal = json::message(&mirror.table, call, body.as_bytes()).expect_err(number);
        assert_eq!(refusal.code(), "InvalidParameterValue", "{number}");
    }
    assert_eq!(json::message(&mirror.table, call, b"")?, b"");
    assert_eq!(json::message(&mirror.table, call, b"{\"MaxResults\":null}")?, b"");
    assert_eq!(json::code("InvalidAction"), "UnknownOperationException");
    Ok(())
}

#[test]
fn times_in_json_are_seconds() -> Result<()> {
    use serde::de::DeserializeSeed as _;
    let mirror = Mirror::of(Service::Ssm)?;
    let times = [
        ("1970-01-01T00:00:01.25Z", "1.250"),
        ("1969-12-31T23:59:59.75Z", "-0.250"),
        ("2026-11-27T00:00:00Z", "1795737600.000"),
    ];
    for (time, seconds) in times {
        let parameter = serde_json::json!({ "Parameter": { "LastModifiedDate": time } });
        let message = mirror.messages("GetParameter")?.1.deserialize(parameter)?;
        let call = mirror.table.call("GetParameter").expect("a call of the model");
        let bytes = prost_reflect::prost::Message::encode_to_vec(&message);
        let answer = json::answer(&mirror.table, call, &bytes)?;
        assert_eq!(
            answer,
            format!("{{\"Parameter\":{{\"LastModifiedDate\":{seconds}}}}}")
        );
    }
    let call = mirror.table.call("GetParameter").expect("a call of the model");
    for bytes in [&[0x0a, 5, 1][..], &[0x08, 1], &[0x0a, 1, 0xff]] {
        assert!(json::answer(&mirror.table, call, bytes).is_err(), "{bytes:?}");
    }
    Ok(())
}
