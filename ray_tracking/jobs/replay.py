"""``python -m ray_tracking.jobs.replay``: the process of a replay's Ray job."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import click
import ray
from ray import serve

from ray_tracking import logs
from ray_tracking.errors import Fenced
from ray_tracking.jobs.carry_out import carry_out
from ray_tracking.pipeline.replay import ReplayStatus
from ray_tracking.stores.database import open_pool
from ray_tracking.stores.recompute import Recompute, ReplayEnded
from ray_tracking.stores.replays import ReplayStore


@click.command()
@click.option("--id", "replay_id", required=True)
@click.option("--campaign", "campaign_id", required=True)
@click.option("--ray", "address", required=True, help="Where the application's Ray is.")
@click.option("--application", required=True, help="The name of ours in Serve.")
@click.option("--schema", required=True, help="Where our tables are.")
def main(replay_id: str, campaign_id: str, address: str, application: str, schema: str) -> None:
    """Carry out a replay that is stored, or go on with it."""
    logs.configure("info", f"replay-{replay_id}")
    ray.init(address=address, namespace="ray_tracking", logging_level="WARNING")
    supervisor = serve.get_deployment_handle("Supervisor", application)
    url = supervisor.runtime.remote().result().database_url
    asyncio.run(_run(url, schema, replay_id, campaign_id))


async def _run(url: str, schema: str, replay_id: str, campaign_id: str) -> None:
    recompute = Recompute(url, schema, replay_id)
    store = ReplayStore(await open_pool(url, schema, "ray-tracking replay", max_size=1))
    work = asyncio.create_task(carry_out(recompute, campaign_id))
    # As `ray job stop` asks.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    try:
        with contextlib.suppress(ReplayEnded, Fenced):
            await work
    except asyncio.CancelledError:
        await store.end(replay_id, ReplayStatus.STOPPED)
    except Exception as error:
        await store.end(replay_id, ReplayStatus.FAILED, str(error))
        raise
    finally:
        await recompute.close()


if __name__ == "__main__":
    main()
