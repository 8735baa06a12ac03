-- The control plane's truth. Times are milliseconds since the epoch.
-- Each table has one owner: the API's transactions write what is wanted, the agent gateway writes `*_reports`
-- and `*_observations` (what is). An instance's `state` is the conclusion from both and is written by whoever
-- commits the fact that changes it.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- ---- hosts ----

CREATE TABLE hosts (
    id                TEXT PRIMARY KEY,
    availability_zone TEXT NOT NULL,
    enrolled_at       INTEGER NOT NULL,
    -- Grows with every commit that changes what the host should do.
    generation        INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE host_reports (
    host_id         TEXT PRIMARY KEY REFERENCES hosts (id),
    hostname        TEXT NOT NULL,
    agent_version   TEXT NOT NULL,
    vcpus           INTEGER NOT NULL,
    memory_mib      INTEGER NOT NULL,
    disk_bytes      INTEGER NOT NULL,
    cpus            INTEGER NOT NULL,
    reported_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE join_tokens (
    -- BLAKE3 of the secret, hex: the secret itself is told once.
    secret_hash TEXT PRIMARY KEY,
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT;

-- ---- networks ----

CREATE TABLE vpcs (
    id         TEXT PRIMARY KEY,
    cidr       TEXT NOT NULL,
    is_default INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE subnets (
    id                      TEXT PRIMARY KEY,
    vpc_id                  TEXT NOT NULL REFERENCES vpcs (id),
    cidr                    TEXT NOT NULL,
    availability_zone       TEXT NOT NULL,
    default_for_az          INTEGER NOT NULL,
    map_public_ip_on_launch INTEGER NOT NULL,
    created_at              INTEGER NOT NULL,
    UNIQUE (vpc_id, cidr)
) STRICT;

CREATE TABLE security_groups (
    id          TEXT PRIMARY KEY,
    vpc_id      TEXT NOT NULL REFERENCES vpcs (id),
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    UNIQUE (vpc_id, name)
) STRICT;

CREATE TABLE security_group_rules (
    id                  TEXT PRIMARY KEY,
    group_id            TEXT NOT NULL REFERENCES security_groups (id),
    is_egress           INTEGER NOT NULL,
    -- IP protocol number, -1 for all.
    protocol            INTEGER NOT NULL,
    from_port           INTEGER NOT NULL,
    to_port             INTEGER NOT NULL,
    -- Exactly one of the two peers is not empty.
    cidr                TEXT NOT NULL DEFAULT '',
    referenced_group_id TEXT REFERENCES security_groups (id),
    description         TEXT NOT NULL DEFAULT '',
    created_at          INTEGER NOT NULL,
    CHECK ((cidr = '') = (referenced_group_id IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX security_group_rules_once ON security_group_rules
    (group_id, is_egress, protocol, from_port, to_port, cidr, ifnull(referenced_group_id, ''));
CREATE INDEX security_group_rules_referenced ON security_group_rules (referenced_group_id);

-- ---- keys, images ----

CREATE TABLE key_pairs (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    key_type    TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    public_key  TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE images (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    -- `available` or `deregistered`; the latter lives on while a volume is based on it.
    state       TEXT NOT NULL,
    size        INTEGER NOT NULL,
    -- BLAKE3 of the disk, hex.
    digest      TEXT NOT NULL,
    kernel_path TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX images_name ON images (name) WHERE state = 'available';

-- ---- instances ----

CREATE TABLE reservations (
    id         TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE client_tokens (
    token           TEXT NOT NULL,
    action          TEXT NOT NULL,
    -- BLAKE3 of the normalised parameters, hex.
    parameters_hash TEXT NOT NULL,
    resource_id     TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (token, action)
) STRICT;

CREATE TABLE instances (
    id                TEXT PRIMARY KEY,
    reservation_id    TEXT NOT NULL REFERENCES reservations (id),
    ami_launch_index  INTEGER NOT NULL,
    image_id          TEXT NOT NULL,
    instance_type     TEXT NOT NULL,
    host_id           TEXT NOT NULL REFERENCES hosts (id),
    availability_zone TEXT NOT NULL,
    key_name          TEXT NOT NULL,
    -- The key as it was at launch: deleting the pair does not change a running instance.
    public_key        TEXT NOT NULL,
    user_data         BLOB NOT NULL,
    client_token      TEXT NOT NULL,
    shutdown_behavior TEXT NOT NULL,
    http_tokens       TEXT NOT NULL,
    http_endpoint     TEXT NOT NULL,
    http_hop_limit    INTEGER NOT NULL,
    -- Whether each start takes an address out of the public pool.
    public_address    INTEGER NOT NULL,
    launch_time       INTEGER NOT NULL,
    -- wanted
    desired           INTEGER NOT NULL,
    run               INTEGER NOT NULL,
    reboot            INTEGER NOT NULL,
    force             INTEGER NOT NULL,
    -- concluded
    state             INTEGER NOT NULL,
    reason_code       TEXT NOT NULL DEFAULT '',
    reason_message    TEXT NOT NULL DEFAULT '',
    transition_reason TEXT NOT NULL DEFAULT '',
    terminated_at     INTEGER
) STRICT;
CREATE INDEX instances_reservation ON instances (reservation_id);
CREATE INDEX instances_host ON instances (host_id);

CREATE TABLE instance_observations (
    instance_id  TEXT PRIMARY KEY REFERENCES instances (id),
    phase        INTEGER NOT NULL,
    run          INTEGER NOT NULL,
    end_cause    INTEGER NOT NULL,
    end_message  TEXT NOT NULL,
    start_micros INTEGER NOT NULL,
    reboot       INTEGER NOT NULL,
    observed_at  INTEGER NOT NULL
) STRICT;

-- What an instance holds of its host's vCPUs and memory. The row is also the host's duty for the instance: it
-- exists from the launch until the agent has said that nothing is left. A stopped instance's row is zero.
CREATE TABLE capacity_claims (
    instance_id TEXT PRIMARY KEY REFERENCES instances (id),
    host_id     TEXT NOT NULL REFERENCES hosts (id),
    vcpus       INTEGER NOT NULL,
    memory_mib  INTEGER NOT NULL
) STRICT;
CREATE INDEX capacity_claims_host ON capacity_claims (host_id);

CREATE TABLE network_interfaces (
    id                    TEXT PRIMARY KEY,
    instance_id           TEXT NOT NULL UNIQUE REFERENCES instances (id),
    vpc_id                TEXT NOT NULL REFERENCES vpcs (id),
    subnet_id             TEXT NOT NULL REFERENCES subnets (id),
    mac_address           TEXT NOT NULL UNIQUE,
    private_ip            TEXT NOT NULL,
    public_ip             TEXT UNIQUE,
    UNIQUE (subnet_id, private_ip)
) STRICT;

CREATE TABLE network_interface_groups (
    network_interface_id TEXT NOT NULL REFERENCES network_interfaces (id) ON DELETE CASCADE,
    group_id             TEXT NOT NULL REFERENCES security_groups (id),
    PRIMARY KEY (network_interface_id, group_id)
) STRICT;
CREATE INDEX network_interface_groups_group ON network_interface_groups (group_id);

-- A volume is also its host's disk claim. `instance_id` is NULL for one that outlived its instance.
CREATE TABLE volumes (
    id                    TEXT PRIMARY KEY,
    instance_id           TEXT REFERENCES instances (id),
    host_id               TEXT NOT NULL REFERENCES hosts (id),
    image_id              TEXT NOT NULL REFERENCES images (id),
    device_name           TEXT NOT NULL,
    size_gib              INTEGER NOT NULL,
    delete_on_termination INTEGER NOT NULL,
    created_at            INTEGER NOT NULL
) STRICT;
CREATE INDEX volumes_instance ON volumes (instance_id);
CREATE INDEX volumes_host ON volumes (host_id);

CREATE TABLE tags (
    resource_id   TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    PRIMARY KEY (resource_id, key)
) STRICT;

-- ---- what happened ----

CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    action     TEXT NOT NULL,
    -- Ids and choices; never user data, keys or tokens.
    detail     TEXT NOT NULL
) STRICT;

CREATE TABLE events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    resource_id TEXT NOT NULL
) STRICT;
