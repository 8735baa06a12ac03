use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn what_aws_cli_documents() {
    for (text, expected) in [
        (
            "Name=tag:Name,Values=web",
            json!({"Name": "tag:Name", "Values": "web"}),
        ),
        (
            "Name=instance-state-name,Values=running,stopped",
            json!({"Name": "instance-state-name", "Values": ["running", "stopped"]}),
        ),
        ("Values=a,b,Name=x", json!({"Values": ["a", "b"], "Name": "x"})),
        (
            "ResourceType=instance,Tags=[{Key=Name,Value=web},{Key=Owner,Value='Ann, Bob'}]",
            json!({"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}, {"Key": "Owner", "Value": "Ann, Bob"}]}),
        ),
        (
            "DeviceName=/dev/xvda,Ebs={VolumeSize=20,DeleteOnTermination=true}",
            json!({"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": "20", "DeleteOnTermination": "true"}}),
        ),
        (
            "IpProtocol=tcp,FromPort=22,ToPort=22,IpRanges=[{CidrIp=0.0.0.0/0,Description=\"ssh \\\"all\\\"\"}]",
            json!({"IpProtocol": "tcp", "FromPort": "22", "ToPort": "22",
                "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "ssh \"all\""}]}),
        ),
        ("a=b\\,c", json!({"a": "b,c"})),
        ("a=x=y,b=", json!({"a": "x=y", "b": ""})),
        (" a = b , c = d ", json!({"a": "b", "c": "d"})),
        ("a=[],b={}", json!({"a": [], "b": {}})),
        ("a=[b,]", json!({"a": ["b"]})),
        (r"a=b\c\\,d", json!({"a": r"b\c\,d"})),
        ("a=[x, y ,z]", json!({"a": ["x", "y", "z"]})),
        (
            "a={b=[1,2],c=3,4}",
            json!({"a": {"b": ["1", "2"], "c": ["3", "4"]}}),
        ),
    ] {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
}

#[test]
fn mistakes_are_pointed_at() {
    assert_eq!(
        parse("Name=x,Values=[a,b").unwrap_err().to_string(),
        "Expected ',' or ']', received the end:\nName=x,Values=[a,b\n                  ^"
    );
    assert_eq!(
        parse("Name").unwrap_err().to_string(),
        "Expected '=', received the end:\nName\n    ^"
    );
    for text in [
        "", "=x", "a=b,", "a='b", "a={b=c", "a=b,a=c", "a=[b]c", "a=[{b=c]",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

/// Writes a value the way a careful person would.
fn write(value: &Value) -> String {
    let quoted = |s: &str| format!("'{}'", s.replace('\\', "\\\\").replace('\'', "\\'"));
    let pairs = |map: &Map<String, Value>| {
        map.iter()
            .map(|(k, v)| format!("{k}={}", write(v)))
            .collect::<Vec<_>>()
            .join(",")
    };
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(write).collect::<Vec<_>>().join(",")),
        Value::Object(map) => format!("{{{}}}", pairs(map)),
        Value::String(s) => quoted(s),
        _ => String::new(),
    }
}

fn values() -> impl Strategy<Value = Value> {
    let scalar = ".{0,12}".prop_map(Value::String);
    scalar.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map("[A-Za-z][A-Za-z0-9]{0,5}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(map in proptest::collection::btree_map("[A-Za-z][A-Za-z0-9]{0,5}", values(), 1..4)) {
        let value = Value::Object(map.into_iter().collect());
        let text = write(&value);
        prop_assert_eq!(parse(&text[1..text.len() - 1]), Ok(value));
    }

    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let _ = parse(&text).map_err(|e| e.to_string());
    }

    #[test]
    fn no_text_of_its_own_signs_panics(text in r#"[ab=,\[\]{}'"\\ ]{0,30}"#) {
        let _ = parse(&text).map_err(|e| e.to_string());
    }
}
