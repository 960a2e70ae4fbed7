"""
Live updates to clients.

``hub`` keeps a copy of the broadcaster's ring and fans it out; ``websocket``, ``socketio``
and ``events`` (server-sent) are the three ways to be a subscriber of it.
"""
