"""VPCs, subnets, internet gateways and route tables, and what is refused, as botocore has them.
usage: vpcs.py ENDPOINT REGION CREDENTIALS AMI OTHER-REGION TENANT-KEY-ID TENANT-SECRET"""

import json
import sys

import cloud

endpoint, region, path, image, far_region, *TENANT = sys.argv[1:]
client = cloud.Cloud(endpoint, region, cloud.owner(path)).client
ec2, tenant, far, iam = client("ec2"), client("ec2", TENANT), client("ec2", region=far_region), client("iam")
account = client("sts").get_caller_identity()["Account"]


def refused(code, call, **parameters):
    return cloud.refused(code, 400, call, **parameters)


def tags(kind, name):
    return [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": name}]}]


def by(name, *values):
    return [{"Name": name, "Values": list(values)}]


def table(id):
    return ec2.describe_route_tables(RouteTableIds=[id])["RouteTables"][0]


def routes(id):
    return {(one["DestinationCidrBlock"], one["GatewayId"], one["State"]) for one in table(id)["Routes"]}


# The default VPC leads to the internet.
[default] = ec2.describe_vpcs(Filters=by("is-default", "true"))["Vpcs"]
[its] = ec2.describe_route_tables(Filters=by("vpc-id", default["VpcId"]))["RouteTables"]
[way] = ec2.describe_internet_gateways(Filters=by("attachment.vpc-id", default["VpcId"]))["InternetGateways"]
assert way["Attachments"] == [{"State": "available", "VpcId": default["VpcId"]}], way
assert [one["Main"] for one in its["Associations"]] == [True], its
assert routes(its["RouteTableId"]) == {
    ("172.31.0.0/16", "local", "active"),
    ("0.0.0.0/0", way["InternetGatewayId"], "active"),
}, its
refused("DefaultVpcAlreadyExists", ec2.create_default_vpc)

# Another one, whose addresses are the same.
cloud.refused("DryRunOperation", 412, ec2.create_vpc, CidrBlock="172.31.0.0/16", DryRun=True)
vpc = ec2.create_vpc(CidrBlock="172.31.7.9/16", TagSpecifications=tags("vpc", "lab"))["Vpc"]
id = vpc["VpcId"]
assert (vpc["CidrBlock"], vpc["IsDefault"], vpc["State"]) == ("172.31.0.0/16", False, "available"), vpc
assert vpc["Tags"] == [{"Key": "Name", "Value": "lab"}] and vpc["OwnerId"] == account, vpc
assert ec2.describe_vpcs(Filters=by("tag:Name", "lab"))["Vpcs"] == [vpc]
for code, block in [
    ("InvalidVpc.Range", "10.0.0.0/15"),
    ("InvalidVpc.Range", "10.0.0.0/29"),
    ("InvalidVpc.Range", "198.18.0.0/16"),
    ("InvalidVpc.Range", "127.0.0.0/16"),
    ("InvalidParameterValue", "1000.1.0.0/16"),
    ("InvalidParameterValue", "10.0.0.0"),
    ("MissingParameter", ""),
]:
    refused(code, ec2.create_vpc, CidrBlock=block)
refused("InvalidParameterValue", ec2.create_vpc, CidrBlock="10.0.0.0/16", InstanceTenancy="dedicated")
refused("InvalidParameterValue", ec2.create_vpc, CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)
[group] = ec2.describe_security_groups(Filters=by("vpc-id", id))["SecurityGroups"]
assert group["GroupName"] == "default", group
[inward], [outward] = group["IpPermissions"], group["IpPermissionsEgress"]
assert [one["GroupId"] for one in inward["UserIdGroupPairs"]] == [group["GroupId"]], inward
assert outward["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}] and outward["IpProtocol"] == "-1", outward


def attribute(name):
    told = ec2.describe_vpc_attribute(VpcId=id, Attribute=name)
    return told[name[0].upper() + name[1:]]["Value"]


assert (attribute("enableDnsSupport"), attribute("enableDnsHostnames")) == (True, False)
ec2.modify_vpc_attribute(VpcId=id, EnableDnsHostnames={"Value": True})
ec2.modify_vpc_attribute(VpcId=id, EnableDnsSupport={"Value": False})
assert (attribute("enableDnsSupport"), attribute("enableDnsHostnames")) == (False, True)
ec2.modify_vpc_attribute(VpcId=id, EnableDnsSupport={"Value": True})
refused("MissingParameter", ec2.modify_vpc_attribute, VpcId=id)
[link] = ec2.describe_vpc_classic_link(VpcIds=[id])["Vpcs"]
assert link["ClassicLinkEnabled"] is False, link

# Subnets.
zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]]
subnet = ec2.create_subnet(
    VpcId=id, CidrBlock="172.31.1.0/24", AvailabilityZone=zones[0], TagSpecifications=tags("subnet", "lab")
)["Subnet"]
sub = subnet["SubnetId"]
assert (subnet["AvailableIpAddressCount"], subnet["MapPublicIpOnLaunch"], subnet["DefaultForAz"]) == (251, False, False), subnet
assert ec2.describe_subnets(Filters=by("vpc-id", id))["Subnets"] == [subnet]
second = ec2.create_subnet(VpcId=id, CidrBlock="172.31.2.0/28")["Subnet"]
assert second["AvailableIpAddressCount"] == 11 and second["AvailabilityZone"] == zones[0], second
for code, block in [
    ("InvalidSubnet.Range", "10.0.0.0/24"),
    ("InvalidSubnet.Range", "172.31.3.0/29"),
    ("InvalidSubnet.Conflict", "172.31.1.128/25"),
    ("InvalidSubnet.Conflict", "172.31.0.0/16"),
    ("InvalidParameterValue", "x"),
]:
    refused(code, ec2.create_subnet, VpcId=id, CidrBlock=block)
refused("InvalidParameterValue", ec2.create_subnet, VpcId=id, CidrBlock="172.31.9.0/24", AvailabilityZone="nowhere-1a")
refused("InvalidVpcID.NotFound", tenant.create_subnet, VpcId=id, CidrBlock="172.31.9.0/24")
ec2.modify_subnet_attribute(SubnetId=sub, MapPublicIpOnLaunch={"Value": True})
assert ec2.describe_subnets(SubnetIds=[sub])["Subnets"][0]["MapPublicIpOnLaunch"] is True
refused("DefaultSubnetAlreadyExistsInAvailabilityZone", ec2.create_default_subnet, AvailabilityZone=zones[0])

# Internet gateways.
igw = ec2.create_internet_gateway(TagSpecifications=tags("internet-gateway", "lab"))["InternetGateway"]
gate = igw["InternetGatewayId"]
assert igw["Attachments"] == [] and igw["OwnerId"] == account, igw
refused("Gateway.NotAttached", ec2.detach_internet_gateway, InternetGatewayId=gate, VpcId=id)
[main] = ec2.describe_route_tables(Filters=by("vpc-id", id) + by("association.main", "true"))["RouteTables"]
main = main["RouteTableId"]
anywhere = {"RouteTableId": main, "DestinationCidrBlock": "0.0.0.0/0"}
refused("InvalidParameterValue", ec2.create_route, **anywhere, GatewayId=gate)
ec2.attach_internet_gateway(InternetGatewayId=gate, VpcId=id)
refused("Resource.AlreadyAssociated", ec2.attach_internet_gateway, InternetGatewayId=gate, VpcId=id)
refused("Resource.AlreadyAssociated", ec2.attach_internet_gateway, InternetGatewayId=gate, VpcId=default["VpcId"])
more = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
refused("InvalidParameterValue", ec2.attach_internet_gateway, InternetGatewayId=more, VpcId=id)
ec2.delete_internet_gateway(InternetGatewayId=more)
refused("InvalidInternetGatewayID.NotFound", ec2.describe_internet_gateways, InternetGatewayIds=[more])
refused("DependencyViolation", ec2.delete_internet_gateway, InternetGatewayId=gate)
refused("InvalidInternetGatewayID.NotFound", tenant.delete_internet_gateway, InternetGatewayId=gate)
refused("InvalidInternetGatewayID.NotFound", far.attach_internet_gateway, InternetGatewayId=gate, VpcId=id)

# Route tables.
public = ec2.create_route_table(VpcId=id, TagSpecifications=tags("route-table", "public"))["RouteTable"]
rtb = public["RouteTableId"]
assert public["Associations"] == [] and routes(rtb) == {("172.31.0.0/16", "local", "active")}, public
once = [ec2.create_route_table(VpcId=id, ClientToken="once")["RouteTable"]["RouteTableId"] for _ in range(2)]
assert once[0] == once[1], once
ec2.delete_route_table(RouteTableId=once[0])
to = {"RouteTableId": rtb, "DestinationCidrBlock": "0.0.0.0/0"}
assert ec2.create_route(**to, GatewayId=gate)["Return"] is True
refused("RouteAlreadyExists", ec2.create_route, **to, GatewayId=gate)
refused("RouteAlreadyExists", ec2.create_route, RouteTableId=rtb, DestinationCidrBlock="172.31.0.0/16", GatewayId=gate)
refused("InvalidParameterValue", ec2.create_route, RouteTableId=rtb, DestinationCidrBlock="172.31.1.0/24", GatewayId=gate)
refused("InvalidParameterValue", ec2.create_route, RouteTableId=rtb, DestinationCidrBlock="10.0.0.0/8", GatewayId="vgw-1")
refused("InvalidParameterValue", ec2.create_route, RouteTableId=rtb, DestinationCidrBlock="10.0.0/8", GatewayId=gate)
refused("InvalidGatewayID.NotFound", ec2.create_route, RouteTableId=rtb, DestinationCidrBlock="10.0.0.0/8", GatewayId=more)
refused("MissingParameter", ec2.create_route, RouteTableId=rtb, DestinationCidrBlock="10.0.0.0/8")
refused("InvalidRoute.NotFound", ec2.delete_route, RouteTableId=rtb, DestinationCidrBlock="10.0.0.0/8")
refused("InvalidParameterValue", ec2.delete_route, RouteTableId=rtb, DestinationCidrBlock="172.31.0.0/16")
refused("InvalidParameterValue", ec2.replace_route, RouteTableId=rtb, DestinationCidrBlock="10.0.0.0/8", GatewayId=gate)
ec2.replace_route(**to, GatewayId=gate)
with_one = ec2.associate_route_table(RouteTableId=rtb, SubnetId=sub)["AssociationId"]
assert ec2.associate_route_table(RouteTableId=rtb, SubnetId=sub)["AssociationId"] == with_one
refused("Resource.AlreadyAssociated", ec2.associate_route_table, RouteTableId=main, SubnetId=sub)
refused("InvalidParameterValue", ec2.associate_route_table, RouteTableId=its["RouteTableId"], SubnetId=sub)
refused("DependencyViolation", ec2.delete_route_table, RouteTableId=rtb)
refused("DependencyViolation", ec2.delete_route_table, RouteTableId=main)
[found] = ec2.describe_route_tables(Filters=by("association.subnet-id", sub))["RouteTables"]
assert found["RouteTableId"] == rtb, found
assert ec2.describe_route_tables(Filters=by("route.gateway-id", gate))["RouteTables"] == [found]
# The other table becomes the main one, and back.
[first] = [one["RouteTableAssociationId"] for one in table(main)["Associations"]]
refused("InvalidParameterValue", ec2.disassociate_route_table, AssociationId=first)
refused("InvalidAssociationID.NotFound", ec2.disassociate_route_table, AssociationId="rtbassoc-1")
refused("InvalidAssociationID.NotFound", tenant.disassociate_route_table, AssociationId=with_one)
new = ec2.replace_route_table_association(AssociationId=first, RouteTableId=rtb)["NewAssociationId"]
assert {(one["Main"], one.get("SubnetId")) for one in table(rtb)["Associations"]} == {(True, None), (False, sub)}
assert table(main)["Associations"] == []
ec2.replace_route_table_association(AssociationId=new, RouteTableId=main)

# An instance there, by its subnet; and what hangs on it.
launch = dict(ImageId=image, InstanceType="t2.micro", MinCount=1, MaxCount=1)
[instance] = ec2.run_instances(**launch, SubnetId=sub)["Instances"]
assert (instance["VpcId"], instance["PrivateIpAddress"]) == (id, "172.31.1.4"), instance
[eni] = ec2.describe_network_interfaces(Filters=by("vpc-id", id))["NetworkInterfaces"]
assert eni["SubnetId"] == sub and eni["Groups"] == [{"GroupId": group["GroupId"], "GroupName": "default"}], eni
assert eni["Association"]["PublicIp"], eni
assert ec2.describe_subnets(SubnetIds=[sub])["Subnets"][0]["AvailableIpAddressCount"] == 250
# Who names no subnet is in the default VPC, where the address may be the same.
[plain] = ec2.run_instances(**launch)["Instances"]
assert plain["VpcId"] == default["VpcId"], plain
# Without a public address when nobody wants one.
[inner] = ec2.run_instances(**launch, SubnetId=second["SubnetId"])["Instances"]
assert "PublicIpAddress" not in ec2.describe_instances(InstanceIds=[inner["InstanceId"]])["Reservations"][0]["Instances"][0]
foreign = ec2.describe_security_groups(Filters=by("vpc-id", default["VpcId"]))["SecurityGroups"][0]["GroupId"]
refused("InvalidParameter", ec2.run_instances, **launch, SubnetId=sub, SecurityGroupIds=[foreign])
refused("DependencyViolation", ec2.detach_internet_gateway, InternetGatewayId=gate, VpcId=id)
refused("DependencyViolation", ec2.delete_subnet, SubnetId=sub)
refused("DependencyViolation", ec2.delete_vpc, VpcId=id)
ids = [one["InstanceId"] for one in (instance, plain, inner)]
ec2.terminate_instances(InstanceIds=ids)
ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 60})

# Routes that lose their gateway lead nowhere.
ec2.detach_internet_gateway(InternetGatewayId=gate, VpcId=id)
assert ("0.0.0.0/0", gate, "blackhole") in routes(rtb)
ec2.attach_internet_gateway(InternetGatewayId=gate, VpcId=id)
assert ("0.0.0.0/0", gate, "active") in routes(rtb)
ec2.detach_internet_gateway(InternetGatewayId=gate, VpcId=id)
ec2.delete_internet_gateway(InternetGatewayId=gate)
assert ("0.0.0.0/0", gate, "blackhole") in routes(rtb)

# Whoever may only make tagged ones, and touch only these.
policy = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"},
        {"Effect": "Allow", "Action": ["ec2:CreateVpc", "ec2:CreateTags"], "Resource": f"arn:aws:ec2:{region}:{account}:vpc/*",
         "Condition": {"StringEquals": {"aws:RequestTag/team": "a"}}},
        {"Effect": "Allow", "Action": "ec2:CreateRouteTable", "Resource": [
            f"arn:aws:ec2:{region}:{account}:vpc/{id}", f"arn:aws:ec2:{region}:{account}:route-table/*"]},
        {"Effect": "Allow", "Action": "ec2:DisassociateRouteTable", "Resource": f"arn:aws:ec2:{region}:{account}:*/*",
         "Condition": {"StringEquals": {"ec2:ResourceTag/Name": "nobody"}}},
    ],
}
iam.create_user(UserName="anna")
iam.put_user_policy(UserName="anna", PolicyName="own", PolicyDocument=json.dumps(policy))
hers = iam.create_access_key(UserName="anna")["AccessKey"]
hers = client("ec2", (hers["AccessKeyId"], hers["SecretAccessKey"]))
cloud.refused("UnauthorizedOperation", 403, hers.create_vpc, CidrBlock="10.1.0.0/16")
her_tags = [{"ResourceType": "vpc", "Tags": [{"Key": "team", "Value": "a"}]}]
her_vpc = hers.create_vpc(CidrBlock="10.1.0.0/16", TagSpecifications=her_tags)["Vpc"]["VpcId"]
cloud.refused("UnauthorizedOperation", 403, hers.delete_vpc, VpcId=her_vpc)
ec2.delete_route_table(RouteTableId=hers.create_route_table(VpcId=id)["RouteTable"]["RouteTableId"])
cloud.refused("UnauthorizedOperation", 403, hers.create_route_table, VpcId=her_vpc)
cloud.refused("UnauthorizedOperation", 403, hers.disassociate_route_table, AssociationId=with_one)
ec2.delete_vpc(VpcId=her_vpc)

# Its ACL is the default one.
[acl] = ec2.describe_network_acls(Filters=by("vpc-id", id))["NetworkAcls"]
assert acl["IsDefault"] is True and {one["SubnetId"] for one in acl["Associations"]} == {sub, second["SubnetId"]}, acl
assert ec2.describe_network_acls(NetworkAclIds=[acl["NetworkAclId"]])["NetworkAcls"] == [acl]
refused("InvalidNetworkAclID.NotFound", ec2.describe_network_acls, NetworkAclIds=["acl-1"])

# It all goes, what it was made with by itself.
ec2.disassociate_route_table(AssociationId=with_one)
ec2.associate_route_table(RouteTableId=rtb, SubnetId=sub)
for one in (sub, second["SubnetId"]):
    ec2.delete_subnet(SubnetId=one)
refused("InvalidSubnetID.NotFound", ec2.delete_subnet, SubnetId=sub)
assert table(rtb)["Associations"] == []
refused("DependencyViolation", ec2.delete_vpc, VpcId=id)
ec2.delete_route_table(RouteTableId=rtb)
further = ec2.create_security_group(GroupName="web", Description="x", VpcId=id)["GroupId"]
refused("DependencyViolation", ec2.delete_vpc, VpcId=id)
ec2.delete_security_group(GroupId=further)
ec2.delete_vpc(VpcId=id)
refused("InvalidVpcID.NotFound", ec2.describe_vpcs, VpcIds=[id])
for call, key in [
    (ec2.describe_security_groups, "SecurityGroups"),
    (ec2.describe_route_tables, "RouteTables"),
    (ec2.describe_subnets, "Subnets"),
]:
    assert call(Filters=by("vpc-id", id))[key] == [], key

# A tenant gives the default VPC away, and gets another.
[old] = tenant.describe_vpcs()["Vpcs"]
[gone] = tenant.describe_internet_gateways()["InternetGateways"]
for one in tenant.describe_subnets()["Subnets"]:
    tenant.delete_subnet(SubnetId=one["SubnetId"])
tenant.detach_internet_gateway(InternetGatewayId=gone["InternetGatewayId"], VpcId=old["VpcId"])
tenant.delete_internet_gateway(InternetGatewayId=gone["InternetGatewayId"])
tenant.delete_vpc(VpcId=old["VpcId"])
refused("VPCIdNotSpecified", tenant.create_security_group, GroupName="x", Description="x")
refused("DefaultVpcDoesNotExist", tenant.create_default_subnet, AvailabilityZone=zones[0])
made = tenant.create_default_vpc()["Vpc"]
assert made["IsDefault"] is True, made
subnets = tenant.describe_subnets()["Subnets"]
assert sorted(one["AvailabilityZone"] for one in subnets) == zones and all(one["DefaultForAz"] for one in subnets), subnets
tenant.delete_subnet(SubnetId=subnets[0]["SubnetId"])
tenant.create_default_subnet(AvailabilityZone=subnets[0]["AvailabilityZone"])
print("done")
