"""Everything of one lead over the API: hand it out, erase it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_tracking.http.asked import read_id
from ray_tracking.http.guard import needs
from ray_tracking.http.ports import Ports
from ray_tracking.pipeline.letters import show
from ray_tracking.pipeline.rows import event_data, iso_utc
from ray_tracking.stores.erase import Belongings

_FLAGS = {"opened": 1, "clicked": 2, "replied": 4}


class Leads:
    """
    The calls about leads.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    @needs("admin")
    async def export(self, request: Request) -> Response:
        """``GET /leads/{id}/export``."""
        lead_id = read_id(request, "lead_id")
        found = await self.ports.queries.leads.export(lead_id)
        return JSONResponse(_belongings(lead_id, found))

    @needs("admin")
    async def erase(self, request: Request) -> Response:
        """``DELETE /leads/{id}``; it may be repeated."""
        lead_id = read_id(request, "lead_id")
        receipt = await self.ports.queries.leads.erase(lead_id)
        await self.ports.erased.refresh()
        return JSONResponse(
            {
                "success": True,
                "leadId": lead_id,
                "erasedAt": iso_utc(receipt.erased_at),
                "removed": {
                    "events": receipt.events,
                    "deadLetters": receipt.dead_letters,
                    "campaigns": receipt.campaigns,
                },
                "message": "What is still on its way is discarded, and tokens minted until now "
                "record nothing more. The event log keeps its entries until they are trimmed.",
            }
        )


def _belongings(lead_id: str, found: Belongings) -> dict[str, Any]:
    return {
        "leadId": lead_id,
        "events": [
            {
                "eventId": row["client_event_id"] or str(row["event_id"]),
                "eventType": row["event_type"],
                "eventData": event_data(row),
                "receivedAt": iso_utc(row["received_at"]),
            }
            for row in found.rows
        ],
        "campaigns": [
            {"campaignId": row["campaign_id"]}
            | {name: bool(row["flags"] & flag) for name, flag in _FLAGS.items()}
            for row in found.uniques
        ],
        "deadLetters": [show(letter) for letter in found.letters],
    }
