INSERT INTO settings VALUES ('owner-id', '123456789012');
INSERT INTO hosts VALUES ('h-1', 'local-1a', 1, 42, NULL), ('h-2', 'local-1b', 1, 3, 5);
INSERT INTO host_reports (host_id, hostname, agent_version, vcpus, memory_mib, disk_bytes, cpus, reported_at, uefi)
VALUES ('h-1', 'metal', '0.1', 16, 8192, 100000000000, 4, 2, 1);
INSERT INTO host_keys VALUES ('aa', 'h-1', 'join-1', 1, 1);
INSERT INTO join_tokens VALUES ('join-1', 'bb', NULL, 3, 2, 1, 99999999999999), ('join-2', 'cc', 'h-1', 1, 1, 1, 5);
INSERT INTO vpcs VALUES ('vpc-1', '172.31.0.0/16', 1, 1);
INSERT INTO subnets VALUES ('subnet-1', 'vpc-1', '172.31.0.0/20', 'local-1a', 1, 1, 1);
INSERT INTO security_groups VALUES ('sg-1', 'vpc-1', 'default', 'd', 1), ('sg-2', 'vpc-1', 'Web ', 'w', 2);
INSERT INTO security_group_rules VALUES
    ('sgr-1', 'sg-1', 0, -1, -1, -1, '', 'sg-2', 'from web', 1),
    ('sgr-2', 'sg-1', 1, -1, -1, -1, '0.0.0.0/0', NULL, '', 1);
INSERT INTO key_pairs VALUES ('key-1', 'me', 'ed25519', 'f', 'ssh-ed25519 AAAA me', 1);
INSERT INTO images VALUES
    ('ami-1', 'tiny', '', 'available', 1048576, 'dd', '/boot/vmlinuz', 1, 'legacy-bios'),
    ('ami-2', 'old', '', 'deregistered', 2097152, '', '', 1, 'uefi');
INSERT INTO reservations VALUES ('r-1', 1), ('r-2', 2);
INSERT INTO client_tokens VALUES ('token/1', 'RunInstances', 'ee', 'r-1', 1);
INSERT INTO instances (id, reservation_id, ami_launch_index, image_id, instance_type, host_id, availability_zone, key_name,
    public_key, user_data, client_token, shutdown_behavior, http_tokens, http_endpoint, http_hop_limit, public_address,
    launch_time, desired, run, reboot, force, state, terminated_at)
VALUES
    ('i-1', 'r-1', 0, 'ami-1', 't3.medium', 'h-1', 'local-1a', 'me', 'ssh-ed25519 AAAA me', x'00ff23212f62696e2f7368', 'token/1',
     'stop', 'required', 'enabled', 2, 1, 1, 1, 3, 1, 0, 16, NULL),
    ('i-2', 'r-2', 0, 'ami-2', 'gone.large', 'h-2', 'local-1b', '', '', x'', '', 'terminate', 'optional', 'enabled', 1, 0,
     2, 3, 1, 0, 0, 48, 9);
INSERT INTO instance_observations (instance_id, phase, run, end_cause, end_message, start_micros, reboot, observed_at)
VALUES ('i-1', 2, 3, 0, '', 1234, 1, 3);
INSERT INTO capacity_claims VALUES ('i-1', 'h-1', 2, 4096);
INSERT INTO network_interfaces VALUES
    ('eni-1', 'i-1', 'vpc-1', 'subnet-1', '02:00:00:00:00:01', '172.31.0.4', '198.18.0.2');
INSERT INTO network_interface_groups VALUES ('eni-1', 'sg-2'), ('eni-1', 'sg-1');
INSERT INTO volumes VALUES
    ('vol-1', 'i-1', 'h-1', 'ami-1', '/dev/vda', 8, 1, 1),
    ('vol-2', NULL, 'h-1', 'ami-2', '/dev/vda', 10, 0, 1);
INSERT INTO tags VALUES
    ('i-1', 'instance', 'Name', 'one "quoted"'),
    ('subnet-1', 'subnet', 'a/b', ''),
    ('vol-1', 'volume', 'k', 'v');
INSERT INTO events (at, kind, resource_id) VALUES (1, 'instance.pending', 'i-1');
