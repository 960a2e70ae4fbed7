"""
Replays as Ray jobs: seen in ``ray job list`` and the dashboard, with what they are about.

Nothing secret is in a job's command or environment, which everybody sees there: the process
asks the application where Postgres is.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from shlex import quote
from typing import Any

import ray

from ray_tracking.errors import Unavailable

_WITHIN_S = 15.0


class ReplayJobs:
    """
    Submits and stops the jobs of replays.

    Args:
        application: The name of ours in Serve.
        schema: Where our tables are.
    """

    def __init__(self, application: str, schema: str) -> None:
        self._application = application
        self._schema = schema

    async def submit(self, replay: Mapping[str, Any]) -> None:
        """
        Have a job carry a replay out; one that was begun already goes on where it was.

        Raises:
            Unavailable: There is no dashboard to submit it to.
        """
        await self._ask(self._submit, dict(replay))

    async def stop(self, replay: Mapping[str, Any]) -> None:
        """End its process now; without that, it ends at its next step."""
        try:
            await self._ask(self._stop, dict(replay))
        except Unavailable:
            return

    async def _ask(self, do: Any, replay: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(_WITHIN_S):
                await asyncio.to_thread(do, replay)
        except (RuntimeError, ConnectionError, ValueError, OSError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise Unavailable(f"the Ray dashboard does not answer ({reason})") from error

    def _submit(self, replay: dict[str, Any]) -> None:
        job_id = _job_id(replay)
        client = _client()
        if any(job.submission_id == job_id for job in client.list_jobs()):
            return
        arguments = ["--id", replay["id"], "--application", self._application]
        # Where several Rays run on a machine, Ray tells its jobs of any one of them.
        arguments += ["--ray", ray.get_runtime_context().gcs_address]
        arguments += ["--campaign", replay["campaign_id"], "--schema", self._schema]
        client.submit_job(
            entrypoint=" ".join(
                quote(part)
                for part in [sys.executable, "-um", "ray_tracking.jobs.replay", *arguments]
            ),
            submission_id=job_id,
            metadata={
                "kind": "replay",
                "replayJobId": replay["id"],
                "campaignId": replay["campaign_id"],
                "from": replay["from_at"].isoformat(),
                "to": replay["to_at"].isoformat(),
                "estimatedEvents": str(replay["estimated_events"]),
            },
        )

    def _stop(self, replay: dict[str, Any]) -> None:
        client = _client()
        for job in client.list_jobs():
            if (job.metadata or {}).get("replayJobId") == replay["id"]:
                client.stop_job(job.submission_id)


def _job_id(replay: Mapping[str, Any]) -> str:
    """A job runs once; one that takes over from a dead one has a number."""
    begun: int = replay["runner_epoch"]
    return replay["id"] if not begun else f"{replay['id']}-{begun + 1}"


def _client() -> Any:
    # Not imported before it is needed: it brings along half of the dashboard.
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(ray.get_runtime_context().gcs_address)
