"""What holds for every ring."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from ray_tracking import logs

# As services are started: a test that reads standard output meets no details.
logs.configure("info")

# No deadline: a machine that is busy must not turn a test red. The blob of a failure
# lets anybody run the same example again.
settings.register_profile(
    "default",
    deadline=None,
    print_blob=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2000)
settings.load_profile("default")
