"""The REST door: the fixed contract of `/v1/crm/tickets/{ticketId}/activity/{activityId}`.

It turns a request into the same command as the mutation, and the outcome into the nine fields of
the contract. Errors are RFC 9457 problems, written by the handlers in `app.problems`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.activity.commands import UpdateActivity
from app.activity.idempotency import Answer, Step
from app.activity.outcomes import Outcome
from app.activity.state import ABSENT, Activity
from app.activity.values import format_datetime, parse_uuid
from app.admission import Admit
from app.auth import Viewer
from app.conditions import Preconditions, read_preconditions
from app.errors import InvalidInput, UserError, VersionConflict
from app.http import (
    REQUEST_BODY,
    header_value,
    header_values,
    idempotency_key,
    note,
    read_json_text,
    request_id,
)
from app.json_text import encode_json, parse_json
from app.openapi import openapi_document
from app.problems import problem
from app.rate_limits import RateLimits
from app.timeline import Timeline
from app.turns import Turns

ACTIVITY_PATH = "/v1/crm/tickets/{ticketId}/activity/{activityId}"


@dataclass(frozen=True, slots=True)
class _Door:
    """The endpoints of this door."""

    timeline: Timeline
    admit: Admit
    limits: RateLimits | None
    turns: Turns
    max_body_bytes: int

    async def activity(self, request: Request) -> Response:
        # One route for all methods: Starlette's 405 allows those of a single route only.
        handler = self._put_activity if request.method == "PUT" else self._get_activity
        return await handler(request)

    async def openapi(self, _request: Request) -> Response:
        return JSONResponse(openapi_document(ACTIVITY_PATH, self.timeline.limits))

    async def _viewer(self, request: Request) -> Viewer:
        viewer = await self.admit(request.scope, header_value(request.scope, b"authorization"))
        note(request.scope, "viewer", viewer)
        if self.limits:
            await self.limits.count(request.scope, viewer)
        return viewer

    async def _put_activity(self, request: Request) -> Response:
        note(request.scope, "operation", "updateTicketActivity")
        viewer = await self._viewer(request)
        text = await read_json_text(request.scope, request.receive, self.max_body_bytes)
        return await self.turns.run(viewer.token_id, self._put(request, viewer, text))

    async def _put(self, request: Request, viewer: Viewer, text: bytes) -> Response:
        body = parse_json(text, REQUEST_BODY)
        command = _command(request, body)
        if key := idempotency_key(request.scope):
            return await self._put_once(request, viewer, command, body, key)
        outcome = await self.timeline.submit(viewer, command)
        return _activity_response(outcome.activity)

    async def _put_once(
        self, request: Request, viewer: Viewer, command: UpdateActivity, body: Any, key: str
    ) -> Response:
        scope = request.scope
        conditions = [header_values(scope, name) for name in (b"if-match", b"if-none-match")]
        target = [scope["path"], command.allows_merged]
        keyed = await self.timeline.keyed_request(viewer, key, target, conditions, body)
        step = Step(keyed, 1, partial(_answer, identifier=request_id(scope)))
        try:
            await self.timeline.submit(viewer, command, step)
        except UserError as error:
            if step.answer is None:  # it was refused before it could be decided
                raise
            note(scope, "code", error.code)
        answer = step.answer
        assert answer, "the outcome makes the answer"  # noqa: S101
        return Response(answer.body, answer.status, answer.headers)

    async def _get_activity(self, request: Request) -> Response:
        note(request.scope, "operation", "getTicketActivity")
        viewer = await self._viewer(request)
        preconditions = _preconditions(request)
        ticket_id, activity_id = _ids(request)
        reading = self.timeline.read(
            viewer, lambda view: view.find_activity(ticket_id, activity_id)
        )
        activity = await self.turns.run(viewer.token_id, reading)
        return _read_response(activity, preconditions)


def rest_routes(
    timeline: Timeline,
    admit: Admit,
    limits: RateLimits | None,
    turns: Turns,
    *,
    max_body_bytes: int,
) -> list[Route]:
    """Build the routes of this door."""
    door = _Door(timeline, admit, limits, turns, max_body_bytes)
    return [
        Route(ACTIVITY_PATH, door.activity, methods=["GET", "PUT"]),
        Route("/openapi.json", door.openapi, methods=["GET"]),
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
        expected_versions=_preconditions(request),
        allows_merged=_allows_merged(request),
    )


def _allows_merged(request: Request) -> bool:
    """Read the query parameter `allowMerged`. Raise InvalidInput unless it is true or false."""
    if not request.scope["query_string"]:
        return False
    value = request.query_params.get("allowMerged", "false")
    if value not in {"true", "false"}:
        raise InvalidInput("allowMerged must be true or false.", path=("allowMerged",))
    return value == "true"


def _ids(request: Request) -> tuple[UUID, UUID]:
    ticket_id, activity_id = (request.path_params[name] for name in ("ticketId", "activityId"))
    return parse_uuid(ticket_id, "ticketId"), parse_uuid(activity_id, "activityId")


def _preconditions(request: Request) -> Preconditions:
    return read_preconditions(
        header_values(request.scope, b"if-match"), header_values(request.scope, b"if-none-match")
    )


def _read_response(activity: Activity, preconditions: Preconditions) -> Response:
    """Answer a GET; `If-Match` is evaluated first (RFC 9110 section 13.2.2)."""
    if activity.version not in preconditions.if_match:
        raise VersionConflict(
            f"The activity is at version {activity.version}, which If-Match does not name.",
            path=("expectedVersion",),
            current=activity,
        )
    if activity.version in preconditions.if_none_match:
        return Response(status_code=304, headers=_validators(activity))
    return _activity_response(activity)


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


async def _answer_version_conflict(request: Request, error: Exception) -> Response:
    return _conflict_response(cast("VersionConflict", error), request_id(request.scope))


def _conflict_response(conflict: VersionConflict, identifier: str) -> Response:
    """Respond 412 with the current ETag, so that the client need not send a GET for it."""
    response = problem(conflict, identifier)
    response.headers["ETag"] = _etag(conflict.current)
    return response


def _answer(verdict: Outcome | UserError, identifier: str) -> Answer:
    """Return the response to a PUT as it is kept for its idempotency key."""
    match verdict:
        case Outcome():
            response = _activity_response(verdict.activity)
        case VersionConflict():
            response = _conflict_response(verdict, identifier)
        case _:
            response = problem(verdict, identifier)
    return Answer(response.status_code, dict(response.headers), bytes(response.body))


REST_EXCEPTION_HANDLERS: Final[Any] = {VersionConflict: _answer_version_conflict}
