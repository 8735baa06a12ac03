-- A host that was forgotten keeps its row, so that what refers to it can be described; it is admitted no more.
ALTER TABLE hosts ADD COLUMN forgotten_at INTEGER;

-- Public keys whose certificates are accepted as the host's. A host that enrolled before this table has none until its
-- next session: the key of that session becomes its first.
CREATE TABLE host_keys (
    -- SHA-256 of the certificate's SubjectPublicKeyInfo (RFC 5280, 4.1.2.7), hex.
    public_key_hash TEXT PRIMARY KEY,
    host_id         TEXT NOT NULL REFERENCES hosts (id),
    -- The join token that admitted the key; NULL for a renewed one.
    token_id        TEXT,
    -- Grows with each key of a host.
    number          INTEGER NOT NULL,
    recorded_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX host_keys_host ON host_keys (host_id);

-- Join tokens of before never expired and admitted any number of hosts: they are dropped.
DROP TABLE join_tokens;
CREATE TABLE join_tokens (
    id          TEXT PRIMARY KEY,
    -- BLAKE3 of the secret, hex: the secret itself is told once.
    secret_hash TEXT NOT NULL UNIQUE,
    -- The host that joins again with it; NULL where each use makes a new host.
    host_id     TEXT REFERENCES hosts (id),
    uses        INTEGER NOT NULL,
    uses_left   INTEGER NOT NULL CHECK (uses_left BETWEEN 0 AND uses),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;
