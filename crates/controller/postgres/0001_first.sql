-- Objects as JSON: the state is a value in memory, and this is its durable form.
CREATE TABLE objects (
    kind    text NOT NULL,
    id      text NOT NULL,
    -- Empty for what belongs to the operator.
    account text NOT NULL,
    -- Sequence of the transaction that wrote it last.
    version bigint NOT NULL,
    body    json NOT NULL,
    PRIMARY KEY (kind, id)
);
-- Followers read what is newer than what they have.
CREATE INDEX objects_version ON objects (version);

-- Objects that are gone. Rows are removed after a day.
CREATE TABLE removed (
    kind    text NOT NULL,
    id      text NOT NULL,
    version bigint NOT NULL,
    -- Milliseconds since the epoch.
    at      bigint NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX removed_version ON removed (version);

-- Large bodies that objects name.
CREATE TABLE blobs (
    -- BLAKE3, hex.
    digest text PRIMARY KEY,
    body   bytea NOT NULL
);

CREATE TABLE events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sequence    bigint NOT NULL,
    -- Milliseconds since the epoch.
    at          bigint NOT NULL,
    kind        text NOT NULL,
    resource_id text NOT NULL
);
CREATE INDEX events_sequence ON events (sequence);

CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sequence bigint NOT NULL,
    -- Milliseconds since the epoch.
    at       bigint NOT NULL,
    action   text NOT NULL,
    detail   text NOT NULL
);

-- One row.
CREATE TABLE position (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Sequence of the last transaction.
    sequence bigint NOT NULL,
    -- Epoch of the lease that may commit.
    epoch    bigint NOT NULL,
    -- Rows of `removed` up to this version may be gone.
    horizon  bigint NOT NULL
);
INSERT INTO position (sequence, epoch, horizon) VALUES (0, 0, 0);

-- Which hearthd is the leader. One row. No time is in it: a follower takes the lease when `renewals` has stood still for
-- the lease's duration on the follower's own monotonic clock.
CREATE TABLE lease (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch    bigint NOT NULL,
    renewals bigint NOT NULL,
    -- A process; empty for a lease that was given back.
    holder   text NOT NULL,
    -- `host:port` that agents and followers dial.
    endpoint text NOT NULL
);
INSERT INTO lease (epoch, renewals, holder, endpoint) VALUES (0, 0, '', '');

-- Each hearthd that serves this cloud.
CREATE TABLE members (
    -- `host:port` that agents and followers dial.
    endpoint text PRIMARY KEY,
    -- By this database's clock.
    seen     timestamptz NOT NULL
);

-- The cloud's certificate authority: its key and certificate, PEM. At most one row.
CREATE TABLE authority (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    pem text NOT NULL
);
