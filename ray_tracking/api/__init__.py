"""
What the clients and the processor have in common: everything but the way to the service.

    wire       what Python code hands over -> the bodies of the API
    answers    the answers of the API -> typed values
    attempts   one question until it is answered, or given up: plans without I/O
    calls      a plan for each method
    carriers   plans carried out: in an event loop, or in a thread
    handlers   who is told of what happens

A plan is a generator: it yields a :class:`~ray_tracking.api.attempts.Request` to be sent, or
a :class:`~ray_tracking.api.attempts.Pause`, and returns the answer. So when to try again is
decided in one place, whether the requests go over HTTP or over a socket inside the cluster,
and whether whoever waits is a coroutine or a thread.
"""
