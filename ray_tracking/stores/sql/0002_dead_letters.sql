-- Events that Postgres refuses for what they are, and the books: what became of every
-- event that ever stood in the log.

CREATE TABLE dead_letters (
    id              uuid        PRIMARY KEY,  -- the event's event_id
    status          text        NOT NULL DEFAULT 'dead',  -- dead, redriven, discarded
    event_type      text        NOT NULL,
    routing_key     text        NOT NULL,
    campaign_id     text,
    received_at     timestamptz NOT NULL,
    failure_reason  text        NOT NULL,
    sqlstate        text,
    attempts        integer     NOT NULL DEFAULT 1,
    first_failed_at timestamptz NOT NULL DEFAULT now(),
    failed_at       timestamptz NOT NULL DEFAULT now(),
    -- Where it stood in the log when it failed last.
    log_partition   integer     NOT NULL,
    log_lane        text        NOT NULL,
    log_epoch       bigint      NOT NULL,
    log_seq         bigint      NOT NULL,
    log_index       integer     NOT NULL,
    -- The submission, to send it again.
    flags           integer     NOT NULL,
    digest          bytea       NOT NULL,
    occurred_us     bigint      NOT NULL,
    encoded_row     bytea       NOT NULL
);

CREATE INDEX dead_letters_newest ON dead_letters (failed_at, id);

ALTER TABLE log_positions
    -- Of the events up to the position: rows_total became rows, and these did not.
    ADD COLUMN dead_total      bigint  NOT NULL DEFAULT 0,
    ADD COLUMN discarded_total bigint  NOT NULL DEFAULT 0,
    ADD COLUMN missing_total   bigint  NOT NULL DEFAULT 0,
    -- What ends the process that writes it is found by these (pipeline/care.py). Writers that
    -- had the entry behind the position in hand: the one that moved it there, and those that
    -- took over since. What was being tried when the last one died: a row of that entry, or -1
    -- for all of it. Rows of it that are known to end their writer.
    ADD COLUMN attempts        integer   NOT NULL DEFAULT 0,
    ADD COLUMN trying_index    integer,
    ADD COLUMN deadly          integer[] NOT NULL DEFAULT '{}';
