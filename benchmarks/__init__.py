"""
How fast it is, beside how fast it could be at best, on the same machine in the same minutes.

    python -m benchmarks [name ...]

A figure alone says little about the code: machines differ, and so do minutes. So each
is measured next to its ceilings, in turns, and printed as a fraction of them. The load
generator shares the machine with what it measures, for the figures and the ceilings
alike.

To add a bench: a module with ``FIGURES`` and an async ``run(lab)`` that returns their
values, and a line in :mod:`benchmarks.__main__`.
"""
