"""botocore as the stranger: it writes requests and reads answers of every call of a service's model, with random members.

Lines of JSON go out and their answers come in: {"call", "body"} is answered by what the body says, {"call", "output"} by the
answer's text. usage: stranger.py SERVICE ROUNDS SEED"""

import base64
import collections
import datetime
import json
import random
import sys
from urllib.parse import urlencode

import botocore.parsers
import botocore.serialize
from botocore.loaders import Loader
from botocore.model import ServiceModel

DEEPEST = 6
# What services are called in credential scopes, and by botocore.
NAMES = {"servicequotas": "service-quotas"}
TEXTS = ["", " ", "a", "i-0123456789abcdef0", "<&>\"'", "ä€😀", "a\r\nb\tc", "  x  ", "]]>", "%+&="]


def value(shape, depth=0):
    kind = shape.type_name
    if kind == "structure" and shape.is_tagged_union:
        name, member = random.choice([pair for pair in shape.members.items() if is_flat(pair[1])])
        return {name: value(member, depth + 1)}
    if kind == "structure":
        few = len(shape.members) < 4 or depth == 0
        return {
            name: value(member, depth + 1)
            for name, member in shape.members.items()
            if is_shallow(member, depth) and is_flat(member) and random.random() < (0.7 if few else 0.3)
        }
    if kind == "list":
        return [value(shape.member, depth + 1) for _ in range(random.randint(1, 12 if depth < 2 else 2))]
    if kind == "map":
        return {str(random.getrandbits(40)): value(shape.value, depth + 1) for _ in range(random.randint(1, 3))}
    if kind in ("integer", "long"):
        bits = 31 if kind == "integer" else 63
        return random.choice([0, 1, -1, 2**bits - 1, -(2**bits), random.getrandbits(bits)])
    if kind in ("float", "double"):
        return random.choice([0.0, 1.5, -0.25, 1e20, 0.1 if kind == "double" else 0.125])
    if kind == "boolean":
        return random.random() < 0.5
    if kind == "blob":
        return random.randbytes(random.randint(0, 40))
    if kind == "timestamp":
        at = random.choice([0, 1, -86400, random.getrandbits(32)])
        moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
        return moment + datetime.timedelta(milliseconds=random.randint(0, 999))
    return random.choice(TEXTS)


def is_shallow(shape, depth):
    return depth < DEEPEST or shape.type_name not in ("structure", "list", "map")


def is_flat(shape):
    """Not a list or a map of lists or maps: protos have none."""
    inner = {"list": "member", "map": "value"}.get(shape.type_name)
    return inner is None or getattr(shape, inner).type_name not in ("list", "map")


def whole(value):
    """Without what is below a second: the serializer of JSON leaves it out."""
    if isinstance(value, dict):
        return {key: whole(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return value.replace(microsecond=0) if isinstance(value, datetime.datetime) else value


def pruned(value):
    """Without structures and lists that have nothing: JSON can say them, and other protocols cannot."""
    if isinstance(value, dict):
        members = {key: pruned(inner) for key, inner in value.items()}
        return {key: inner for key, inner in members.items() if inner not in ({}, [])}
    if isinstance(value, list):
        return [inner for inner in map(pruned, value) if inner != {}]
    return value


def plain(value, shape):
    """Of botocore's values what JSON can hold, without what no protocol can say: structures that have no members."""
    kind = shape.type_name
    if kind == "structure":
        members = {}
        for name, member in value.items():
            if name == "ResponseMetadata" and name not in shape.members:
                continue
            inner = plain(member, shape.members[name])
            if inner not in ({}, []):
                members[name] = inner
        return members
    if kind == "list":
        items = [plain(item, shape.member) for item in value]
        return [item for item in items if item != {}]
    if kind == "map":
        return {key: plain(item, shape.value) for key, item in value.items()}
    if kind == "blob":
        return base64.b64encode(value).decode()
    if kind == "timestamp":
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if kind == "long":
        return str(value)
    return value


def normal(value):
    """Numbers of any writing, and times without trailing zeros, are the same."""
    if isinstance(value, dict):
        return {key: normal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [normal(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, str) and value.endswith(".000Z"):
        return value[:-5] + "Z"
    return value


def ask(**question):
    print(json.dumps(question), flush=True)
    answer = json.loads(sys.stdin.readline())
    if "error" in answer:
        raise SystemExit(f"{question}: {answer['error']}")
    return answer


def differ(call, direction, expected, found):
    raise SystemExit(f"{call}, {direction}:\n{json.dumps(expected, sort_keys=True)}\n{json.dumps(found, sort_keys=True)}")


def main(service, rounds, seed):
    random.seed(int(seed))
    service = NAMES.get(service, service)
    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    protocol = model.metadata["protocol"]
    serializer = botocore.serialize.create_serializer(protocol, include_validation=False)
    parser = botocore.parsers.create_parser(protocol)
    counts = collections.Counter()
    for name in model.operation_names:
        operation = model.operation_model(name)
        for _ in range(int(rounds)):
            counts["calls"] += 1
            given = value(operation.input_shape) if operation.input_shape else {}
            if protocol == "json":
                given = whole(given)
            body = serializer.serialize_to_request(given, operation)["body"]
            body = body.decode() if isinstance(body, bytes) else urlencode(body)
            expected = normal(pruned(plain(given, operation.input_shape))) if operation.input_shape else {}
            found = normal(pruned(ask(call=name, body=body)["input"]))
            if found != expected:
                differ(name, body, expected, found)
            shape = operation.output_shape
            output = value(shape) if shape else {}
            expected = plain(output, shape) if shape else {}
            answer = ask(call=name, output=expected)["answer"]
            headers = {"x-amzn-requestid": "the-request"} if protocol == "json" else {}
            response = {"status_code": 200, "headers": headers, "body": answer.encode()}
            parsed = parser.parse(response, shape)
            found = normal(pruned(plain(parsed, shape))) if shape else {}
            if found != normal(pruned(expected)):
                differ(name, answer, expected, found)
            if parsed["ResponseMetadata"].get("RequestId") != "the-request":
                differ(name, "request id", "the-request", parsed["ResponseMetadata"])
    print(json.dumps({"done": counts["calls"], "operations": len(model.operation_names)}), flush=True)


main(*sys.argv[1:])
