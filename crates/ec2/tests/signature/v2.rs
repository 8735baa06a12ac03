//! Version 2: what AWS's manual and botocore 1.44.8 have signed, and what differs from it.

use bytes::Bytes;
use hearth_ec2::Service;
use hearth_ec2::signature::{Keys, Unusable, verify_at};
use http::Request;

use crate::{One, at};

/// The example of AWS's manual: "Signature Version 2 signing process".
const MANUAL: &str = "/?Action=DescribeJobFlows&Version=2009-03-31&AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&SignatureVersion=2\
    &SignatureMethod=HmacSHA256&Timestamp=2011-10-03T15%3A19%3A30&Signature=i91nKc4PWAt0JJIdXwz9HxZCJDdiy6cf%2FMj6vPxyYIs%3D";
const PARAMETERS: &str = "Action=DescribeVpcs&Filter.1.Name=tag%3Aa+b&Filter.1.Value.1=%C3%A4*~%2B%2F\
    &AWSAccessKeyId=AKIDEXAMPLE&SignatureVersion=2&SignatureMethod=HmacSHA256&Timestamp=2015-08-30T12%3A36%3A00Z&Signature=";
const OF_THE_QUERY: &str = "7stA%2FkGduiRdqwr5BhMJO%2Fox4GsPBaAlLFRsUvwcoWw%3D";
const OF_THE_FORM: &str = "t8w4C4WwTQfuSK5HqtC02o%2FPmH76nm5URE%2B%2B3X0uWBg%3D";
const NOW: &str = "20150830T123600Z";

struct Manual;

impl Keys for Manual {
    type Signer = String;

    fn find(&self, access_key_id: &str, session_token: Option<&str>) -> Result<(String, String), Unusable> {
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        match (access_key_id, session_token) {
            ("AKIAIOSFODNN7EXAMPLE", None) => Ok((secret.to_owned(), access_key_id.to_owned())),
            _ => Err(Unusable::Unknown),
        }
    }
}

async fn verified(
    request: Request<Bytes>,
    now: &str,
    keys: &impl Keys<Signer = String>,
) -> Result<String, &'static str> {
    let verified = verify_at(at(now), request, Service::Ec2, "us-east-1", keys).await;
    verified.map(|(_, _, key)| key).map_err(|denied| denied.code)
}

fn get(host: &str, target: &str) -> Request<Bytes> {
    let request = Request::get(target).header("host", host);
    request.body(Bytes::new()).expect("a request")
}

fn post(form: &str) -> Request<Bytes> {
    let request = Request::post("/a/")
        .header("host", "EC2.example.com:8080")
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    request.body(Bytes::from(form.to_owned())).expect("a request")
}

#[tokio::test]
async fn the_manuals_example_and_botocores_requests_are_accepted() {
    let found = verified(
        get("elasticmapreduce.amazonaws.com", MANUAL),
        "20111003T151930Z",
        &Manual,
    )
    .await;
    assert_eq!(found.as_deref(), Ok("AKIAIOSFODNN7EXAMPLE"));
    let target = format!("/a/?{PARAMETERS}{OF_THE_QUERY}");
    let found = verified(get("ec2.example.com:8080", &target), NOW, &One).await;
    assert_eq!(found.as_deref(), Ok("AKIDEXAMPLE"));
    let found = verified(post(&format!("{PARAMETERS}{OF_THE_FORM}")), NOW, &One).await;
    assert_eq!(found.as_deref(), Ok("AKIDEXAMPLE"));
    // It has no scope. Another service's scope is not there to be asked for.
    let request = post(&format!("{PARAMETERS}{OF_THE_FORM}"));
    let denied = verify_at(at(NOW), request, Service::Sts, "us-east-1", &One).await;
    assert_eq!(
        denied.map_err(|denied| denied.code).err(),
        Some("MissingAuthenticationToken")
    );
}

#[tokio::test]
async fn sha1_and_an_expiry_are_accepted() {
    for (method, signature) in [
        ("HmacSHA256", "7%2FcNqPr8DljrTpoJLf4IOoEiKrKlfKdHttmQZyRCIW8%3D"),
        ("HmacSHA1", "8vH6%2F3RVSZf7cYrdu%2FZiOxg6rBA%3D"),
    ] {
        let target = format!(
            "/?AWSAccessKeyId=AKIDEXAMPLE&Action=DescribeVpcs&Expires=2015-08-30T13%3A00%3A00Z&SignatureMethod={method}\
             &SignatureVersion=2&Signature={signature}"
        );
        let at = async |now| verified(get("ec2.example.com", &target), now, &One).await;
        assert_eq!(
            at("20150830T130000Z").await.as_deref(),
            Ok("AKIDEXAMPLE"),
            "{method}"
        );
        assert_eq!(at("20150830T130001Z").await, Err("RequestExpired"), "{method}");
    }
}

#[tokio::test]
async fn what_differs_is_refused() {
    let form = format!("{PARAMETERS}{OF_THE_FORM}");
    for now in ["20150830T122100Z", "20150830T125100Z"] {
        assert_eq!(
            verified(post(&form), now, &One).await.as_deref(),
            Ok("AKIDEXAMPLE"),
            "{now}"
        );
    }
    for now in ["20150830T122059Z", "20150830T125101Z"] {
        assert_eq!(
            verified(post(&form), now, &One).await,
            Err("RequestExpired"),
            "{now}"
        );
    }
    for (from, to, code) in [
        ("DescribeVpcs", "DescribeVpcz", "AuthFailure"),
        ("Filter.1.Name", "Filter.2.Name", "AuthFailure"),
        ("Signature=t8w4", "Signature=t8w5", "AuthFailure"),
        ("Signature=t8w4", "Signature=T8w4", "AuthFailure"),
        ("AKIDEXAMPLE", "AKIDEXAMPLF", "AuthFailure"),
        ("HmacSHA256", "HmacSHA1", "AuthFailure"),
        ("Action=", "DryRun=true&Action=", "AuthFailure"),
        ("Action=", "SecurityToken=a&Action=", "AuthFailure"),
        ("HmacSHA256", "HmacMD5", "IncompleteSignature"),
        ("SignatureVersion=2", "SignatureVersion=1", "IncompleteSignature"),
        ("SignatureVersion=2", "SignatureVersion=", "IncompleteSignature"),
        (
            "SignatureVersion=2",
            "SignatureVersion=2&SignatureVersion=2",
            "IncompleteSignature",
        ),
        ("&SignatureVersion=2", "", "IncompleteSignature"),
        ("&AWSAccessKeyId=AKIDEXAMPLE", "", "IncompleteSignature"),
        ("&SignatureMethod=HmacSHA256", "", "IncompleteSignature"),
        ("&Signature=t8w4", "&signature=t8w4", "IncompleteSignature"),
        ("Signature=t8w4", "Signature=%25", "IncompleteSignature"),
        (
            "Timestamp=2015-08-30",
            "Timestamp=30.08.15",
            "IncompleteSignature",
        ),
        ("&Timestamp=", "&timestamp=", "IncompleteSignature"),
        (
            "&Timestamp=",
            "&Expires=2016-01-01T00%3A00%3A00Z&Timestamp=",
            "IncompleteSignature",
        ),
    ] {
        assert!(form.contains(from), "{from}");
        let changed = form.replace(from, to);
        assert_eq!(verified(post(&changed), NOW, &One).await, Err(code), "{to}");
    }
    let mut path = post(&form);
    *path.uri_mut() = "/b/".parse().expect("a path");
    let mut host = post(&form);
    host.headers_mut()
        .insert("host", "ec2.example.com".parse().expect("a host"));
    let mut method = post(&form);
    *method.method_mut() = http::Method::PUT;
    for (what, request) in [("path", path), ("host", host), ("method", method)] {
        assert_eq!(verified(request, NOW, &One).await, Err("AuthFailure"), "{what}");
    }
    // A body that is no form says nothing.
    let mut no_form = post(&form);
    no_form.headers_mut().remove("content-type");
    assert_eq!(
        verified(no_form, NOW, &One).await,
        Err("MissingAuthenticationToken")
    );
}
