-- Figures of campaigns, counted from the rows of events behind the writer, and the positions
-- up to which they count. Every table of figures holds several generations of a campaign: a
-- replay counts into a new one, and which one is shown changes at once. Generation -1 holds
-- what stood in days that retention has dropped.

ALTER TABLE log_positions
    -- Unix milliseconds: no row behind the rolled position was received earlier.
    ADD COLUMN oldest_ms bigint NOT NULL DEFAULT 0;

CREATE TABLE rollup_positions (
    log_partition integer     NOT NULL,
    log_lane      text        NOT NULL,
    epoch         bigint      NOT NULL DEFAULT 0,
    seq           bigint      NOT NULL DEFAULT 0,
    roller_epoch  bigint      NOT NULL DEFAULT 0,
    -- About as many rows stand up to the position; exact where it is that of log_positions.
    rows_total    bigint      NOT NULL DEFAULT 0,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_partition, log_lane)
) WITH (fillfactor = 50);

INSERT INTO rollup_positions (log_partition, log_lane)
SELECT log_partition, log_lane FROM log_positions;

-- The generation that is shown, of campaigns where it is not 0.
CREATE TABLE rollup_generations (
    campaign_id text   PRIMARY KEY,
    generation  bigint NOT NULL
);

CREATE SEQUENCE rollup_generation;

CREATE TABLE rollup_totals (
    campaign_id    text   NOT NULL,
    generation     bigint NOT NULL,
    sent           bigint NOT NULL,
    delivered      bigint NOT NULL,
    opens          bigint NOT NULL,
    unique_opens   bigint NOT NULL,
    clicks         bigint NOT NULL,
    unique_clicks  bigint NOT NULL,
    replies        bigint NOT NULL,
    unique_replies bigint NOT NULL,
    hard           bigint NOT NULL,
    soft           bigint NOT NULL,
    complaint      bigint NOT NULL,
    suppression    bigint NOT NULL,
    machine_opens  bigint NOT NULL,
    machine_clicks bigint NOT NULL,
    status_changes bigint NOT NULL,
    health_updates bigint NOT NULL,
    -- All rows, whatever they are.
    events         bigint NOT NULL,
    first_event_at timestamptz,
    last_event_at  timestamptz,
    PRIMARY KEY (campaign_id, generation)
) WITH (fillfactor = 50);

-- By the events' own times, in UTC. A late event comes to its own bucket.
CREATE TABLE rollup_buckets (
    campaign_id  text        NOT NULL,
    generation   bigint      NOT NULL,
    bucket       text        NOT NULL,  -- minute, hour, day
    bucket_start timestamptz NOT NULL,
    event_type   text        NOT NULL,
    is_machine   boolean     NOT NULL,
    events       bigint      NOT NULL,
    PRIMARY KEY (campaign_id, generation, bucket, bucket_start, event_type, is_machine)
) WITH (fillfactor = 80);

-- Opens and clicks by people, by type of device and by country; '' where it is not known.
CREATE TABLE rollup_groups (
    campaign_id text   NOT NULL,
    generation  bigint NOT NULL,
    kind        text   NOT NULL,  -- device, country
    name        text   NOT NULL,
    event_type  text   NOT NULL,
    events      bigint NOT NULL,
    PRIMARY KEY (campaign_id, generation, kind, name, event_type)
) WITH (fillfactor = 80);

-- A link is its URL and its id; the key is a hash of both, because a URL may be too long for
-- an index.
CREATE TABLE rollup_links (
    campaign_id   text   NOT NULL,
    generation    bigint NOT NULL,
    link_key      bytea  NOT NULL,
    link_url      text   NOT NULL,
    link_id       text,
    clicks        bigint NOT NULL,
    unique_clicks bigint NOT NULL,
    PRIMARY KEY (campaign_id, generation, link_key)
) WITH (fillfactor = 80);

-- Leads that are counted as unique: 1 opened, 2 clicked, 4 replied.
CREATE TABLE rollup_leads (
    campaign_id text     NOT NULL,
    generation  bigint   NOT NULL,
    lead_id     text     NOT NULL,
    flags       smallint NOT NULL,
    PRIMARY KEY (campaign_id, generation, lead_id)
) WITH (fillfactor = 80);

CREATE TABLE rollup_link_leads (
    campaign_id text   NOT NULL,
    generation  bigint NOT NULL,
    link_key    bytea  NOT NULL,
    lead_id     text   NOT NULL,
    PRIMARY KEY (campaign_id, generation, link_key, lead_id)
);
