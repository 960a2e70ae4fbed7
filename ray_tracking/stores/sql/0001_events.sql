-- Rows of events, partitioned by the day (UTC) on which they were received, and the
-- positions up to which the log has become rows.

CREATE TABLE events (
    log_partition   integer     NOT NULL,
    log_lane        text        NOT NULL,
    log_epoch       bigint      NOT NULL,
    log_seq         bigint      NOT NULL,
    log_index       integer     NOT NULL,
    event_id        uuid        NOT NULL,
    event_type      text        NOT NULL,
    campaign_id     text,
    lead_id         text,
    email_id        text,
    account_id      text,
    client_event_id text,
    occurred_at     timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    agent           text,
    link_url        text,
    bounce_type     text,
    ip_address      inet,
    user_agent      text,
    device          jsonb,
    location        jsonb,
    custom          jsonb,
    details         jsonb
) PARTITION BY RANGE (received_at);

-- The last line of defence: a log position becomes a row once.
CREATE UNIQUE INDEX events_log_position ON events
    (log_partition, log_lane, log_epoch, log_seq, log_index, received_at);

-- Every reading call is about one campaign, newest first.
CREATE INDEX events_campaign ON events (campaign_id, received_at, event_id);

CREATE TABLE log_positions (
    log_partition integer     NOT NULL,
    log_lane      text        NOT NULL,
    epoch         bigint      NOT NULL DEFAULT 0,
    seq           bigint      NOT NULL DEFAULT 0,
    writer_epoch  bigint      NOT NULL DEFAULT 0,
    rows_total    bigint      NOT NULL DEFAULT 0,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_partition, log_lane)
) WITH (fillfactor = 50);

CREATE TABLE tracking_meta (
    name  text PRIMARY KEY,
    value text NOT NULL
);

-- Entries that were missing from the log, and that an operator went on without.
CREATE TABLE accepted_gaps (
    accepted_at    timestamptz NOT NULL DEFAULT now(),
    log_partition  integer     NOT NULL,
    log_lane       text        NOT NULL,
    after_entry    text        NOT NULL,
    found_entry    text        NOT NULL,
    events_missing bigint
);
