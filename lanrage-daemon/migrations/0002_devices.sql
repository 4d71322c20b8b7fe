-- Leases of devices behind members (gateways). The address is unique in the party together with those of seats, which
-- the rules see to.
CREATE TABLE devices (
    party BLOB NOT NULL REFERENCES parties (id) ON DELETE CASCADE,
    -- behind whom
    owner BLOB NOT NULL CHECK (length(owner) = 32),
    -- which, in the owner's numbering
    id BLOB NOT NULL CHECK (length(id) = 16),
    -- IPv4 as a number
    address INTEGER NOT NULL,
    released_at INTEGER,
    PRIMARY KEY (party, owner, id),
    UNIQUE (party, address)
) STRICT, WITHOUT ROWID;
