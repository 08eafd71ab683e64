-- The outbox: what others are told of changes, and where each of them is. What the columns mean is said in migrations/sqlite.

CREATE TABLE event_source (
    id bytea NOT NULL PRIMARY KEY CHECK (length(id) = 8)
);

INSERT INTO event_source (id) VALUES (substring(uuid_send(gen_random_uuid()) FOR 8));

-- The last number given: whoever has the turn takes the next ones, so that they come in the order of the commits, without a gap
-- that is filled later.
INSERT INTO meta (name, value) VALUES ('event_seq', 0);

CREATE TABLE event (
    seq     bigint NOT NULL PRIMARY KEY,
    at      bigint NOT NULL,
    kind    text   NOT NULL,
    subject text   NOT NULL,
    data    text   NOT NULL
);

CREATE TABLE event_sink (
    name          text    COLLATE "C" NOT NULL PRIMARY KEY,
    passed        bigint  NOT NULL,
    fence         bigint  NOT NULL DEFAULT 0,
    holder        bytea,
    lease_until   bigint,
    failing_since bigint,
    problem       text,
    dead          boolean NOT NULL DEFAULT false
);
