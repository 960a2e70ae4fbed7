"""
Two nodes of one Ray cluster on this machine: a head and another, each with two CPUs.

Run as a process of its own, ``python -m tests.cluster.nodes PORT_OF_HEAD PORT_OF_OTHER``, so that
what it starts ends with it. One line of JSON says where everything is; it ends with its input.
"""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster

#: A node that has died is missed after a second, where ten are usual.
_QUICK = {"health_check_period_ms": 250, "health_check_failure_threshold": 3}


def main() -> None:
    head_port, other_port = sys.argv[1:]
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": 0,
            "dashboard_agent_listen_port": 0,
            "_system_config": _QUICK,
            "env_vars": {"TRACKING_PORT": head_port},
        },
    )
    try:
        other = cluster.add_node(num_cpus=2, env_vars={"TRACKING_PORT": other_port})
        raylet = other.all_processes["raylet"][0].process.pid
        about = {"dashboard": f"http://{cluster.webui_url}", "raylet": raylet}
        about |= {"address": cluster.address, "other": other.node_id}
        print(json.dumps(about), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
