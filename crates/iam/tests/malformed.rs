//! Documents that are no policies, and why.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use hearth_iam::{Kind, Policy};

fn refused(kind: Kind, document: &str, message: &str) {
    match Policy::parse(kind, document) {
        Ok(_) => panic!("no error in {document}"),
        Err(error) => assert_eq!(error.to_string(), message, "{document}"),
    }
}

/// A document with one statement.
fn statement(members: &str) -> String {
    format!("{{\"Version\": \"2012-10-17\", \"Statement\": {{{members}}}}}")
}

#[test]
fn documents_are_checked() {
    let statement = r#"{"Effect": "Allow", "Action": "*", "Resource": "*"}"#;
    for (document, message) in [
        (
            "",
            "This policy contains invalid JSON: EOF while parsing a value at line 1 column 0.",
        ),
        (
            "{",
            "This policy contains invalid JSON: EOF while parsing an object at line 1 column 1.",
        ),
        (
            "{} {}",
            "This policy contains invalid JSON: trailing characters at line 1 column 4.",
        ),
        ("null", "Syntax errors in policy. A policy must be an object."),
        ("[]", "Syntax errors in policy. A policy must be an object."),
        ("{}", "Syntax errors in policy. A policy must have a statement."),
        (
            r#"{"Statement": []}"#,
            "Syntax errors in policy. A policy must have a statement.",
        ),
        (
            r#"{"Statement": "x"}"#,
            "Syntax errors in policy. A statement must be an object.",
        ),
        (
            r#"{"Statement": [[]]}"#,
            "Syntax errors in policy. A statement must be an object.",
        ),
        (
            &format!(r#"{{"Version": "2012-10-18", "Statement": {statement}}}"#),
            "The policy version \"2012-10-18\" is not valid. It must be 2012-10-17 or 2008-10-17.",
        ),
        (
            &format!(r#"{{"Version": 2012, "Statement": {statement}}}"#),
            "Syntax errors in policy. Version must be a string.",
        ),
        (
            &format!(r#"{{"Id": 1, "Statement": {statement}}}"#),
            "Syntax errors in policy. Id must be a string.",
        ),
        (
            &format!(r#"{{"Statements": {statement}}}"#),
            "Syntax errors in policy. A policy has no element \"Statements\".",
        ),
        (
            &format!(r#"{{"Statement": {statement}, "Statement": {statement}}}"#),
            "This policy contains invalid JSON: duplicate key \"Statement\" at line 1 column 78.",
        ),
    ] {
        refused(Kind::Identity, document, message);
    }
}

#[test]
fn statements_are_checked() {
    for (members, message) in [
        (
            r#""Action": "*", "Resource": "*""#,
            "Missing required field Effect",
        ),
        (
            r#""Effect": "allow", "Action": "*", "Resource": "*""#,
            "Invalid effect: allow",
        ),
        (
            r#""Effect": "Allow", "Resource": "*""#,
            "Policy statement must contain actions.",
        ),
        (
            r#""Effect": "Allow", "Action": [], "Resource": "*""#,
            "Policy statement must contain actions.",
        ),
        (
            r#""Effect": "Allow", "Action": "*""#,
            "Policy statement must contain resources.",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": []"#,
            "Policy statement must contain resources.",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*""#,
            "Syntax errors in policy. A statement cannot have both Action and NotAction.",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": "*", "NotResource": "*""#,
            "Syntax errors in policy. A statement cannot have both Resource and NotResource.",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": "*", "Effects": "Deny""#,
            "Syntax errors in policy. A statement has no element \"Effects\".",
        ),
        (
            r#""Effect": "Allow", "Action": 1, "Resource": "*""#,
            "Syntax errors in policy. Action must be a string.",
        ),
        (
            r#""Effect": "Allow", "Action": "RunInstances", "Resource": "*""#,
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ),
        (
            r#""Effect": "Allow", "Action": "ec2:Run:Instances", "Resource": "*""#,
            "Actions/Condition can contain only one colon.",
        ),
        (
            r#""Effect": "Allow", "Action": "e*:Run", "Resource": "*""#,
            "Vendor e* is not valid",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": "bucket""#,
            "Resource bucket must be in ARN format or \"*\".",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3""#,
            "Resource arn:aws:s3 must be in ARN format or \"*\".",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": "arn::s3:::bucket""#,
            "Partition \"\" is not valid for resource \"arn::s3:::bucket\".",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": "arn:aws:*:::bucket""#,
            "Resource vendor must be fully qualified and cannot contain regexes.",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": "arn:aws:iam::${aws:PrincipalAccount}:user/x""#,
            "Resource arn:aws:iam::${aws:PrincipalAccount}:user/x has a variable before its fifth colon. Variables can \
             only be in the last part of an ARN.",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::${aws:username""#,
            "Syntax errors in policy. \"${aws:username\" has an invalid variable.",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*""#,
            "Policy document should not specify a principal.",
        ),
        (
            r#""Effect": "Allow", "Action": "*", "Resource": "*", "NotPrincipal": "*""#,
            "Policy document should not specify a principal.",
        ),
        (
            r#""Effect": "Allow", "Effect": "Deny", "Action": "*", "Resource": "*""#,
            "This policy contains invalid JSON: duplicate key \"Effect\" at line 1 column 67.",
        ),
        (
            r#""Sid": "a b", "Effect": "Allow", "Action": "*", "Resource": "*""#,
            "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*",
        ),
    ] {
        refused(Kind::Identity, &statement(members), message);
    }
    let same = r#"{"Sid": "1", "Effect": "Allow", "Action": "*", "Resource": "*"}"#;
    let document = format!(r#"{{"Version": "2012-10-17", "Statement": [{same}, {same}]}}"#);
    refused(
        Kind::Identity,
        &document,
        "Statement IDs (SID) in a single policy must be unique.",
    );
}

#[test]
fn conditions_are_checked() {
    for (condition, message) in [
        ("[]", "Syntax errors in policy. Condition must be an object."),
        (
            r#"{"StringIs": {"aws:username": "ada"}}"#,
            "Syntax errors in policy. The condition operator \"StringIs\" is not known.",
        ),
        (
            r#"{"stringequals": {"aws:username": "ada"}}"#,
            "Syntax errors in policy. The condition operator \"stringequals\" is not known.",
        ),
        (
            r#"{"NullIfExists": {"aws:username": "true"}}"#,
            "Syntax errors in policy. The condition operator \"NullIfExists\" is not known.",
        ),
        (
            r#"{"ForSomeValues:StringEquals": {"aws:username": "ada"}}"#,
            "Syntax errors in policy. The condition operator \"ForSomeValues:StringEquals\" is not known.",
        ),
        (
            r#"{"StringEquals": "ada"}"#,
            "Syntax errors in policy. StringEquals must be an object.",
        ),
        (
            r#"{"StringEquals": {"username": "ada"}}"#,
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ),
        (
            r#"{"StringEquals": {"aws:username": []}}"#,
            "Syntax errors in policy. The condition key \"aws:username\" must have a value.",
        ),
        (
            r#"{"StringEquals": {"aws:username": null}}"#,
            "Syntax errors in policy. Values of the condition key \"aws:username\" must be strings.",
        ),
        (
            r#"{"StringEquals": {"aws:username": "${aws:userid, none}"}}"#,
            "Syntax errors in policy. \"${aws:userid, none}\" has an invalid variable.",
        ),
        (
            r#"{"NumericEquals": {"s3:max-keys": "ten"}}"#,
            "Syntax errors in policy. The condition value \"ten\" is not a number.",
        ),
        (
            r#"{"DateEquals": {"aws:CurrentTime": "2020-*"}}"#,
            "Syntax errors in policy. The condition value \"2020-*\" is not a date.",
        ),
        (
            r#"{"Bool": {"aws:SecureTransport": "yes"}}"#,
            "Syntax errors in policy. The condition value \"yes\" is not true or false.",
        ),
        (
            r#"{"Null": {"aws:TokenIssueTime": "${aws:username}"}}"#,
            "Syntax errors in policy. The condition value \"${aws:username}\" is not true or false.",
        ),
        (
            r#"{"BinaryEquals": {"ec2:Key": "=x"}}"#,
            "Syntax errors in policy. The condition value \"=x\" is not base64.",
        ),
        (
            r#"{"IpAddress": {"aws:SourceIp": "203.0.113.0/33"}}"#,
            "Syntax errors in policy. The condition value \"203.0.113.0/33\" is not an IP address or a CIDR block.",
        ),
    ] {
        let members =
            format!(r#""Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {condition}"#);
        refused(Kind::Identity, &statement(&members), message);
    }
}

#[test]
fn trust_policies_are_checked() {
    for (members, message) in [
        (
            r#""Effect": "Allow", "Action": "sts:AssumeRole""#,
            "Missing required field Principal",
        ),
        (
            r#""Effect": "Allow", "Principal": {}, "Action": "sts:AssumeRole""#,
            "Missing required field Principal cannot be empty!",
        ),
        (
            r#""Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole", "Resource": "*""#,
            "Has prohibited field Resource",
        ),
        (
            r#""Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole", "NotResource": "*""#,
            "AssumeRole policy must not contain resources.",
        ),
        (
            r#""Effect": "Allow", "Principal": "*", "Action": "ec2:RunInstances""#,
            "AssumeRole policy may only specify STS AssumeRole actions.",
        ),
        (
            r#""Effect": "Allow", "Principal": "*", "Action": "*""#,
            "AssumeRole policy may only specify STS AssumeRole actions.",
        ),
        (
            r#""Effect": "Allow", "NotPrincipal": "*", "Action": "sts:AssumeRole""#,
            "Allow with NotPrincipal is not allowed.",
        ),
        (
            r#""Effect": "Deny", "Principal": "*", "NotPrincipal": "*", "Action": "sts:AssumeRole""#,
            "Syntax errors in policy. A statement cannot have both Principal and NotPrincipal.",
        ),
        (
            r#""Effect": "Allow", "Principal": "ada", "Action": "sts:AssumeRole""#,
            "Invalid principal in policy.",
        ),
        (
            r#""Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:user/*"}, "Action": "sts:AssumeRole""#,
            "Invalid principal in policy: \"AWS\":\"arn:aws:iam::123456789012:user/*\"",
        ),
        (
            r#""Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:group/x"}, "Action": "sts:AssumeRole""#,
            "Invalid principal in policy: \"AWS\":\"arn:aws:iam::123456789012:group/x\"",
        ),
        (
            r#""Effect": "Allow", "Principal": {"AWS": "1234"}, "Action": "sts:AssumeRole""#,
            "Invalid principal in policy: \"AWS\":\"1234\"",
        ),
        (
            r#""Effect": "Allow", "Principal": {"User": "ada"}, "Action": "sts:AssumeRole""#,
            "Invalid principal in policy: \"User\":\"ada\"",
        ),
    ] {
        refused(Kind::Trust, &statement(members), message);
    }
}

#[test]
fn key_policies_name_whom_and_what() {
    for (members, message) in [
        (
            r#""Effect": "Allow", "Action": "kms:*", "Resource": "*""#,
            "Missing required field Principal",
        ),
        (
            r#""Effect": "Allow", "Principal": "*", "Action": "kms:*""#,
            "Policy statement must contain resources.",
        ),
        (
            r#""Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::1:root"}, "Action": "kms:*", "Resource": "*""#,
            "Invalid principal in policy: \"AWS\":\"arn:aws:iam::1:root\"",
        ),
        (
            r#""Effect": "Allow", "NotPrincipal": {"AWS": "123456789012"}, "Action": "kms:*", "Resource": "*""#,
            "Allow with NotPrincipal is not allowed.",
        ),
    ] {
        refused(Kind::Key, &statement(members), message);
    }
}

#[test]
fn documents_are_bounded() {
    let of = |length: usize, space: usize| {
        let document = statement(r#""Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::""#);
        let document = document.replace(' ', "");
        let document = document.replace(":::", &format!(":::{}", "x".repeat(length - document.len())));
        format!("{document}{}", " ".repeat(space))
    };
    Policy::parse(Kind::Identity, &of(10_240, 1000)).unwrap();
    let message = "Policy documents have at most 10240 characters without white space.";
    refused(Kind::Identity, &of(10_240 + 1, 0), message);
    refused(Kind::Identity, &of(1000, 200_000), message);
    let key = |length: usize| {
        let document = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}}"#;
        format!("{document}{}", " ".repeat(length - document.len()))
    };
    Policy::parse(Kind::Key, &key(32_768)).unwrap();
    let message = "Key policies have at most 32768 bytes.";
    refused(Kind::Key, &key(32_769), message);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let error = Policy::parse(Kind::Identity, &deep).unwrap_err().to_string();
    assert!(error.contains("recursion limit exceeded"), "{error}");
}
