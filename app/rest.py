"""The REST door: the fixed contract of `/v1/crm/tickets/{ticketId}/activity/{activityId}`.

It turns a request into the command that the mutation builds too, and the outcome into the nine
fields. Errors are RFC 9457 problems, written by the handlers in `app.main`.
"""

import re
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.activity.commands import UpdateActivity
from app.activity.state import ABSENT, Activity
from app.activity.values import format_datetime, parse_uuid
from app.errors import InvalidInput
from app.http import encode_json, read_json
from app.openapi import openapi_document
from app.timeline import Timeline

ACTIVITY_PATH = "/v1/crm/tickets/{ticketId}/activity/{activityId}"

# RFC 9110 section 8.8.3; a weak tag is read, and never matches a precondition for a write.
_ENTITY_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_ENTITY_TAGS = re.compile(rf"\s*{_ENTITY_TAG}(?:\s*,\s*{_ENTITY_TAG})*\s*")
_VERSION_TAG = re.compile(r'(W/)?"([1-9][0-9]{0,17})"')


def rest_routes(timeline: Timeline, *, max_body_bytes: int) -> list[Route]:
    """Build the routes of this door."""

    async def put_activity(request: Request) -> Response:
        viewer = await timeline.authenticate(request.headers.get("authorization"))
        body = await read_json(request, max_body_bytes)
        outcome = await timeline.submit(viewer, _command(request, body))
        return _activity_response(outcome.activity)

    async def get_activity(request: Request) -> Response:
        viewer = await timeline.authenticate(request.headers.get("authorization"))
        activity = await timeline.find_activity(viewer, *_ids(request))
        if _is_unmodified(request, activity):
            return Response(status_code=304, headers=_validators(activity))
        return _activity_response(activity)

    async def activity(request: Request) -> Response:
        # One route for all methods: Starlette's 405 names those of one route only.
        handler = put_activity if request.method == "PUT" else get_activity
        return await handler(request)

    async def get_openapi(_request: Request) -> Response:
        return JSONResponse(openapi_document(ACTIVITY_PATH))

    return [
        Route(ACTIVITY_PATH, activity, methods=["GET", "PUT"]),
        Route("/openapi.json", get_openapi, methods=["GET"]),
    ]


def _command(request: Request, body: Any) -> UpdateActivity:
    """Build the command; members of the body that the contract does not name are ignored."""
    if not isinstance(body, dict):
        raise InvalidInput("The body must be a JSON object.")
    ticket_id, activity_id = _ids(request)
    return UpdateActivity(
        ticket_id=ticket_id,
        activity_id=activity_id,
        message=body.get("message", ABSENT),
        metadata=body.get("metadata", ABSENT),
        is_private=body.get("isPrivate", ABSENT),
        expected_versions=_expected_versions(request),
    )


def _ids(request: Request) -> tuple[UUID, UUID]:
    ticket_id, activity_id = (request.path_params[name] for name in ("ticketId", "activityId"))
    return parse_uuid(ticket_id, "ticketId"), parse_uuid(activity_id, "activityId")


def _expected_versions(request: Request) -> frozenset[int] | None:
    """Read `If-Match` (RFC 9110 section 13.1.1), which compares strongly."""
    tags = _entity_tags(request, "if-match")
    if tags is None or tags == ["*"]:
        return None
    versions = (_VERSION_TAG.fullmatch(tag) for tag in tags)
    return frozenset(int(match[2]) for match in versions if match and not match[1])


def _is_unmodified(request: Request, activity: Activity) -> bool:
    """Read `If-None-Match` (RFC 9110 section 13.1.2), which compares weakly."""
    tags = _entity_tags(request, "if-none-match") or []
    return "*" in tags or _etag(activity) in [tag.removeprefix("W/") for tag in tags]


def _entity_tags(request: Request, name: str) -> list[str] | None:
    lines = request.headers.getlist(name)
    if not lines:
        return None
    value = ", ".join(lines).strip()
    if value == "*":
        return [value]
    if not _ENTITY_TAGS.fullmatch(value):
        raise InvalidInput(f'The header {name} must be * or a list of entity tags such as "3".')
    return re.findall(_ENTITY_TAG, value)


def _etag(activity: Activity) -> str:
    return f'"{activity.version}"'


def _validators(activity: Activity) -> dict[str, str]:
    return {
        "ETag": _etag(activity),
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization",
    }


def _activity_response(activity: Activity) -> Response:
    document = {
        "id": str(activity.id),
        "ticketId": str(activity.ticket_id),
        "activityType": activity.activity_type,
        "isPrivate": activity.is_private,
        "createdAt": format_datetime(activity.created_at),
        "actorId": activity.actor_id and str(activity.actor_id),
        "message": activity.message,
        "metadata": activity.metadata,
        "documentId": activity.document_id and str(activity.document_id),
    }
    return Response(
        encode_json(document), headers=_validators(activity), media_type="application/json"
    )
