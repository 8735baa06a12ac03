//! `X-Amz-Expires` of presigned requests.

use bytes::Bytes;
use hearth_ec2::Service;
use hearth_ec2::signature::verify_at;
use http::Request;

use crate::{One, at};

/// Presigned by botocore 1.44.8 at 2015-08-30T12:36:00Z: STS's GetCallerIdentity, valid for an hour.
const PRESIGNED: &str = "/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256\
    &X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fsts%2Faws4_request&X-Amz-Date=20150830T123600Z\
    &X-Amz-Expires=3600&X-Amz-SignedHeaders=host\
    &X-Amz-Signature=cab23cc4163336b7dd1476cc068f2124e37a7e691c342aca8882ef1d146cd1e9";

async fn verified(target: &str, now: &str) -> Result<String, &'static str> {
    let request = Request::get(target).header("host", "sts.example.com");
    let request = request.body(Bytes::new()).expect("a request");
    let verified = verify_at(at(now), request, Service::Sts, "us-east-1", &One).await;
    verified.map(|(_, _, key)| key).map_err(|denied| denied.code)
}

#[tokio::test]
async fn a_presigned_request_is_valid_as_long_as_it_says() {
    // 15 minutes to both sides are for the difference of clocks.
    for now in [
        "20150830T122100Z",
        "20150830T123600Z",
        "20150830T130000Z",
        "20150830T135100Z",
    ] {
        assert_eq!(
            verified(PRESIGNED, now).await.as_deref(),
            Ok("AKIDEXAMPLE"),
            "{now}"
        );
    }
    for now in ["20150830T122059Z", "20150830T135101Z", "20150831T123600Z"] {
        assert_eq!(
            verified(PRESIGNED, now).await,
            Err("SignatureDoesNotMatch"),
            "{now}"
        );
    }
    let now = "20150830T123600Z";
    let with = |expires: &str| PRESIGNED.replace("Expires=3600", &format!("Expires={expires}"));
    assert_eq!(verified(&with("3601"), now).await, Err("SignatureDoesNotMatch"));
    for expires in ["604801", "0", "-3600", "", "an hour", "99999999999999999999"] {
        let expires = expires.replace(' ', "+");
        assert_eq!(
            verified(&with(&expires), now).await,
            Err("IncompleteSignature"),
            "{expires}"
        );
    }
}
