-- One control server's durable state. Liveness is never written.

CREATE TABLE parties (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    name TEXT NOT NULL,
    subnet TEXT NOT NULL,
    host BLOB NOT NULL CHECK (length(host) = 32),
    epoch INTEGER NOT NULL,
    -- number of the newest change
    seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Leases; a device is a member while its lease is held (released_at is null).
CREATE TABLE seats (
    party BLOB NOT NULL REFERENCES parties (id) ON DELETE CASCADE,
    device BLOB NOT NULL CHECK (length(device) = 32),
    wg BLOB NOT NULL CHECK (length(wg) = 32),
    -- IPv4 as a number
    address INTEGER NOT NULL,
    released_at INTEGER,
    -- what the member published, as JSON
    entry TEXT,
    PRIMARY KEY (party, device),
    UNIQUE (party, address)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX seats_by_tunnel_key ON seats (party, wg) WHERE released_at IS NULL;

CREATE TABLE invites (
    -- SHA-256 of the code
    code BLOB PRIMARY KEY CHECK (length(code) = 32),
    party BLOB NOT NULL REFERENCES parties (id) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL,
    uses_left INTEGER CHECK (uses_left >= 0),
    revoked INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX invites_by_party ON invites (party);

-- The newest changes of each roster, for members that come back.
CREATE TABLE changes (
    party BLOB NOT NULL REFERENCES parties (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    -- as JSON
    change TEXT NOT NULL,
    PRIMARY KEY (party, seq)
) STRICT, WITHOUT ROWID;
