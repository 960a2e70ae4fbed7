-- Leads that were erased, by a hash of their id: what was received of them until then is
-- discarded wherever it still comes from, and tokens minted before lead to nothing more.

CREATE TABLE erased_leads (
    lead_key  bytea       PRIMARY KEY,  -- sha256 of the lead's id
    erased_at timestamptz NOT NULL,
    -- A little later than erased_at: by then everybody refuses the old tokens.
    until     timestamptz NOT NULL
);

CREATE INDEX erased_leads_newest ON erased_leads (until);
