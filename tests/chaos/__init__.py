"""
The crash suite: load, faults, and a judge that looks from outside only.

    python -m tests.chaos          or: make chaos

Clients remember every answer they got (:mod:`.history`, :mod:`.clients`); faults strike
(:mod:`.faults`); at the end :mod:`.judge` compares that memory with the rows in Postgres.
``broken`` runs the same against a product with a bug in it, and wants the judge to see it.
"""
