-- Campaigns that have limits of their own; null: as much as the others.

CREATE TABLE campaign_limits (
    campaign_id           text        PRIMARY KEY,
    max_events_per_window integer,
    burst_capacity        integer,
    updated_at            timestamptz NOT NULL DEFAULT now(),
    CHECK (coalesce(max_events_per_window, burst_capacity) IS NOT NULL)
);

-- Grows with each change: whoever hands the limits on reads them all only then.
CREATE TABLE campaign_limits_version (version bigint NOT NULL);
INSERT INTO campaign_limits_version VALUES (0);
