"""Request ids: a repeated call gets the first outcome, another call is refused."""

from __future__ import annotations

from att_server.core.errors import AttError, Reason
from att_server.core.ports import StateStore
from att_server.core.request_claim import RequestClaim


async def claim(store: StateStore, request: RequestClaim) -> RequestClaim | None:
    """Keeps the claim and returns None, or returns the equal one that was kept before.

    A claim without a request id is not kept. Raises REQUEST_ID_REUSED when the
    id was used for another method or other arguments.
    """
    if not request.request_id:
        return None
    return same_request(request, await store.claim_request(request))


def same_request(request: RequestClaim, known: RequestClaim | None) -> RequestClaim | None:
    """`known`, which was kept under the same id. Raises REQUEST_ID_REUSED as `claim`."""
    if known is not None and (known.method, known.digest) != (request.method, request.digest):
        raise AttError(
            Reason.REQUEST_ID_REUSED,
            f"The request id {request.request_id!r} was used for another request. "
            "Use a new id for a new request.",
            request_id=request.request_id,
        )
    return known
