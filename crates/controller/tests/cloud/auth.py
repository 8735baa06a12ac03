"""Requests that must be refused for their signature, made by hand and by botocore. usage: auth.py ENDPOINT REGION CREDENTIALS

Each refused request asks for a key pair to be made. None is made. The codes and the HTTP statuses are AWS's; each case says where
they are written:
  EC2     https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html: EC2 says AuthFailure (401) for a key that it
          does not know and for a wrong signature alike, and RequestExpired (400)
  COMMON  https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html: IncompleteSignature (400),
          InvalidClientTokenId (403), MissingAuthenticationToken (403), RequestExpired (400)
  SIGV4   https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-troubleshooting.html: SignatureDoesNotMatch (403), with
          the wording for scopes, dates and expiry
  V2      https://docs.aws.amazon.com/AmazonSimpleDB/latest/DeveloperGuide/HMACAuth.html, with the codes of COMMON
"""

import base64
import datetime
import hashlib
import hmac
import http.client
import re
import sys
from unittest import mock
from urllib.parse import quote, urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from cloud import Cloud, owner

endpoint, region, path = sys.argv[1:]
cloud = Cloud(endpoint, region, owner(path))
KEY, SECRET = cloud.key
HOST = urlsplit(endpoint).netloc
UNKNOWN = "AKIAIOSFODNN7EXAMPLE"
FORM = "application/x-www-form-urlencoded; charset=utf-8"
STS_FORM = "Action=GetCallerIdentity&Version=2011-06-15"


def client(service="ec2", key=KEY, secret=SECRET, region=None, token=None):
    return cloud.client(service, (key, secret, token), region, parameter_validation=True)


ec2 = client()
sts = client("sts")


def utc(**difference):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**difference)


def iso(moment):
    return moment.strftime("%Y%m%dT%H%M%SZ")


def escaped(text):
    return quote(text, safe="-_.~")


def query(pairs):
    return "&".join(f"{escaped(name)}={escaped(value)}" for name, value in sorted(pairs))


class Request:
    """What goes over the wire."""

    def __init__(self, method, path, query, headers, body):
        self.method, self.path, self.query, self.headers, self.body = method, path, query, headers, body

    def send(self):
        address = urlsplit(endpoint)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        target = self.path + (f"?{self.query}" if self.query else "")
        connection.putrequest(self.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers:
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(self.body)))
        connection.endheaders(self.body)
        response = connection.getresponse()
        return response.status, response.read().decode()

    def header(self, wanted):
        [value] = [value for name, value in self.headers if name.lower() == wanted.lower()]
        return value

    def set(self, wanted, value):
        """A header has another value, or none."""
        self.headers = [(name, old) for name, old in self.headers if name.lower() != wanted.lower()]
        if value is not None:
            self.headers.append((wanted, value))


def hmac_sha256(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(request, scope, date, names, secret, payload=None):
    """Of version 4, as AWS's manual has it, and apart from botocore's."""
    headers = {name.lower(): value for name, value in request.headers}
    names = sorted(names)
    lines = "".join(f"{name}:{headers[name]}\n" for name in names)
    payload = payload or hashlib.sha256(request.body).hexdigest()
    canonical = "\n".join([request.method, request.path, request.query, lines, ";".join(names), payload])
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        key = hmac_sha256(key, part)
    return hmac_sha256(key, text).hex()


def signed(
    form=None,
    key=KEY,
    secret=SECRET,
    region=region,
    service="ec2",
    end="aws4_request",
    moment=None,
    day=None,
    method="POST",
    unsigned=(),
    headers=(),
    payload=None,
    algorithm="AWS4-HMAC-SHA256",
):
    """A request with its signature in a header."""
    moment = moment or utc()
    body = (form or FORM_OF_THE_CASE).encode()
    every = [("Host", HOST), ("Content-Type", FORM), ("X-Amz-Date", iso(moment)), *headers]
    request = Request(method, "/", "", every, body)
    scope = "/".join([day or moment.strftime("%Y%m%d"), region, service, end])
    names = sorted({name.lower() for name, _ in every} - set(unsigned))
    made = signature(request, scope, iso(moment), names, secret, payload)
    value = f"{algorithm} Credential={key}/{scope}, SignedHeaders={';'.join(names)}, Signature={made}"
    request.headers.append(("Authorization", value))
    return request


def presigned(form=None, expires="60", moment=None, service="ec2", left_out=(), **changed):
    """A request with its signature in the query."""
    moment = moment or utc()
    scope = "/".join([moment.strftime("%Y%m%d"), region, service, "aws4_request"])
    pairs = dict(pair.split("=") for pair in (form or FORM_OF_THE_CASE).split("&"))
    pairs |= {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{KEY}/{scope}",
        "X-Amz-Date": iso(moment),
        "X-Amz-Expires": expires,
        "X-Amz-SignedHeaders": "host",
    }
    pairs |= {name.replace("_", "-"): value for name, value in changed.items()}
    pairs = {name: value for name, value in pairs.items() if name not in left_out}
    request = Request("GET", "/", query(pairs.items()), [("Host", HOST)], b"")
    made = signature(request, scope, iso(moment), ["host"], SECRET)
    if "X-Amz-Signature" not in left_out:
        request.query += f"&X-Amz-Signature={made}"
    return request


def version2(secret=SECRET, **changed):
    """A request with a signature of version 2, in the query."""
    pairs = dict(pair.split("=") for pair in FORM_OF_THE_CASE.split("&"))
    pairs |= {
        "AWSAccessKeyId": KEY,
        "SignatureMethod": "HmacSHA256",
        "SignatureVersion": "2",
        "Timestamp": utc().strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    pairs = {name: value for name, value in (pairs | changed).items() if value is not None}
    text = f"GET\n{HOST}\n/\n{query(pairs.items())}"
    made = base64.b64encode(hmac_sha256(secret.encode(), text)).decode()
    return Request("GET", "/", f"{query(pairs.items())}&Signature={escaped(made)}", [("Host", HOST)], b"")


# What a request is changed to after it was signed.


def changed(request, of="Authorization", **change):
    """A header in which one text stands for another."""
    value = request.header(of)
    for old, new in change["texts"]:
        found = re.sub(old, new, value, count=1)
        assert found != value, (old, value)
        value = found
    request.set(of, value)
    return request


def replaced(request, old, new):
    assert old in request.query, (old, request.query)
    request.query = request.query.replace(old, new)
    return request


def with_(request, **attributes):
    for name, value in attributes.items():
        setattr(request, name, value)
    return request


def header(request, name, value):
    request.set(name, value)
    return request


def authorization(value):
    return header(signed(), "Authorization", value)


def more(request, name, value, first=False):
    request.headers.insert(0 if first else len(request.headers), (name, value))
    return request


def upper_case(request):
    made = re.search("Signature=([0-9a-f]+)", request.header("Authorization"))[1]
    return changed(request, texts=[(made, made.upper())])


def longer_scope(request, more):
    return changed(request, texts=[("/aws4_request", more)])


FAILED = ("AuthFailure", 401)
INCOMPLETE = ("IncompleteSignature", 400)
EXPIRED = ("RequestExpired", 400)
MISSING = ("MissingAuthenticationToken", 403)
MISMATCH = ("SignatureDoesNotMatch", 403)

# The name, the request, the code with the status, and where they are written.
CASES = [
    # Keys.
    ("wrong secret", lambda: signed(secret="x" * 40), FAILED, "EC2"),
    ("unknown key", lambda: signed(key=UNKNOWN), FAILED, "EC2"),
    ("empty key", lambda: signed(key=""), FAILED, "EC2"),
    ("key in lower case", lambda: signed(key=KEY.lower()), FAILED, "EC2"),
    ("key with a space", lambda: signed(key=KEY + " "), FAILED, "EC2"),
    ("token of no session", lambda: signed(headers=[("X-Amz-Security-Token", "token")]), FAILED, "EC2"),
    (
        "token of no session, unsigned",
        lambda: signed(headers=[("X-Amz-Security-Token", "token")], unsigned=["x-amz-security-token"]),
        FAILED,
        "EC2",
    ),
    ("secret of the key without its end", lambda: signed(secret=SECRET[:-1]), FAILED, "EC2"),
    # Scopes.
    ("other region", lambda: signed(region="eu-central-1"), FAILED, "SIGV4"),
    ("region in upper case", lambda: signed(region=region.upper()), FAILED, "SIGV4"),
    ("other service", lambda: signed(service="s3"), ("InvalidAction", 400), "COMMON"),
    ("scope of STS", lambda: signed(service="sts", region=region), ("InvalidAction", 400), "COMMON"),
    ("other end of the scope", lambda: signed(end="aws5_request"), FAILED, "SIGV4"),
    ("scope without its end", lambda: longer_scope(signed(), ""), INCOMPLETE, "COMMON"),
    ("scope with one part more", lambda: longer_scope(signed(), "/aws4_request/more"), INCOMPLETE, "COMMON"),
    ("scope of slashes only", lambda: changed(signed(), texts=[("Credential=[^,]*", "Credential=////")]), FAILED, "SIGV4"),
    ("scope of another day", lambda: signed(day=utc(days=-1).strftime("%Y%m%d")), FAILED, "SIGV4"),
    # Dates.
    ("16 minutes ago", lambda: signed(moment=utc(minutes=-16)), EXPIRED, "EC2"),
    ("16 minutes from now", lambda: signed(moment=utc(minutes=16)), EXPIRED, "EC2"),
    ("a year ago", lambda: signed(moment=utc(days=-365)), EXPIRED, "EC2"),
    ("no date", lambda: header(signed(), "X-Amz-Date", None), INCOMPLETE, "COMMON"),
    ("a date that is none", lambda: header(signed(), "X-Amz-Date", "yesterday"), INCOMPLETE, "COMMON"),
    ("other date than signed", lambda: header(signed(), "X-Amz-Date", iso(utc(seconds=-5))), FAILED, "SIGV4"),
    # The header.
    ("no signature at all", lambda: authorization(None), MISSING, "COMMON"),
    ("empty header", lambda: authorization(""), INCOMPLETE, "COMMON"),
    ("no Signature", lambda: changed(signed(), texts=[(", Signature=.*", "")]), INCOMPLETE, "COMMON"),
    ("no SignedHeaders", lambda: changed(signed(), texts=[("SignedHeaders=[^,]*, ", "")]), INCOMPLETE, "COMMON"),
    ("no Credential", lambda: changed(signed(), texts=[("Credential=[^,]*, ", "")]), INCOMPLETE, "COMMON"),
    ("half a header", lambda: changed(signed(), texts=[("(?<=SignedHeaders).*", "")]), INCOMPLETE, "COMMON"),
    (
        "two headers, the first of them wrong",
        lambda: more(signed(), "Authorization", "Basic YTpi", True),
        INCOMPLETE,
        "COMMON",
    ),
    (
        "two headers, the first of them another's",
        lambda: more(signed(), "Authorization", signed(key=UNKNOWN).header("Authorization"), True),
        FAILED,
        "EC2",
    ),
    (
        "in the header and in the query",
        lambda: more(presigned(), "Authorization", signed().header("Authorization")),
        FAILED,
        "SIGV4",
    ),
    ("AWS4-HMAC-SHA1", lambda: signed(algorithm="AWS4-HMAC-SHA1"), INCOMPLETE, "COMMON"),
    ("AWS4-HMAC-SHA512", lambda: signed(algorithm="AWS4-HMAC-SHA512"), INCOMPLETE, "COMMON"),
    ("AWS4-ECDSA-P256-SHA256", lambda: signed(algorithm="AWS4-ECDSA-P256-SHA256"), INCOMPLETE, "COMMON"),
    (
        "AWS3-HTTPS",
        lambda: authorization(f"AWS3-HTTPS AWSAccessKeyId={KEY},Algorithm=HmacSHA256,Signature=a"),
        INCOMPLETE,
        "COMMON",
    ),
    ("AWS KEY:SIGNATURE", lambda: authorization(f"AWS {KEY}:frJIUN8DYpKDtOLCwo//yllqDzg="), INCOMPLETE, "COMMON"),
    ("Basic", lambda: authorization("Basic " + base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()), INCOMPLETE, "COMMON"),
    ("Bearer", lambda: authorization(f"Bearer {SECRET}"), INCOMPLETE, "COMMON"),
    ("signature in upper case", lambda: upper_case(signed()), FAILED, "SIGV4"),
    ("signature with one digit more", lambda: changed(signed(), texts=[("$", "0")]), FAILED, "SIGV4"),
    ("empty signature", lambda: changed(signed(), texts=[("Signature=.*", "Signature=")]), FAILED, "SIGV4"),
    (
        "not UTF-8, in the key",
        lambda: authorization(signed(key="").header("Authorization").encode().replace(b"Credential=", b"Credential=\xff\xfe")),
        FAILED,
        "EC2",
    ),
    (
        "not UTF-8, in the signature",
        lambda: authorization(signed().header("Authorization").encode() + b"\xff"),
        FAILED,
        "SIGV4",
    ),
    # What is signed.
    ("unsigned Host", lambda: signed(unsigned=["host"]), FAILED, "SIGV4"),
    ("unsigned X-Amz-Date", lambda: signed(unsigned=["x-amz-date"]), FAILED, "SIGV4"),
    ("unsigned X-Amz-Target", lambda: more(signed(), "X-Amz-Target", "a"), FAILED, "SIGV4"),
    ("signed header that is not there", lambda: header(signed(headers=[("X-Mine", "a")]), "X-Mine", None), FAILED, "SIGV4"),
    ("other host", lambda: header(signed(), "Host", "ec2.example.com"), FAILED, "SIGV4"),
    ("other content type", lambda: header(signed(), "Content-Type", "application/x-www-form-urlencoded"), FAILED, "SIGV4"),
    ("header twice", lambda: more(signed(), "Content-Type", "text/plain"), FAILED, "SIGV4"),
    ("other body", lambda: changed_body(signed()), FAILED, "SIGV4"),
    ("body with one parameter more", lambda: longer_body(signed(), b"&DryRun=false"), FAILED, "SIGV4"),
    ("no body", lambda: with_(signed(), query=FORM_OF_THE_CASE, body=b""), FAILED, "SIGV4"),
    ("hash of another body", lambda: signed(payload=hashlib.sha256(b"").hexdigest()), FAILED, "SIGV4"),
    (
        "header with the hash of another body",
        lambda: signed(headers=[("X-Amz-Content-Sha256", "0" * 64)], payload="0" * 64),
        FAILED,
        "SIGV4",
    ),
    (
        "unsigned body",
        lambda: signed(headers=[("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")], payload="UNSIGNED-PAYLOAD"),
        FAILED,
        "SIGV4",
    ),
    ("more in the query", lambda: with_(signed(), query="DryRun=false"), FAILED, "SIGV4"),
    ("other path", lambda: with_(signed(), path="/other"), FAILED, "SIGV4"),
    ("other method", lambda: with_(signed(), method="PUT"), FAILED, "SIGV4"),
    # In the query.
    ("presigned, expired", lambda: presigned(moment=utc(minutes=-17)), EXPIRED, "COMMON"),
    ("presigned, from now on", lambda: presigned(moment=utc(minutes=16)), EXPIRED, "COMMON"),
    ("presigned for more than a week", lambda: presigned(expires="604801"), INCOMPLETE, "COMMON"),
    ("presigned for less than nothing", lambda: presigned(expires="-60"), INCOMPLETE, "COMMON"),
    ("presigned for a word", lambda: presigned(expires="long"), INCOMPLETE, "COMMON"),
    ("presigned, for longer than signed", lambda: replaced(presigned(), "Expires=60", "Expires=600"), FAILED, "SIGV4"),
    ("presigned, another parameter", lambda: replaced(presigned(), "KeyName=", "KeyName=other-"), FAILED, "SIGV4"),
    ("presigned, one parameter more", lambda: replaced(presigned(), "KeyName=", "DryRun=false&KeyName="), FAILED, "SIGV4"),
    ("presigned, another method", lambda: with_(presigned(), method="POST"), FAILED, "SIGV4"),
    ("presigned, with a body", lambda: with_(presigned(), body=b"a"), FAILED, "SIGV4"),
    ("presigned, no signature", lambda: presigned(left_out=["X-Amz-Signature"]), INCOMPLETE, "COMMON"),
    ("presigned, no credential", lambda: presigned(left_out=["X-Amz-Credential"]), INCOMPLETE, "COMMON"),
    ("presigned, no date", lambda: presigned(left_out=["X-Amz-Date"]), INCOMPLETE, "COMMON"),
    ("presigned, no headers", lambda: presigned(left_out=["X-Amz-SignedHeaders"]), INCOMPLETE, "COMMON"),
    ("presigned, no algorithm", lambda: presigned(left_out=["X-Amz-Algorithm"]), MISSING, "COMMON"),
    ("presigned by SHA-1", lambda: presigned(X_Amz_Algorithm="AWS4-HMAC-SHA1"), MISSING, "COMMON"),
    ("presigned with a token of no session", lambda: presigned(X_Amz_Security_Token="a+b/c="), FAILED, "EC2"),
    # Version 2.
    ("version 2, wrong secret", lambda: version2(secret="x" * 40), FAILED, "EC2"),
    ("version 2, unknown key", lambda: version2(AWSAccessKeyId=UNKNOWN), FAILED, "EC2"),
    ("version 2, 16 minutes ago", lambda: version2(Timestamp=iso(utc(minutes=-16))), EXPIRED, "EC2"),
    ("version 2, 16 minutes from now", lambda: version2(Timestamp=iso(utc(minutes=16))), EXPIRED, "EC2"),
    ("version 2, expired", lambda: version2(Timestamp=None, Expires=iso(utc(minutes=-1))), EXPIRED, "EC2"),
    ("version 2, no time", lambda: version2(Timestamp=None), INCOMPLETE, "V2"),
    ("version 2, both times", lambda: version2(Expires=iso(utc(minutes=1))), INCOMPLETE, "V2"),
    ("version 2 by MD5", lambda: version2(SignatureMethod="HmacMD5"), INCOMPLETE, "V2"),
    ("version 1", lambda: version2(SignatureVersion="1"), INCOMPLETE, "V2"),
    ("version 2, another parameter", lambda: replaced(version2(), "KeyName=", "KeyName=other-"), FAILED, "SIGV4"),
    ("version 2, another method", lambda: with_(version2(), method="DELETE"), FAILED, "SIGV4"),
    ("version 2, another path", lambda: with_(version2(), path="/other"), FAILED, "SIGV4"),
    # STS says more than EC2.
    ("STS, wrong secret", lambda: signed(STS_FORM, service="sts", secret="x" * 40), MISMATCH, "SIGV4"),
    ("STS, unknown key", lambda: signed(STS_FORM, service="sts", key=UNKNOWN), ("InvalidClientTokenId", 403), "COMMON"),
    ("STS, 16 minutes ago", lambda: signed(STS_FORM, service="sts", moment=utc(minutes=-16)), MISMATCH, "SIGV4"),
    ("STS, other region", lambda: signed(STS_FORM, service="sts", region="eu-central-1"), MISMATCH, "SIGV4"),
    ("STS, presigned, expired", lambda: presigned(STS_FORM, service="sts", moment=utc(minutes=-17)), MISMATCH, "SIGV4"),
    (
        "STS, presigned, other call",
        lambda: replaced(presigned(STS_FORM, service="sts"), "Caller", "Other"),
        MISMATCH,
        "SIGV4",
    ),
]


def changed_body(request):
    request.body = request.body.replace(b"KeyName=", b"KeyName=K")[:-1]
    return request


def longer_body(request, more):
    request.body += more
    return request


def nothing_is_done():
    found = ec2.describe_key_pairs()["KeyPairs"]
    assert found == [], found


def code_of(said):
    return re.search("<Code>(.*?)</Code>", said)[1]


refused = 0
for number, (name, make, (code, status), source) in enumerate(CASES):
    FORM_OF_THE_CASE = f"Action=CreateKeyPair&KeyName=case-{number}&KeyType=ed25519&Version=2016-11-15"
    found, said = make().send()
    assert (code_of(said), found) == (code, status), f"{name}: {found} {said}, and {status} {code} by {source}"
    assert SECRET not in said and re.search("<Request(ID|Id)>[0-9a-f-]{36}</Request(ID|Id)>", said), said
    nothing_is_done()
    refused += 1

# By botocore.
CLOCK = "botocore.auth.get_current_datetime"


def at(minutes):
    return lambda *_, **__: utc(minutes=minutes).replace(tzinfo=None)


for who, minutes, (code, status) in [
    (client(secret="x" * 40), 0, FAILED),
    (client(key=UNKNOWN), 0, FAILED),
    (client(region="eu-central-1"), 0, FAILED),
    (client(token="token"), 0, FAILED),
    (ec2, -16, EXPIRED),
    (ec2, 16, EXPIRED),
]:
    with mock.patch(CLOCK, at(minutes)):
        try:
            who.create_key_pair(KeyName="by-botocore")
        except ClientError as error:
            answer = error.response
            found = (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"])
            assert found == (code, status), answer
        else:
            raise AssertionError(f"{code}: not refused")
    nothing_is_done()
    refused += 1

# The same requests are accepted when they are right: what was refused, was refused for what the case says.
FORM_OF_THE_CASE = "Action=DescribeKeyPairs&Version=2016-11-15"
account = sts.get_caller_identity()["Account"]
for name, request in [
    ("in a header", signed()),
    ("with another header that is not signed", more(signed(), "X-Mine", "a")),
    ("14 minutes ago", signed(moment=utc(minutes=-14))),
    ("14 minutes from now", signed(moment=utc(minutes=14))),
    ("presigned", presigned()),
    ("presigned half an hour ago, for an hour", presigned(moment=utc(minutes=-30), expires="3600")),
    ("presigned for a week", presigned(moment=utc(days=-6), expires="604800")),
    ("version 2", version2()),
    ("version 2, with an expiry", version2(Timestamp=None, Expires=utc(hours=1).strftime("%Y-%m-%dT%H:%M:%SZ"))),
    ("STS, presigned", presigned(STS_FORM, service="sts")),
]:
    status, said = request.send()
    assert status == 200, f"{name}: {status} {said}"

# Presigned by botocore, as `aws eks get-token` does it: with a header that is signed, and used minutes later.
url = sts.generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
with mock.patch(CLOCK, at(-10)):
    request = AWSRequest("GET", f"{endpoint}/?{STS_FORM}", headers={"x-k8s-aws-id": "cluster"})
    botocore.auth.SigV4QueryAuth(Credentials(KEY, SECRET), "sts", region, expires=60).add_auth(request)
for url, headers in ((url, []), (request.url, [("x-k8s-aws-id", "cluster")])):
    parts = urlsplit(url)
    status, said = Request("GET", parts.path or "/", parts.query, [("Host", HOST), *headers], b"").send()
    assert status == 200 and f"<Account>{account}</Account>" in said, (url, status, said)

# More than nine items in the query: their names are signed in another order than that of their numbers.
many = "&".join(f"KeyName.{number}=k{number}" for number in range(1, 13))
status, said = presigned(f"Action=DescribeKeyPairs&Version=2016-11-15&{many}").send()
assert status == 400 and code_of(said) == "InvalidKeyPair.NotFound", (status, said)

assert refused >= 40, refused
print(f"FIGURE refused: {refused} requests with AWS's codes, and nothing was done")
