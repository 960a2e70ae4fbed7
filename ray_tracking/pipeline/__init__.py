"""
The way of an event, one file a step. Nothing here does I/O, reads a clock or draws
a random number: a step takes values (and ``now``) and returns values.

    receive    body bytes -> raw items: size, encoding, JSON
    validate   raw item -> Event, or what is wrong with it
    enrich     device and location of pixel and click hits
    route      Event -> Submission: identity, partition, lane, encoded row
    gather     Submissions <-> the one blob of a call to a shard
    admit      dedup window, rate limit, reserve / commit / release
    places     places in the next append, and what became of the events that have one
    append     record batches, markers and chains: what an entry of the log holds
    answer     outcomes -> what the caller is told
    write      what a reader may do next: gaps, positions, flushes

Beside the path: ``items`` (where those of a batch are that cannot be read as a whole),
``rows`` (the binary form of a row), ``links`` (which URLs we follow), ``window`` and ``rate``
(the two memories of admission), ``spooling`` (how old the events are that wait in a spool),
``room`` (how much may be in hand), ``pace`` (when it will be somebody's turn), ``breaker`` and
``backoff`` (when to ask again), ``level`` and ``overview`` (how much waits, cluster-wide).

Behind the log: ``read_ahead`` and ``backlog`` (what is read and waits), ``flush`` (what goes
into one transaction), ``batching`` (how much of it, and how long it waits), ``burst`` (whether
rows wait until a burst is over), ``parked`` (whose turn it is), ``bisect`` and ``care`` (which
row it is that fails), ``letters`` (what Postgres refused, shown and sent again), ``books``
(what became of every event).

Counted: ``formulas`` (each figure of a campaign as it is shown), ``recount`` (whether the figures
are what the rows say), ``replay`` (what is asked for, and how far it is), ``retention`` (which days
are dropped).

Live: ``figures`` (counted from headers, put right by the rows), ``broadcast`` (frames, their
ring and cursors), ``outbox`` (what waits for one slow client). And of the whole: ``modes``,
``traffic``, ``growth`` and ``progress`` (counts that outlive who counts, and what stands still),
``picture`` (all of it at one moment), of which ``health``, ``stats`` and ``gauges`` are made;
``scaling`` (how many replicas), ``doctor``. ``control`` is what all go by, as it may change;
``client_rate`` how often one client may ask.
"""
