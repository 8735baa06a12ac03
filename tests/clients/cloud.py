"""What scripts have in common that call the cloud of a test by AWS's clients."""

import configparser
import os
import re


def owner(credentials):
    """The access key of the cloud's owner, in a file as `~/.aws/credentials`, and its secret."""
    profile = configparser.ConfigParser()
    profile.read(credentials)
    profile = profile["default"]
    return profile["aws_access_key_id"], profile["aws_secret_access_key"]


def environment(endpoint, region, credentials):
    """What clients find in their environment; nothing is read of whoever runs the tests."""
    access, secret = owner(credentials)
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
    }


class Cloud:
    """botocore's clients of a cloud. What they send is not looked at before: refusing is the cloud's."""

    def __init__(self, endpoint, region, key):
        import botocore.session

        self.endpoint, self.region, self.key = endpoint, region, key
        # One: it keeps the models that it has read.
        self.session = botocore.session.Session()

    def client(self, service, key=None, region=None, parameter_validation=False, **more):
        """`key`: an access key's id, its secret, and the token of a session."""
        from botocore.config import Config

        access, secret, token = (*(key or self.key), None)[:3]
        # One attempt: a refusal is looked at, not repeated.
        config = Config(retries={"total_max_attempts": 1}, parameter_validation=parameter_validation)
        return self.session.create_client(
            service,
            region or self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=config,
            **more,
        )


def waits(ec2):
    """Waits by botocore's own waiters, more often; for what `ec2` has, or another client."""

    def wait(name, ec2=ec2, **parameters):
        ec2.get_waiter(name).wait(WaiterConfig={"Delay": 0.1, "MaxAttempts": 300}, **parameters)

    return wait


def refused(code, status, call, **parameters):
    """The sentence of a refusal. `code` is a regular expression; `status` is the HTTP status, or several of them, None any."""
    from botocore.exceptions import ClientError

    try:
        answer = call(**parameters)
    except ClientError as error:
        found = error.response
        assert re.fullmatch(code, found["Error"]["Code"]), (code, parameters, found)
        admitted = status if isinstance(status, tuple) else (status,)
        assert status is None or found["ResponseMetadata"]["HTTPStatusCode"] in admitted, (status, parameters, found)
        assert found["Error"]["Message"] and len(found["ResponseMetadata"]["RequestId"]) == 36, found
        return found["Error"]["Message"]
    raise AssertionError(f"{parameters} is not refused with {code}: {answer}")
