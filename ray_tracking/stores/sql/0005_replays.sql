-- Replays: what was asked for, how far each is, and where it goes on after its process died.

CREATE TABLE replays (
    id                  text        PRIMARY KEY,
    campaign_id         text        NOT NULL,
    from_at             timestamptz NOT NULL,
    to_at               timestamptz NOT NULL,
    event_types         text[],
    batch_size          integer     NOT NULL,
    reprocess_analytics boolean     NOT NULL,
    broadcast_updates   boolean     NOT NULL,
    status              text        NOT NULL DEFAULT 'PENDING',
    estimated_events    bigint      NOT NULL,
    processed           bigint      NOT NULL DEFAULT 0,
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    finished_at         timestamptz,
    error               text,
    -- Who works on it, how often somebody began to, and when it was last heard of.
    runner_epoch        bigint      NOT NULL DEFAULT 0,
    heard_at            timestamptz NOT NULL DEFAULT now(),
    -- The generation that it counts into, and the last row that is in it.
    generation          bigint,
    received_at         timestamptz,
    event_id            uuid,
    -- Rows up to these positions of the campaign's partition are counted row by row; those
    -- behind them as the roller does it. Of the lanes high, normal and parked.
    base_epochs         bigint[],
    base_seqs           bigint[],
    base_rows           bigint
);

CREATE INDEX replays_newest ON replays (created_at, id);

ALTER TABLE rollup_generations
    -- When the figures were last corrected, where those who watch are to see it.
    ADD COLUMN corrected_at timestamptz;
