"""A campaign's outcome, for people and for files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.campaign import Report

_SHOWN = 15


def text(reports: Sequence[Report]) -> str:
    """Tables, violations, and a last line that says it all."""
    lines: list[str] = []
    for report in reports:
        lines += ["", f"{report.flavour}: {_figures(report)}", ""]
        lines += [f"  {what:<34} {count:>6}" for what, count in sorted(report.strikes.items())]
        title = "until events are taken again"
        lines += ["", f"  {title:<34} {'times':>6} {'median':>8} {'max':>8}"]
        for name, values in sorted(report.back_after_s.items()):
            lines.append(
                f"  {name:<34} {len(values):>6} {median(values):>6.2f} s {max(values):>6.2f} s"
            )
        lines += [f"  left out: {name}: {reason}" for name, reason in report.skipped.items()]
        counts = Counter(violation.promise for violation in report.violations)
        for promise, count in counts.items():
            lines.append(f"\n  {promise.upper()} broken {count} times:")
            found = [v.what for v in report.violations if v.promise == promise]
            lines += [f"    {what}" for what in found[:_SHOWN]]
        if report.violations:
            lines.append(f"\n  logs: {report.figures.get('kept')}")
    kills = sum(report.figures["kills"] for report in reports)
    acknowledged = sum(report.figures["acknowledged"] for report in reports)
    wrong = sum(len(report.violations) for report in reports)
    verdict = f"{wrong} VIOLATIONS" if wrong else "every promise kept"
    lines.append(f"\n{verdict}: {kills:,} kills, {acknowledged:,} acknowledged events")
    return "\n".join(lines)


def save(reports: Sequence[Report], path: Path) -> Path:
    """As JSON; where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n")
    return path


def _figures(report: Report) -> str:
    return ", ".join(f"{name} {value}" for name, value in report.figures.items())
