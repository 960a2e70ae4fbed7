"""
How fast it is, beside how fast it could be at best, on the same machine in the same minutes.

    python -m benchmarks [name ...]

A figure alone says little about the code: machines differ, and so do minutes. So each
is measured next to its ceilings, in turns, and printed as a fraction of them. The load
generator shares the machine with what it measures, for the figures and the ceilings
alike.

Every bench runs the real service and asks it over its public interface. The first of them take
turns on one service; the others have a service of their own:

    single        one event a request: closed loop, and the highest rate that is sustained
    pixel         the same for pixels and clicks
    mixed         pixels, clicks, webhooks and batches at once
    batch         batches of 500, until they are durable and until they are rows
    batch-minute  the same for a minute
    dedup         batches with duplicates in them
    cpu           processor time by kind of process, statements and transactions
    failover      how long a killed actor is away
    priority      bounces beside a backlog of opens
    latency       single events at steady rates, until acknowledged and until a row
    durability    with the log's fsync and without
    presets       whether they do what their names say
    cold-start    until the first event is acknowledged
    backlog       with millions of rows, and with a million events that wait
    overload      three times more than it can take
    outage        Postgres away, the event log away
    memory        under a million events an hour

At the end each goal stands beside its figure, met or not (:mod:`benchmarks.goals`). All of it
takes a little more than an hour, a quarter of one for ``memory``.

To add a bench: a module with ``FIGURES`` and an async ``run`` that returns their values, of a
``Lab`` or, with a service of its own, as a list of runs, of the ``Plan``; and its name in
:mod:`benchmarks.__main__`.
"""
