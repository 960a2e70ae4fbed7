"""
How rows become figures: one statement that adds some rows to every table of figures.

Whoever counts has a source of rows: the roller what the writer has just stored, a replay the
rows of a campaign, retention those of a day. What they do with it is the same.
"""

from __future__ import annotations

#: What a source has, of a row ``e`` of ``events``, beside the generation that it counts for.
SOURCE_COLUMNS = """
e.campaign_id, e.event_type, e.agent IS NOT DISTINCT FROM 'machine' AS is_machine, e.lead_id,
e.bounce_type, e.occurred_at, e.link_url,
CASE WHEN e.event_type = 'LINK_CLICK' THEN e.details ->> 'linkId' END AS link_id,
CASE WHEN e.event_type IN ('EMAIL_OPEN', 'LINK_CLICK')
     THEN coalesce(left(e.device ->> 'type', 64), '') END AS device,
CASE WHEN e.event_type IN ('EMAIL_OPEN', 'LINK_CLICK')
     THEN coalesce(left(e.location ->> 'country', 64), '') END AS country
"""

#: What identifies a link: its URL and its id, of any length.
LINK_KEY = "sha256(convert_to(link_url || coalesce(E'\\n' || link_id, ''), 'UTF8'))"

#: Column of ``rollup_totals`` to what a row must be to count for it.
COUNTED = {
    "sent": "event_type = 'EMAIL_SENT' AND NOT is_machine",
    "delivered": "event_type = 'EMAIL_DELIVERED' AND NOT is_machine",
    "opens": "event_type = 'EMAIL_OPEN' AND NOT is_machine",
    "clicks": "event_type = 'LINK_CLICK' AND NOT is_machine",
    "replies": "event_type = 'EMAIL_REPLY' AND NOT is_machine",
    "hard": "event_type = 'EMAIL_BOUNCE' AND bounce_type = 'hard' AND NOT is_machine",
    "soft": "event_type = 'EMAIL_BOUNCE' AND bounce_type = 'soft' AND NOT is_machine",
    "complaint": "event_type = 'EMAIL_BOUNCE' AND bounce_type = 'complaint' AND NOT is_machine",
    "suppression": "event_type = 'EMAIL_BOUNCE' AND bounce_type = 'suppression' AND NOT is_machine",
    "machine_opens": "event_type = 'EMAIL_OPEN' AND is_machine",
    "machine_clicks": "event_type = 'LINK_CLICK' AND is_machine",
    "status_changes": "event_type = 'CAMPAIGN_STATUS_CHANGE'",
    "health_updates": "event_type = 'ACCOUNT_HEALTH_UPDATE'",
    "events": "true",
}
#: Column of ``rollup_totals`` to the flag in ``rollup_leads``, and the type that sets it.
UNIQUE = {
    "unique_opens": (1, "EMAIL_OPEN"),
    "unique_clicks": (2, "LINK_CLICK"),
    "unique_replies": (4, "EMAIL_REPLY"),
}
BUCKETS = ("minute", "hour", "day")


_KEY = "campaign_id, generation"
_SUMS = ", ".join(f"count(*) FILTER (WHERE {what}) AS {name}" for name, what in COUNTED.items())
_UNIQUE_SUMS = ", ".join(
    f"count(*) FILTER (WHERE added & {flag} <> 0) AS {name}" for name, (flag, _) in UNIQUE.items()
)
_FLAG = " ".join(f"WHEN '{kind}' THEN {flag}" for flag, kind in UNIQUE.values())
_UNIQUE_TYPES = ", ".join(f"'{kind}'" for _, kind in UNIQUE.values())
_TOTALS = ", ".join((*COUNTED, *UNIQUE))
_ADDED = ", ".join(f"{name} = t.{name} + excluded.{name}" for name in (*COUNTED, *UNIQUE))
_VALUES = ", ".join(
    (*(f"s.{name}" for name in COUNTED), *(f"coalesce(u.{name}, 0)" for name in UNIQUE))
)

_BUCKETS = " UNION ALL ".join(
    f"SELECT {_KEY}, '{bucket}', date_trunc('{bucket}', minute), event_type, is_machine, "
    f"sum(n)::bigint FROM minutes GROUP BY {_KEY}, date_trunc('{bucket}', minute), event_type, "
    "is_machine"
    for bucket in BUCKETS
)


def fold(source: str, answer: str = "count(*)", beside: str = "") -> str:
    """
    The statement that adds rows to the figures, and answers how many there were.

    It may run beside others of the same campaigns and generations only if they wait for each
    other: a lead that is new to two at once would be counted by both.

    Args:
        source: A query with :data:`SOURCE_COLUMNS` and ``generation``.
        answer: An aggregate of the source, where another one is asked for.
        beside: An update that is to happen with it, of a table that is no figure.
    """
    beside = f",\nbeside AS ({beside})" if beside else ""
    # Whether a lead is known is asked in a subquery for each, which is always a look into the
    # index; a join might read all leads that there are. Asked in the index's order, because
    # neighbours are on one page, and (OFFSET 0) once, not for each use of the answer.
    return f"""
WITH source AS MATERIALIZED ({source}),
sums AS (
    SELECT {_KEY}, {_SUMS},
           min(occurred_at) AS first_event_at, max(occurred_at) AS last_event_at
    FROM source GROUP BY {_KEY}),
minutes AS MATERIALIZED (
    SELECT {_KEY}, date_trunc('minute', occurred_at) AS minute, event_type, is_machine,
           count(*) AS n
    FROM source GROUP BY {_KEY}, date_trunc('minute', occurred_at), event_type, is_machine),
put_buckets AS (
    INSERT INTO rollup_buckets AS t {_BUCKETS}
    ON CONFLICT ({_KEY}, bucket, bucket_start, event_type, is_machine)
    DO UPDATE SET events = t.events + excluded.events),
put_groups AS (
    INSERT INTO rollup_groups AS t
    SELECT {_KEY}, g.kind, g.name, event_type, sum(n)::bigint
    FROM (SELECT {_KEY}, device, country, event_type, count(*) AS n FROM source
          WHERE device IS NOT NULL AND NOT is_machine
          GROUP BY {_KEY}, device, country, event_type) d,
         LATERAL (VALUES ('device', device), ('country', country)) g(kind, name)
    GROUP BY {_KEY}, g.kind, g.name, event_type
    ON CONFLICT ({_KEY}, kind, name, event_type) DO UPDATE SET events = t.events + excluded.events),
clicks AS MATERIALIZED (
    SELECT {_KEY}, {LINK_KEY} AS link_key, link_url, link_id, lead_id
    FROM source WHERE event_type = 'LINK_CLICK' AND NOT is_machine AND link_url IS NOT NULL),
link_sums AS (
    SELECT {_KEY}, link_key, min(link_url) AS link_url, min(link_id) AS link_id, count(*) AS clicks
    FROM clicks GROUP BY {_KEY}, link_key),
link_leads AS (
    SELECT DISTINCT {_KEY}, link_key, lead_id FROM clicks WHERE lead_id IS NOT NULL),
new_link_leads AS MATERIALIZED (
    SELECT * FROM link_leads c
    WHERE (SELECT true FROM rollup_link_leads k
           WHERE k.campaign_id = c.campaign_id AND k.generation = c.generation
             AND k.link_key = c.link_key AND k.lead_id = c.lead_id) IS NULL),
put_link_leads AS (
    INSERT INTO rollup_link_leads SELECT {_KEY}, link_key, lead_id FROM new_link_leads),
put_links AS (
    INSERT INTO rollup_links AS t
    SELECT {_KEY}, link_key, link_url, link_id, clicks, coalesce(n, 0)
    FROM link_sums LEFT JOIN (SELECT {_KEY}, link_key, count(*) AS n FROM new_link_leads
                              GROUP BY {_KEY}, link_key) u USING ({_KEY}, link_key)
    ON CONFLICT ({_KEY}, link_key) DO UPDATE SET
        clicks = t.clicks + excluded.clicks,
        unique_clicks = t.unique_clicks + excluded.unique_clicks),
leads AS (
    SELECT {_KEY}, lead_id, bit_or(CASE event_type {_FLAG} END) AS flags
    FROM source WHERE event_type IN ({_UNIQUE_TYPES}) AND NOT is_machine AND lead_id IS NOT NULL
    GROUP BY {_KEY}, lead_id ORDER BY {_KEY}, lead_id),
looked_up AS MATERIALIZED (
    SELECT {_KEY}, lead_id, known IS NULL AS is_new, flags & ~coalesce(known, 0) AS added
    FROM (SELECT l.*, (SELECT k.flags::integer FROM rollup_leads k
                       WHERE k.campaign_id = l.campaign_id AND k.generation = l.generation
                         AND k.lead_id = l.lead_id) AS known
          FROM leads l OFFSET 0) l),
put_new_leads AS (
    INSERT INTO rollup_leads SELECT {_KEY}, lead_id, added FROM looked_up WHERE is_new),
put_known_leads AS (
    UPDATE rollup_leads t SET flags = t.flags | l.added FROM looked_up l
    WHERE NOT l.is_new AND l.added <> 0
      AND (t.campaign_id, t.generation, t.lead_id) = (l.campaign_id, l.generation, l.lead_id)),
put_totals AS (
    INSERT INTO rollup_totals AS t ({_KEY}, {_TOTALS}, first_event_at, last_event_at)
    SELECT s.campaign_id, s.generation, {_VALUES}, s.first_event_at, s.last_event_at
    FROM sums s LEFT JOIN (SELECT {_KEY}, {_UNIQUE_SUMS} FROM looked_up GROUP BY {_KEY}) u
         USING ({_KEY})
    ON CONFLICT ({_KEY}) DO UPDATE SET {_ADDED},
        first_event_at = least(t.first_event_at, excluded.first_event_at),
        last_event_at = greatest(t.last_event_at, excluded.last_event_at)){beside}
SELECT {answer} FROM source
"""


def unfold(source: str) -> str:
    """
    The statement that takes rows out of the figures again; uniques and times stay.

    Args:
        source: A query as for :func:`fold`, of rows that are counted.
    """
    less = ", ".join(f"{name} = t.{name} - s.{name}" for name in COUNTED)
    return f"""
WITH source AS MATERIALIZED ({source}),
sums AS (SELECT {_KEY}, {_SUMS} FROM source GROUP BY {_KEY}),
minutes AS MATERIALIZED (
    SELECT {_KEY}, date_trunc('minute', occurred_at) AS minute, event_type, is_machine,
           count(*) AS n
    FROM source GROUP BY {_KEY}, date_trunc('minute', occurred_at), event_type, is_machine),
buckets({_KEY}, bucket, bucket_start, event_type, is_machine, n) AS ({_BUCKETS}),
take_buckets AS (
    UPDATE rollup_buckets t SET events = t.events - s.n FROM buckets s
    WHERE (t.campaign_id, t.generation, t.bucket, t.bucket_start, t.event_type, t.is_machine)
        = (s.campaign_id, s.generation, s.bucket, s.bucket_start, s.event_type, s.is_machine)),
groups AS (
    SELECT {_KEY}, g.kind, g.name, event_type, count(*) AS n
    FROM source, LATERAL (VALUES ('device', device), ('country', country)) g(kind, name)
    WHERE device IS NOT NULL AND NOT is_machine GROUP BY {_KEY}, g.kind, g.name, event_type),
take_groups AS (
    UPDATE rollup_groups t SET events = t.events - s.n FROM groups s
    WHERE (t.campaign_id, t.generation, t.kind, t.name, t.event_type)
        = (s.campaign_id, s.generation, s.kind, s.name, s.event_type)),
links AS (
    SELECT {_KEY}, {LINK_KEY} AS link_key, count(*) AS n FROM source
    WHERE event_type = 'LINK_CLICK' AND NOT is_machine AND link_url IS NOT NULL
    GROUP BY {_KEY}, link_url, link_id),
take_links AS (
    UPDATE rollup_links t SET clicks = t.clicks - s.n FROM links s
    WHERE (t.campaign_id, t.generation, t.link_key) = (s.campaign_id, s.generation, s.link_key)),
take_totals AS (
    UPDATE rollup_totals t SET {less} FROM sums s
    WHERE (t.campaign_id, t.generation) = (s.campaign_id, s.generation))
SELECT count(*) FROM source
"""
