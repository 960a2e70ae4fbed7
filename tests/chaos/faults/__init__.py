"""Everything that can go wrong, one small class each."""

from __future__ import annotations

from tests.chaos.faults import clocks, kills, losses, network, points, storage
from tests.chaos.faults.base import PILED_S, Fault, Scene

ALL: dict[str, type[Fault]] = {
    fault.name: fault
    for module in (kills, network, storage, losses, points, clocks)
    for fault in module.FAULTS
}

__all__ = ["ALL", "PILED_S", "Fault", "Scene"]
