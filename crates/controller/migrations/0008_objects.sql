-- Objects as JSON take the place of a table for each noun: the state is a value in memory, and this is its durable form.
CREATE TABLE objects (
    kind    TEXT NOT NULL,
    id      TEXT NOT NULL,
    -- Empty for what belongs to the operator.
    account TEXT NOT NULL,
    -- The transaction that wrote it last.
    version INTEGER NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- Large bodies that objects name.
CREATE TABLE blobs (
    -- BLAKE3, hex; the id of its instance for user data of before this table.
    digest TEXT PRIMARY KEY,
    body   BLOB NOT NULL
) STRICT;

-- The number of the last transaction. One row.
CREATE TABLE position (sequence INTEGER NOT NULL) STRICT;
INSERT INTO position (sequence) VALUES (1);

CREATE TEMP VIEW tags_of AS
    SELECT resource_id AS id, json_group_object(key, value) AS tags FROM tags GROUP BY resource_id;
CREATE TEMP VIEW owner AS
    SELECT ifnull((SELECT value FROM settings WHERE name = 'owner-id'), '') AS id;

INSERT INTO objects
SELECT 'cloud', 'cloud', '', 1, json_object('owner_id', value) FROM settings WHERE name = 'owner-id';

INSERT INTO objects
SELECT 'host', id, '', 1, json_object('id', id, 'availability_zone', availability_zone, 'enrolled_at', enrolled_at,
    'generation', generation, 'forgotten_at', forgotten_at) FROM hosts;

INSERT INTO objects
SELECT 'host-report', host_id, '', 1, json_object('host_id', host_id, 'hostname', hostname, 'agent_version', agent_version,
    'vcpus', vcpus, 'memory_mib', memory_mib, 'disk_bytes', disk_bytes, 'cpus', cpus,
    'uefi', json(iif(uefi, 'true', 'false')), 'reported_at', reported_at) FROM host_reports;

INSERT INTO objects
SELECT 'host-key', public_key_hash, '', 1, json_object('public_key_hash', public_key_hash, 'host_id', host_id,
    'token_id', token_id, 'number', number, 'recorded_at', recorded_at) FROM host_keys;

INSERT INTO objects
SELECT 'join-token', id, '', 1, json_object('id', id, 'secret_hash', secret_hash, 'host_id', host_id, 'uses', uses,
    'uses_left', uses_left, 'created_at', created_at, 'expires_at', expires_at) FROM join_tokens;

INSERT INTO objects
SELECT 'vpc', v.id, o.id, 1, json_object('id', v.id, 'account_id', o.id, 'cidr', v.cidr,
    'is_default', json(iif(v.is_default, 'true', 'false')), 'created_at', v.created_at,
    'tags', json(ifnull(t.tags, '{}')))
FROM vpcs v, owner o LEFT JOIN tags_of t ON t.id = v.id;

INSERT INTO objects
SELECT 'subnet', s.id, o.id, 1, json_object('id', s.id, 'account_id', o.id, 'vpc_id', s.vpc_id, 'cidr', s.cidr,
    'availability_zone', s.availability_zone, 'default_for_az', json(iif(s.default_for_az, 'true', 'false')),
    'map_public_ip_on_launch', json(iif(s.map_public_ip_on_launch, 'true', 'false')), 'created_at', s.created_at,
    'tags', json(ifnull(t.tags, '{}')))
FROM subnets s, owner o LEFT JOIN tags_of t ON t.id = s.id;

INSERT INTO objects
SELECT 'security-group', g.id, o.id, 1, json_object('id', g.id, 'account_id', o.id, 'vpc_id', g.vpc_id, 'name', g.name,
    'description', g.description, 'created_at', g.created_at, 'tags', json(ifnull(t.tags, '{}')))
FROM security_groups g, owner o LEFT JOIN tags_of t ON t.id = g.id;

INSERT INTO objects
SELECT 'security-group-rule', r.id, o.id, 1, json_object('id', r.id, 'account_id', o.id, 'group_id', r.group_id,
    'is_egress', json(iif(r.is_egress, 'true', 'false')), 'protocol', r.protocol, 'from_port', r.from_port,
    'to_port', r.to_port, 'cidr', r.cidr, 'referenced_group_id', r.referenced_group_id, 'description', r.description,
    'created_at', r.created_at, 'tags', json(ifnull(t.tags, '{}')))
FROM security_group_rules r, owner o LEFT JOIN tags_of t ON t.id = r.id;

INSERT INTO objects
SELECT 'key-pair', k.id, o.id, 1, json_object('id', k.id, 'account_id', o.id, 'name', k.name, 'key_type', k.key_type,
    'fingerprint', k.fingerprint, 'public_key', k.public_key, 'created_at', k.created_at,
    'tags', json(ifnull(t.tags, '{}')))
FROM key_pairs k, owner o LEFT JOIN tags_of t ON t.id = k.id;

INSERT INTO objects
SELECT 'image', i.id, o.id, 1, json_object('id', i.id, 'account_id', o.id, 'name', i.name, 'description', i.description,
    'state', i.state, 'size', i.size, 'digest', i.digest, 'kernel_path', i.kernel_path, 'boot_mode', i.boot_mode,
    'created_at', i.created_at, 'tags', json(ifnull(t.tags, '{}')))
FROM images i, owner o LEFT JOIN tags_of t ON t.id = i.id;

INSERT INTO objects
SELECT 'reservation', r.id, o.id, 1, json_object('id', r.id, 'account_id', o.id, 'created_at', r.created_at)
FROM reservations r, owner o;

INSERT INTO objects
SELECT 'client-token', o.id || char(31) || c.action || char(31) || char(31) || c.token, o.id, 1, json_object(
    'id', o.id || char(31) || c.action || char(31) || char(31) || c.token, 'account_id', o.id, 'parameters_hash', c.parameters_hash,
    'resource_id', c.resource_id, 'created_at', c.created_at)
FROM client_tokens c, owner o;

INSERT INTO blobs (digest, body) SELECT id, user_data FROM instances WHERE length(user_data) > 0;

-- Resources of the types of this version's catalogue, for each instance has its own from now on.
CREATE TEMP TABLE types (name TEXT PRIMARY KEY, vcpus INTEGER NOT NULL, memory_mib INTEGER NOT NULL);
INSERT INTO types (name, vcpus, memory_mib) VALUES
    ('t2.nano', 1, 512), ('t2.micro', 1, 1024), ('t2.small', 1, 2048), ('t2.medium', 2, 4096), ('t2.large', 2, 8192),
    ('t2.xlarge', 4, 16384), ('t2.2xlarge', 8, 32768), ('t3.nano', 2, 512), ('t3.micro', 2, 1024),
    ('t3.small', 2, 2048), ('t3.medium', 2, 4096), ('t3.large', 2, 8192), ('t3.xlarge', 4, 16384),
    ('t3.2xlarge', 8, 32768), ('m4.large', 2, 8192), ('m4.xlarge', 4, 16384), ('m4.2xlarge', 8, 32768),
    ('m4.4xlarge', 16, 65536), ('m4.10xlarge', 40, 163840), ('m4.16xlarge', 64, 262144), ('m5.large', 2, 8192),
    ('m5.xlarge', 4, 16384), ('m5.2xlarge', 8, 32768), ('m5.4xlarge', 16, 65536), ('m5.8xlarge', 32, 131072),
    ('m5.12xlarge', 48, 196608), ('m5.16xlarge', 64, 262144), ('m5.24xlarge', 96, 393216), ('c4.large', 2, 3840),
    ('c4.xlarge', 4, 7680), ('c4.2xlarge', 8, 15360), ('c4.4xlarge', 16, 30720), ('c4.8xlarge', 36, 61440),
    ('c5.large', 2, 4096), ('c5.xlarge', 4, 8192), ('c5.2xlarge', 8, 16384), ('c5.4xlarge', 16, 32768),
    ('c5.9xlarge', 36, 73728), ('c5.12xlarge', 48, 98304), ('c5.18xlarge', 72, 147456), ('c5.24xlarge', 96, 196608),
    ('r4.large', 2, 15616), ('r4.xlarge', 4, 31232), ('r4.2xlarge', 8, 62464), ('r4.4xlarge', 16, 124928),
    ('r4.8xlarge', 32, 249856), ('r4.16xlarge', 64, 499712), ('r5.large', 2, 16384), ('r5.xlarge', 4, 32768),
    ('r5.2xlarge', 8, 65536), ('r5.4xlarge', 16, 131072), ('r5.8xlarge', 32, 262144), ('r5.12xlarge', 48, 393216),
    ('r5.16xlarge', 64, 524288), ('r5.24xlarge', 96, 786432);

INSERT INTO objects
SELECT 'instance', i.id, o.id, 1, json_object('id', i.id, 'account_id', o.id, 'reservation_id', i.reservation_id,
    'ami_launch_index', i.ami_launch_index, 'image_id', i.image_id, 'instance_type', i.instance_type,
    'vcpus', ifnull(k.vcpus, max(1, ifnull(c.vcpus, 1))), 'memory_mib', ifnull(k.memory_mib, max(128, ifnull(c.memory_mib, 128))),
    'host_id', i.host_id, 'availability_zone', i.availability_zone, 'key_name', i.key_name, 'public_key', i.public_key,
    'user_data', iif(length(i.user_data) > 0, i.id, NULL), 'client_token', i.client_token,
    'shutdown_behavior', i.shutdown_behavior, 'http_tokens', i.http_tokens, 'http_endpoint', i.http_endpoint,
    'http_hop_limit', i.http_hop_limit, 'metadata_tags', i.metadata_tags, 'auto_recovery', i.auto_recovery,
    'public_address', json(iif(i.public_address, 'true', 'false')), 'launch_time', i.launch_time,
    'desired', CASE i.desired WHEN 1 THEN 'RUNNING' WHEN 2 THEN 'STOPPED' WHEN 3 THEN 'TERMINATED'
                              ELSE 'DESIRED_UNSPECIFIED' END,
    'run', i.run, 'reboot', i.reboot, 'force', json(iif(i.force, 'true', 'false')),
    'state', CASE i.state WHEN 0 THEN 'pending' WHEN 16 THEN 'running' WHEN 32 THEN 'shutting-down'
                          WHEN 64 THEN 'stopping' WHEN 80 THEN 'stopped' ELSE 'terminated' END,
    'reason_code', i.reason_code, 'reason_message', i.reason_message, 'transition_reason', i.transition_reason,
    'terminated_at', i.terminated_at, 'tags', json(ifnull(t.tags, '{}')))
FROM instances i, owner o
    LEFT JOIN types k ON k.name = i.instance_type
    LEFT JOIN capacity_claims c ON c.instance_id = i.id
    LEFT JOIN tags_of t ON t.id = i.id;

INSERT INTO objects
SELECT 'observation', instance_id, '', 1, json_object('instance_id', instance_id, 'phase', phase, 'run', run,
    'end_cause', end_cause, 'end_message', end_message, 'start_micros', start_micros, 'reboot', reboot,
    'recoveries', recoveries) FROM instance_observations;

INSERT INTO objects
SELECT 'claim', instance_id, '', 1, json_object('instance_id', instance_id, 'host_id', host_id, 'vcpus', vcpus,
    'memory_mib', memory_mib) FROM capacity_claims;

INSERT INTO objects
SELECT 'network-interface', n.id, o.id, 1, json_object('id', n.id, 'account_id', o.id, 'instance_id', n.instance_id,
    'vpc_id', n.vpc_id, 'subnet_id', n.subnet_id, 'mac_address', n.mac_address, 'private_ip', n.private_ip,
    'public_ip', n.public_ip, 'groups', (SELECT json_group_array(group_id) FROM (
        SELECT group_id FROM network_interface_groups WHERE network_interface_id = n.id ORDER BY group_id)),
    'tags', json(ifnull(t.tags, '{}')))
FROM network_interfaces n, owner o LEFT JOIN tags_of t ON t.id = n.id;

INSERT INTO objects
SELECT 'volume', v.id, o.id, 1, json_object('id', v.id, 'account_id', o.id, 'instance_id', v.instance_id,
    'host_id', v.host_id, 'image_id', v.image_id, 'device_name', v.device_name, 'size_gib', v.size_gib,
    'delete_on_termination', json(iif(v.delete_on_termination, 'true', 'false')), 'created_at', v.created_at,
    'tags', json(ifnull(t.tags, '{}')))
FROM volumes v, owner o LEFT JOIN tags_of t ON t.id = v.id;

DROP VIEW tags_of;
DROP VIEW owner;
DROP TABLE types;
-- Those that refer to others first.
DROP TABLE tags;
DROP TABLE volumes;
DROP TABLE network_interface_groups;
DROP TABLE network_interfaces;
DROP TABLE capacity_claims;
DROP TABLE instance_observations;
DROP TABLE instances;
DROP TABLE client_tokens;
DROP TABLE reservations;
DROP TABLE images;
DROP TABLE key_pairs;
DROP TABLE security_group_rules;
DROP TABLE security_groups;
DROP TABLE subnets;
DROP TABLE vpcs;
DROP TABLE join_tokens;
DROP TABLE host_keys;
DROP TABLE host_reports;
DROP TABLE hosts;
DROP TABLE settings;
