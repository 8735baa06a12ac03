"""Keys of KMS, their life, and what is refused, as botocore has them.
usage: kms.py ENDPOINT REGION CREDENTIALS AMI OTHER-REGION TENANT-KEY-ID TENANT-SECRET"""

import datetime
import json
import re
import sys

import cloud

endpoint, region, path, image, far_region, *TENANT = sys.argv[1:]
ROOT = cloud.owner(path)
client = cloud.Cloud(endpoint, region, ROOT).client
kms, far, tenant, ec2, iam = client("kms"), client("kms", region=far_region), client("kms", TENANT), client("ec2"), client("iam")
account = client("sts").get_caller_identity()["Account"]
refusals = 0


def refused(code, call, **parameters):
    global refusals
    refusals += 1
    return cloud.refused(code, 400, call, **parameters)


def told(id, kms=kms):
    return kms.describe_key(KeyId=id)["KeyMetadata"]


# A key, by all of its names.
assert kms.list_keys()["Keys"] == [] and kms.list_aliases()["Aliases"] == []
key = kms.create_key(Description="of tests", Tags=[{"TagKey": "team", "TagValue": "a"}])["KeyMetadata"]
id, arn = key["KeyId"], key["Arn"]
assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", id), id
assert arn == f"arn:aws:kms:{region}:{account}:key/{id}", arn
expected = {
    "AWSAccountId": account, "Enabled": True, "Description": "of tests", "KeyUsage": "ENCRYPT_DECRYPT", "KeyState": "Enabled",
    "Origin": "AWS_KMS", "KeyManager": "CUSTOMER", "KeySpec": "SYMMETRIC_DEFAULT", "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
    "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"], "MultiRegion": False,
}
assert {name: key[name] for name in expected} == expected and "DeletionDate" not in key, key
kms.create_alias(AliasName="alias/mine", TargetKeyId=id)
for name in (id, arn, "alias/mine", f"arn:aws:kms:{region}:{account}:alias/mine"):
    assert told(name) == key, name
other = kms.create_key(KeySpec="SYMMETRIC_DEFAULT", KeyUsage="ENCRYPT_DECRYPT", Origin="AWS_KMS", MultiRegion=False)["KeyMetadata"]["KeyId"]
assert {one["KeyId"]: one["KeyArn"] for one in kms.list_keys()["Keys"]}[id] == arn
pages = kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 1})
assert sorted(one["KeyId"] for page in pages for one in page["Keys"]) == sorted([id, other])

# Names.
kms.create_alias(AliasName="alias/more/x_-1", TargetKeyId=arn)
assert [one["AliasName"] for one in kms.list_aliases(KeyId=id)["Aliases"]] == ["alias/mine", "alias/more/x_-1"]
pages = kms.get_paginator("list_aliases").paginate(PaginationConfig={"PageSize": 1})
assert {one["AliasName"]: one["TargetKeyId"] for page in pages for one in page["Aliases"]} == {"alias/mine": id, "alias/more/x_-1": id}
kms.update_alias(AliasName="alias/more/x_-1", TargetKeyId=other)
assert told("alias/more/x_-1")["KeyId"] == other and kms.list_aliases(KeyId=other)["Aliases"][0]["AliasArn"].endswith(":alias/more/x_-1")
kms.delete_alias(AliasName="alias/more/x_-1")
refused("NotFoundException", kms.describe_key, KeyId="alias/more/x_-1")

# Descriptions and tags, which are not EC2's.
kms.update_key_description(KeyId=id, Description="")
assert told(id)["Description"] == ""
kms.tag_resource(KeyId=id, Tags=[{"TagKey": "team", "TagValue": "b"}, {"TagKey": "k", "TagValue": ""}])
assert kms.list_resource_tags(KeyId=id)["Tags"] == [{"TagKey": "k", "TagValue": ""}, {"TagKey": "team", "TagValue": "b"}]
kms.untag_resource(KeyId=id, TagKeys=["team", "nothing"])
assert kms.list_resource_tags(KeyId=arn) ["Tags"] == [{"TagKey": "k", "TagValue": ""}]
assert ec2.describe_tags()["Tags"] == []

# Rotation.
status = lambda: kms.get_key_rotation_status(KeyId=id)
assert status()["KeyRotationEnabled"] is False and "NextRotationDate" not in status()
kms.enable_key_rotation(KeyId=id, RotationPeriodInDays=90)
now = datetime.datetime.now(datetime.timezone.utc)
assert status()["KeyRotationEnabled"] is True and status()["RotationPeriodInDays"] == 90
assert datetime.timedelta(days=89) < status()["NextRotationDate"] - now < datetime.timedelta(days=91)
kms.enable_key_rotation(KeyId=id)
assert status()["RotationPeriodInDays"] == 365
kms.disable_key_rotation(KeyId=id)
assert status()["KeyRotationEnabled"] is False
for _ in range(25):
    assert kms.rotate_key_on_demand(KeyId=other)["KeyId"].endswith(other)
refused("LimitExceededException", kms.rotate_key_on_demand, KeyId=other)

# Disabled, enabled, to be deleted, and not.
kms.disable_key(KeyId=id)
kms.disable_key(KeyId=id)
assert (told(id)["KeyState"], told(id)["Enabled"]) == ("Disabled", False)
refused("DisabledException", kms.rotate_key_on_demand, KeyId=id)
refused("DisabledException", kms.enable_key_rotation, KeyId=id)
kms.enable_key(KeyId=id)
assert told(id)["Enabled"] is True
answer = kms.schedule_key_deletion(KeyId=id, PendingWindowInDays=7)
assert (answer["KeyId"], answer["KeyState"], answer["PendingWindowInDays"]) == (arn, "PendingDeletion", 7), answer
assert datetime.timedelta(days=6) < answer["DeletionDate"] - now < datetime.timedelta(days=8)
assert told(id)["KeyState"] == "PendingDeletion" and told(id)["DeletionDate"] == answer["DeletionDate"]
for call, parameters in [
    (kms.enable_key, {}), (kms.disable_key, {}), (kms.schedule_key_deletion, {}), (kms.update_key_description, {"Description": "x"}),
    (kms.tag_resource, {"Tags": [{"TagKey": "a", "TagValue": "b"}]}), (kms.untag_resource, {"TagKeys": ["a"]}),
    (kms.enable_key_rotation, {}), (kms.disable_key_rotation, {}), (kms.rotate_key_on_demand, {}), (kms.get_key_rotation_status, {}),
]:
    refused("KMSInvalidStateException", call, KeyId=id, **parameters)
refused("KMSInvalidStateException", kms.create_alias, AliasName="alias/late", TargetKeyId=id)
assert kms.cancel_key_deletion(KeyId=id)["KeyId"] == arn
assert told(id)["KeyState"] == "Disabled" and "DeletionDate" not in told(id)
refused("KMSInvalidStateException", kms.cancel_key_deletion, KeyId=id)
kms.enable_key(KeyId=id)

# What is refused, and keys of others.
nobody = "01234567-89ab-4def-8123-456789abcdef"
for code, call, parameters in [
    ("UnsupportedOperationException", kms.create_key, dict(KeySpec="RSA_2048")),
    ("UnsupportedOperationException", kms.create_key, dict(CustomerMasterKeySpec="ECC_NIST_P256")),
    ("UnsupportedOperationException", kms.create_key, dict(KeyUsage="SIGN_VERIFY")),
    ("UnsupportedOperationException", kms.create_key, dict(Origin="EXTERNAL")),
    ("UnsupportedOperationException", kms.create_key, dict(MultiRegion=True)),
    ("MalformedPolicyDocumentException", kms.create_key, dict(Policy="{}")),
    ("ValidationException", kms.create_key, dict(CustomKeyStoreId="cks-1")),
    ("TagException", kms.create_key, dict(Tags=[{"TagKey": "aws:x", "TagValue": ""}])),
    ("TagException", kms.create_key, dict(Tags=[{"TagKey": "x", "TagValue": ""}] * 2)),
    ("TagException", kms.create_key, dict(Tags=[{"TagKey": f"k{n}", "TagValue": ""} for n in range(51)])),
    ("NotFoundException", kms.describe_key, dict(KeyId=nobody)),
    ("NotFoundException", kms.describe_key, dict(KeyId="x")),
    ("NotFoundException", kms.describe_key, dict(KeyId=arn.replace(region, far_region))),
    ("NotFoundException", kms.disable_key, dict(KeyId="alias/mine")),
    ("ValidationException", kms.schedule_key_deletion, dict(KeyId=id, PendingWindowInDays=6)),
    ("ValidationException", kms.schedule_key_deletion, dict(KeyId=id, PendingWindowInDays=31)),
    ("ValidationException", kms.enable_key_rotation, dict(KeyId=id, RotationPeriodInDays=89)),
    ("AlreadyExistsException", kms.create_alias, dict(AliasName="alias/mine", TargetKeyId=other)),
    ("InvalidAliasNameException", kms.create_alias, dict(AliasName="mine", TargetKeyId=other)),
    ("InvalidAliasNameException", kms.create_alias, dict(AliasName="alias/", TargetKeyId=other)),
    ("InvalidAliasNameException", kms.create_alias, dict(AliasName="alias/a b", TargetKeyId=other)),
    ("NotAuthorizedException", kms.create_alias, dict(AliasName="alias/aws/mine", TargetKeyId=other)),
    ("NotAuthorizedException", kms.delete_alias, dict(AliasName="alias/aws/ebs")),
    ("NotFoundException", kms.create_alias, dict(AliasName="alias/new", TargetKeyId=nobody)),
    ("NotFoundException", kms.update_alias, dict(AliasName="alias/new", TargetKeyId=other)),
    ("NotFoundException", kms.delete_alias, dict(AliasName="alias/new")),
    ("ValidationException", kms.list_keys, dict(Limit=0)),
    ("ValidationException", kms.list_keys, dict(Limit=1001)),
    ("InvalidMarkerException", kms.list_keys, dict(Marker="!")),
    ("UnknownOperationException", kms.sign, dict(KeyId=id, Message=b"x", SigningAlgorithm="ECDSA_SHA_256")),
    ("NotFoundException", far.describe_key, dict(KeyId=id)),
    ("NotFoundException", far.disable_key, dict(KeyId=id)),
    ("NotFoundException", tenant.describe_key, dict(KeyId=id)),
    ("AccessDeniedException", tenant.describe_key, dict(KeyId=arn)),
    ("AccessDeniedException", tenant.describe_key, dict(KeyId=arn.replace(id, nobody))),
    ("AccessDeniedException", tenant.schedule_key_deletion, dict(KeyId=arn)),
    ("NotFoundException", tenant.describe_key, dict(KeyId="alias/mine")),
]:
    refused(code, call, **parameters)
assert far.list_keys()["Keys"] == [] and tenant.list_keys()["Keys"] == [] and tenant.list_aliases()["Aliases"] == []

# The key that the cloud makes, when it is needed.
assert ec2.get_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
ec2.create_volume(AvailabilityZone=f"{region}a", Size=1, Encrypted=True)
managed = told("alias/aws/ebs")
assert told("alias/aws/ebs", far)["Arn"].startswith(f"arn:aws:kms:{far_region}:"), "made when it is first asked for"
assert managed["KeyManager"] == "AWS" and ec2.get_ebs_default_kms_key_id()["KmsKeyId"] == managed["Arn"]
assert kms.get_key_rotation_status(KeyId=managed["KeyId"])["KeyRotationEnabled"] is True
for call, parameters in [
    (kms.disable_key, {}), (kms.schedule_key_deletion, {}), (kms.rotate_key_on_demand, {}), (kms.disable_key_rotation, {}),
    (kms.tag_resource, {"Tags": [{"TagKey": "a", "TagValue": "b"}]}), (kms.update_key_description, {"Description": "x"}),
]:
    refused("AccessDeniedException", call, KeyId=managed["KeyId"], **parameters)

# Policies name keys by their ARNs, and tags.
iam.create_user(UserName="keeper")
access = iam.create_access_key(UserName="keeper")["AccessKey"]
access = access["AccessKeyId"], access["SecretAccessKey"]
keeper, volumes = client("kms", access), client("ec2", access)
refused("AccessDeniedException", keeper.list_keys)
statements = [
    {"Effect": "Allow", "Action": ["kms:DescribeKey", "kms:CreateAlias", "kms:GenerateDataKeyWithoutPlaintext"], "Resource": [arn, arn.replace(f"key/{id}", "alias/theirs")]},
    {"Effect": "Allow", "Action": "ec2:CreateVolume", "Resource": "*"},
    {"Effect": "Allow", "Action": "kms:DisableKey", "Resource": "*", "Condition": {"StringEquals": {"aws:ResourceTag/k": "loose"}}},
]
iam.put_user_policy(UserName="keeper", PolicyName="keys", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}))
assert told("alias/mine", keeper)["KeyId"] == id
refused("AccessDeniedException", keeper.describe_key, KeyId=other)
refused("AccessDeniedException", keeper.disable_key, KeyId=id)
keeper.create_alias(AliasName="alias/theirs", TargetKeyId=id)
refused("AccessDeniedException", keeper.create_alias, AliasName="alias/others", TargetKeyId=id)
refused("AccessDeniedException", keeper.delete_alias, AliasName="alias/theirs")
refused("AccessDeniedException", keeper.create_key)
make = dict(AvailabilityZone=f"{region}a", Size=1)
assert volumes.create_volume(Encrypted=True, KmsKeyId="alias/theirs", **make)["KmsKeyId"] == arn
assert volumes.create_volume(Encrypted=True, **make)["KmsKeyId"] == managed["Arn"]
cloud.refused("UnauthorizedOperation", 403, volumes.create_volume, Encrypted=True, KmsKeyId=other, **make)
ec2.modify_ebs_default_kms_key_id(KmsKeyId=other)
assert not volumes.create_volume(**make)["Encrypted"], "what is plain needs no right to a key"
cloud.refused("UnauthorizedOperation", 403, volumes.create_volume, Encrypted=True, **make)
kms.tag_resource(KeyId=id, Tags=[{"TagKey": "k", "TagValue": "loose"}])
keeper.disable_key(KeyId=id)
kms.enable_key(KeyId=id)

# What a key encrypts, its pairs given again decrypt, whatever becomes of its material.
pairs = {"team": "a", "of": "ä"}
answer = kms.encrypt(KeyId="alias/mine", Plaintext=b"plain", EncryptionContext=pairs)
blob = answer["CiphertextBlob"]
assert (answer["KeyId"], answer["EncryptionAlgorithm"]) == (arn, "SYMMETRIC_DEFAULT") and b"plain" not in blob, answer
assert blob != kms.encrypt(KeyId=id, Plaintext=b"plain", EncryptionContext=pairs)["CiphertextBlob"]
kms.rotate_key_on_demand(KeyId=id)
for name in ({}, {"KeyId": id}, {"KeyId": arn}, {"KeyId": "alias/mine"}):
    answer = kms.decrypt(CiphertextBlob=blob, EncryptionContext=pairs, EncryptionAlgorithm="SYMMETRIC_DEFAULT", **name)
    assert (answer["Plaintext"], answer["KeyId"]) == (b"plain", arn), answer
largest = kms.encrypt(KeyId=id, Plaintext=b"x" * 4096)["CiphertextBlob"]
assert kms.decrypt(CiphertextBlob=largest)["Plaintext"] == b"x" * 4096 and len(largest) <= 6144
moved = kms.re_encrypt(CiphertextBlob=blob, SourceEncryptionContext=pairs, DestinationKeyId=other)
assert (moved["SourceKeyId"], moved["KeyId"][-36:]) == (arn, other), moved
assert kms.decrypt(CiphertextBlob=moved["CiphertextBlob"])["Plaintext"] == b"plain"
for length, asked in [(32, dict(KeySpec="AES_256")), (16, dict(KeySpec="AES_128")), (1024, dict(NumberOfBytes=1024))]:
    made = kms.generate_data_key(KeyId=id, EncryptionContext=pairs, **asked)
    assert len(made["Plaintext"]) == length and made["KeyId"] == arn
    assert kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=pairs)["Plaintext"] == made["Plaintext"]
    made = kms.generate_data_key_without_plaintext(KeyId=id, **asked)
    assert "Plaintext" not in made and len(kms.decrypt(CiphertextBlob=made["CiphertextBlob"])["Plaintext"]) == length
assert len(kms.generate_random(NumberOfBytes=7)["Plaintext"]) == 7
damaged = blob[:-1] + bytes([blob[-1] ^ 1])
for code, call, parameters in [
    ("InvalidCiphertextException", kms.decrypt, dict(CiphertextBlob=blob)),
    ("InvalidCiphertextException", kms.decrypt, dict(CiphertextBlob=blob, EncryptionContext={"team": "a"})),
    ("InvalidCiphertextException", kms.decrypt, dict(CiphertextBlob=damaged, EncryptionContext=pairs)),
    ("InvalidCiphertextException", kms.decrypt, dict(CiphertextBlob=b"x")),
    ("InvalidCiphertextException", far.decrypt, dict(CiphertextBlob=blob, EncryptionContext=pairs)),
    ("IncorrectKeyException", kms.decrypt, dict(CiphertextBlob=blob, EncryptionContext=pairs, KeyId=other)),
    ("NotFoundException", kms.decrypt, dict(CiphertextBlob=blob, EncryptionContext=pairs, KeyId=nobody)),
    ("NotFoundException", kms.encrypt, dict(KeyId=nobody, Plaintext=b"x")),
    ("NotFoundException", kms.re_encrypt, dict(CiphertextBlob=blob, SourceEncryptionContext=pairs, DestinationKeyId=nobody)),
    ("ValidationException", kms.encrypt, dict(KeyId=id, Plaintext=b"x" * 4097)),
    ("ValidationException", kms.encrypt, dict(KeyId=id, Plaintext=b"x", EncryptionContext={f"{n}": "v" * 2048 for n in range(5)})),
    ("ValidationException", kms.encrypt, dict(KeyId=id, Plaintext=b"x", EncryptionAlgorithm="RSAES_OAEP_SHA_1")),
    ("ValidationException", kms.generate_data_key, dict(KeyId=id)),
    ("ValidationException", kms.generate_data_key, dict(KeyId=id, KeySpec="AES_256", NumberOfBytes=32)),
    ("ValidationException", kms.generate_data_key, dict(KeyId=id, NumberOfBytes=1025)),
    ("ValidationException", kms.generate_random, dict(NumberOfBytes=0)),
    ("ValidationException", kms.generate_random, dict()),
    ("AccessDeniedException", kms.encrypt, dict(KeyId=managed["KeyId"], Plaintext=b"x")),
    ("AccessDeniedException", tenant.decrypt, dict(CiphertextBlob=blob, EncryptionContext=pairs)),
    ("AccessDeniedException", keeper.decrypt, dict(CiphertextBlob=blob, EncryptionContext=pairs)),
    ("AccessDeniedException", keeper.generate_random, dict(NumberOfBytes=1)),
]:
    refused(code, call, **parameters)
kms.disable_key(KeyId=id)
refused("DisabledException", kms.encrypt, KeyId=id, Plaintext=b"x")
refused("DisabledException", kms.decrypt, CiphertextBlob=blob, EncryptionContext=pairs)
refused("DisabledException", kms.re_encrypt, CiphertextBlob=moved["CiphertextBlob"], DestinationKeyId=id)
kms.enable_key(KeyId=id)

# A key's policy says who may use it, and leaves to IAM's what it gives to the account.
policy = lambda *statements: json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
let = lambda whom, *actions, **more: {"Effect": "Allow", "Principal": {"AWS": whom}, "Action": [f"kms:{one}" for one in actions], "Resource": "*", **more}
put = lambda *statements, **more: kms.put_key_policy(KeyId=id, Policy=policy(*statements), **more)
root, user = f"arn:aws:iam::{account}:root", f"arn:aws:iam::{account}:user/keeper"
usual = kms.get_key_policy(KeyId=id, PolicyName="default")
assert usual["PolicyName"] == "default" and json.loads(usual["Policy"])["Statement"][0]["Principal"] == {"AWS": root}, usual
assert kms.list_key_policies(KeyId=id)["PolicyNames"] == ["default"]
assert "ec2." in kms.get_key_policy(KeyId=managed["KeyId"])["Policy"]
put(let(root, "*"), let(user, "Encrypt", "Decrypt", Condition={"StringEquals": {"kms:EncryptionContext:team": "a"}}))
assert keeper.decrypt(CiphertextBlob=blob, EncryptionContext=pairs)["Plaintext"] == b"plain", "whom a policy names needs none of its own"
refused("AccessDeniedException", keeper.encrypt, KeyId=id, Plaintext=b"x", EncryptionContext={"team": "b"})
refused("AccessDeniedException", keeper.get_key_policy, KeyId=id)
iam.put_user_policy(UserName="keeper", PolicyName="denies", PolicyDocument=policy({"Effect": "Deny", "Action": "kms:Decrypt", "Resource": "*"}))
refused("AccessDeniedException", keeper.decrypt, CiphertextBlob=blob, EncryptionContext=pairs)
iam.delete_user_policy(UserName="keeper", PolicyName="denies")
for document in (policy(let(user, "*")), policy(let(root, "Encrypt", "DescribeKey"))):
    assert "will not allow you" in refused("MalformedPolicyDocumentException", kms.put_key_policy, KeyId=id, Policy=document)
    refused("MalformedPolicyDocumentException", kms.create_key, Policy=document)
for document in ("x", "{}", policy({"Effect": "Allow", "Action": "kms:*", "Resource": "*"}), policy(let("*", "*") | {"Resource": []})):
    refused("MalformedPolicyDocumentException", kms.put_key_policy, KeyId=id, Policy=document)
refused("NotFoundException", kms.put_key_policy, KeyId=id, Policy=policy(let(root, "*")), PolicyName="other")
refused("AccessDeniedException", kms.put_key_policy, KeyId=managed["KeyId"], Policy=policy(let(root, "*")))
# The root user has no more rights than the policy gives to it.
put(let(root, "PutKeyPolicy"), let(user, "PutKeyPolicy", "Encrypt"))
refused("AccessDeniedException", kms.encrypt, KeyId=id, Plaintext=b"x")
cloud.refused("UnauthorizedOperation", 403, ec2.create_volume, Encrypted=True, KmsKeyId=id, **make)
keeper.encrypt(KeyId=id, Plaintext=b"x")
put(let(user, "PutKeyPolicy"), BypassPolicyLockoutSafetyCheck=True)
refused("AccessDeniedException", kms.put_key_policy, KeyId=id, Policy=policy(let(root, "*")))
keeper.put_key_policy(KeyId=id, Policy=policy(let(user, "PutKeyPolicy"), let(root, "*")))
own = kms.create_key(Policy=policy(let(root, "*"), let(user, "DescribeKey")))["KeyMetadata"]["KeyId"]
assert told(own, keeper)["KeyId"] == own

# Another account is let in by the policy, and its users by that and by their own.
tenant_account = client("sts", TENANT).get_caller_identity()["Account"]
tenant_iam = client("iam", TENANT)
tenant_iam.create_user(UserName="guest")
access = tenant_iam.create_access_key(UserName="guest")["AccessKey"]
guest = client("kms", (access["AccessKeyId"], access["SecretAccessKey"]))
put(let(root, "*"), let(tenant_account, "Encrypt", "Decrypt", "DescribeKey", "GenerateDataKey*", "PutKeyPolicy"))
assert told(arn, tenant)["AWSAccountId"] == account
refused("NotFoundException", tenant.encrypt, KeyId=id, Plaintext=b"x")
theirs = tenant.encrypt(KeyId=arn, Plaintext=b"theirs")["CiphertextBlob"]
assert kms.decrypt(CiphertextBlob=theirs)["Plaintext"] == tenant.decrypt(CiphertextBlob=theirs)["Plaintext"] == b"theirs"
refused("AccessDeniedException", tenant.disable_key, KeyId=arn)
refused("AccessDeniedException", tenant.put_key_policy, KeyId=arn, Policy=policy(let(root, "*")))
refused("AccessDeniedException", guest.decrypt, CiphertextBlob=theirs)
tenant_iam.put_user_policy(UserName="guest", PolicyName="key", PolicyDocument=policy({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": arn}))
assert guest.decrypt(CiphertextBlob=theirs)["Plaintext"] == b"theirs"
refused("AccessDeniedException", guest.encrypt, KeyId=arn, Plaintext=b"x")
put(let(root, "*"))
refused("AccessDeniedException", guest.decrypt, CiphertextBlob=theirs)

# Grants let somebody in beside the policy, within what they say of the encryption context.
bound = {"EncryptionContextSubset": {"team": "a"}}
asked = dict(KeyId=arn, GranteePrincipal=user, Operations=["Encrypt", "Decrypt", "RetireGrant"], Constraints=bound, Name="of-keeper")
answer = kms.create_grant(**asked)
grant = answer["GrantId"]
assert re.fullmatch("[0-9a-f]{64}", grant) and kms.create_grant(**asked)["GrantId"] == grant, "the same again is the same"
[listed] = kms.list_grants(KeyId=id)["Grants"]
assert listed["GranteePrincipal"] == user and listed["Operations"] == ["Decrypt", "Encrypt", "RetireGrant"] and listed["KeyId"] == arn, listed
assert listed["IssuingAccount"] == root and listed["Constraints"]["EncryptionContextSubset"] == {"team": "a"}, listed
assert keeper.decrypt(CiphertextBlob=blob, EncryptionContext=pairs)["Plaintext"] == b"plain"
refused("AccessDeniedException", keeper.encrypt, KeyId=id, Plaintext=b"x")
refused("AccessDeniedException", keeper.generate_data_key, KeyId=id, KeySpec="AES_256", EncryptionContext=pairs)
exact = kms.create_grant(KeyId=id, GranteePrincipal=user, Operations=["Encrypt"], Constraints={"EncryptionContextEquals": {"x": "1"}})["GrantId"]
keeper.encrypt(KeyId=id, Plaintext=b"x", EncryptionContext={"x": "1"})
refused("AccessDeniedException", keeper.encrypt, KeyId=id, Plaintext=b"x", EncryptionContext={"x": "1", "y": "2"})
assert len(kms.list_grants(KeyId=id, GrantId=exact)["Grants"]) == 1 and kms.list_grants(KeyId=id, GranteePrincipal=root)["Grants"] == []
pages = kms.get_paginator("list_grants").paginate(KeyId=id, PaginationConfig={"PageSize": 1})
assert sorted(one["GrantId"] for page in pages for one in page["Grants"]) == sorted([grant, exact])
kms.revoke_grant(KeyId=id, GrantId=exact)
refused("AccessDeniedException", keeper.encrypt, KeyId=id, Plaintext=b"x", EncryptionContext={"x": "1"})
keeper.retire_grant(GrantToken=answer["GrantToken"])
refused("AccessDeniedException", keeper.decrypt, CiphertextBlob=blob, EncryptionContext=pairs)
# Of another account, which may make no grants itself.
tenant_root = f"arn:aws:iam::{tenant_account}:root"
lent = dict(KeyId=id, GranteePrincipal=tenant_root, RetiringPrincipal=tenant_root, Operations=["Decrypt", "CreateGrant"])
grant = kms.create_grant(**lent)["GrantId"]
assert tenant.decrypt(CiphertextBlob=theirs)["Plaintext"] == guest.decrypt(CiphertextBlob=theirs)["Plaintext"] == b"theirs"
lend = dict(KeyId=arn, GranteePrincipal=tenant_root, Operations=["Encrypt"])
refused("AccessDeniedException", tenant.create_grant, **lend)
refused("AccessDeniedException", guest.retire_grant, KeyId=arn, GrantId=grant)
assert [one["GrantId"] for one in tenant.list_retirable_grants(RetiringPrincipal=tenant_root)["Grants"]] == [grant]
refused("AccessDeniedException", kms.list_retirable_grants, RetiringPrincipal=tenant_root)
tenant.retire_grant(KeyId=arn, GrantId=grant)
# Unless the policy lets it.
put(let(root, "*"), let(tenant_root, "CreateGrant", "RevokeGrant", "ListGrants"))
lent = tenant.create_grant(**lend)["GrantId"]
assert [one["GrantId"] for one in tenant.list_grants(KeyId=arn)["Grants"]] == [lent]
tenant.encrypt(KeyId=arn, Plaintext=b"x")
tenant.revoke_grant(KeyId=arn, GrantId=lent)
refused("AccessDeniedException", tenant.encrypt, KeyId=arn, Plaintext=b"x")
put(let(root, "*"))
refused("AccessDeniedException", tenant.decrypt, CiphertextBlob=theirs)
for code, call, parameters in [
    ("ValidationException", kms.create_grant, asked | dict(Operations=["Sign"])),
    ("ValidationException", kms.create_grant, asked | dict(Operations=[])),
    ("ValidationException", kms.create_grant, asked | dict(GranteePrincipal="")),
    ("ValidationException", kms.create_grant, asked | dict(Name="a b")),
    ("InvalidArnException", kms.create_grant, asked | dict(GranteePrincipal="keeper")),
    ("InvalidArnException", kms.create_grant, asked | dict(GranteePrincipal="*")),
    ("InvalidArnException", kms.create_grant, asked | dict(GranteePrincipal=account)),
    ("ValidationException", kms.create_grant, asked | dict(Constraints=bound | {"EncryptionContextEquals": {"a": "b"}})),
    ("InvalidArnException", kms.create_grant, asked | dict(RetiringPrincipal=arn)),
    ("NotFoundException", kms.create_grant, asked | dict(KeyId=nobody)),
    ("AccessDeniedException", kms.create_grant, asked | dict(KeyId=managed["KeyId"])),
    ("NotFoundException", kms.revoke_grant, dict(KeyId=id, GrantId=grant)),
    ("NotFoundException", kms.retire_grant, dict(KeyId=arn, GrantId=grant)),
    ("InvalidGrantTokenException", kms.retire_grant, dict(GrantToken="x")),
    ("ValidationException", kms.retire_grant, dict()),
]:
    refused(code, call, **parameters)
print("FIGURE refusals", refusals)
print("done")
