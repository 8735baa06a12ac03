"""How long requests take. usage: timing.py ENDPOINT REGION KEY SECRET RUNS FORM...

For each form it prints a line of JSON: the milliseconds of each run, and how many instances the last answer has. One run before
them does not count. Requests are signed before the clock starts, and answers are read to their end and not parsed."""

import http.client
import json
import sys
import time
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

endpoint, region, key, secret, runs, *forms = sys.argv[1:]
address = urlsplit(endpoint)
connection = http.client.HTTPConnection(address.hostname, address.port, timeout=600)
for form in forms:
    took = []
    for _ in range(int(runs) + 1):
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        request = AWSRequest("POST", endpoint + "/", data=form.encode(), headers=headers)
        SigV4Auth(Credentials(key, secret), "ec2", region).add_auth(request)
        began = time.perf_counter()
        connection.request("POST", "/", form, dict(request.headers.items()))
        response = connection.getresponse()
        body = response.read()
        took.append((time.perf_counter() - began) * 1000)
        # A dry run is refused.
        assert response.status in (200, 412), (response.status, body[:1000])
    print(json.dumps({"took": took[1:], "instances": body.count(b"<instanceId>")}))
