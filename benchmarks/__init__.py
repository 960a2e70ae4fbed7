"""
How fast it is, beside how fast it could be at best, on the same machine in the same minutes.

    python -m benchmarks [name ...]

A figure alone says little about the code: machines differ, and so do minutes. So each
is measured next to its ceilings, in turns, and printed as a fraction of them. The load
generator shares the machine with what it measures, for the figures and the ceilings
alike.

Every bench runs the real service and asks it over its public interface. Those of speed take
turns on one service; ``latency``, those of bad days (``overload``, ``outage``) and of long
ones (``memory``) have a service of their own.

To add a bench: a module with ``FIGURES`` and an async ``run`` that returns their values, of a
``Lab`` or, with a service of its own, of the ``Plan``; and its name in
:mod:`benchmarks.__main__`.
"""
