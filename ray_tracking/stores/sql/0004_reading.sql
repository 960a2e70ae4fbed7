-- One lead's events, to be read, handed out, or erased.
CREATE INDEX events_lead ON events (lead_id, campaign_id);

-- Tables of days whose rows stand in the sealed sums already and are about to be dropped.
CREATE TABLE rollup_sealed_tables (
    table_oid  oid  PRIMARY KEY,
    table_name text NOT NULL
);

-- The figures for people who bring tools of their own; the names are those of the API.
CREATE VIEW campaign_stats AS
SELECT t.campaign_id, t.sent, t.delivered, t.opens, t.unique_opens, t.clicks, t.unique_clicks,
       t.replies, t.unique_replies, t.hard AS hard_bounces, t.soft AS soft_bounces,
       t.complaint AS complaints, t.suppression AS suppressions, t.machine_opens,
       t.machine_clicks,
       r.open_rate, r.click_rate, r.reply_rate, r.bounce_rate, r.complaint_rate,
       t.first_event_at, t.last_event_at
FROM rollup_totals t
     LEFT JOIN rollup_generations g USING (campaign_id)
     CROSS JOIN LATERAL (SELECT coalesce(nullif(t.delivered, 0), nullif(t.sent, 0))::float8) w(reached)
     CROSS JOIN LATERAL (
         SELECT t.unique_opens / w.reached, t.unique_clicks / w.reached,
                t.unique_replies / w.reached, (t.hard + t.soft) / nullif(t.sent, 0)::float8,
                t.complaint / w.reached
     ) r(open_rate, click_rate, reply_rate, bounce_rate, complaint_rate)
WHERE t.generation = coalesce(g.generation, 0) AND t.events > 0;

CREATE VIEW campaign_timeline AS
SELECT b.campaign_id, b.bucket, b.bucket_start, b.event_type, b.is_machine, b.events
FROM rollup_buckets b LEFT JOIN rollup_generations g USING (campaign_id)
WHERE b.generation = coalesce(g.generation, 0) AND b.events > 0;
