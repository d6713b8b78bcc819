"""The OpenAPI 3.1 document of the REST API: each operation with each status, code and header."""

from importlib.metadata import version
from typing import Any, Final

from app.activity.input_limits import InputLimits
from app.activity.policy import CannotUpdateReason
from app.activity.state import ActivityType
from app.activity.values import UUID_PATTERN
from app.conditions import TAGS_PATTERN

_Schema = dict[str, Any]

_UUID: Final = {"type": "string", "format": "uuid", "pattern": UUID_PATTERN}

_SCHEMAS: Final[dict[str, _Schema]] = {
    "TicketActivity": {
        "type": "object",
        "description": "One entry of a ticket's timeline.",
        "required": ["id", "ticketId", "activityType", "isPrivate", "createdAt"],
        "additionalProperties": False,
        "properties": {
            "id": _UUID,
            "ticketId": _UUID,
            "activityType": {"type": "string", "enum": [kind.value for kind in ActivityType]},
            "isPrivate": {"type": "boolean"},
            "createdAt": {
                "type": "string",
                "format": "date-time",
                "description": "RFC 3339 in UTC with milliseconds.",
                "examples": ["2026-11-23T15:07:05.514Z"],
            },
            "actorId": {"anyOf": [_UUID, {"type": "null"}]},
            "message": {"type": ["string", "null"]},
            "metadata": {"type": "object"},
            "documentId": {"anyOf": [_UUID, {"type": "null"}]},
        },
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457 problem details.",
        "required": ["type", "title", "status", "detail", "code", "requestId"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "description": "What happened, for programs."},
            "path": {
                "type": "array",
                "items": {"type": ["string", "integer"]},
                "description": "The argument at fault.",
            },
            "reasons": {
                "type": "array",
                "items": {"enum": [reason.value for reason in CannotUpdateReason]},
                "description": "On 403, all that keeps the caller from updating the entry.",
            },
            "requestId": {"type": "string", "description": "Also the header X-Request-ID."},
        },
    },
}

_RATE_HEADERS: Final = {
    "RateLimit": {
        "description": (
            "What the token has left (`r`) of each limit, and in how many seconds (`t`) its minute "
            "ends: draft-ietf-httpapi-ratelimit-headers-11. Not where the service sets no limit."
        ),
        "schema": {"type": "string", "examples": ['"requests";r=5999;t=60']},
    },
    "RateLimit-Policy": {
        "description": "The limits: the quota (`q`) of a window of so many seconds (`w`).",
        "schema": {"type": "string", "examples": ['"requests";q=6000;w=60']},
    },
}

_ETAG: Final = {
    "ETag": {
        "description": "The version of the entry, for If-Match and If-None-Match.",
        "schema": {"type": "string", "examples": ['"3"']},
    }
}
_REQUEST_ID: Final = {
    "X-Request-ID": {
        "description": "That of the request, if it had one, else a new one. The log has it, too.",
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "In how many seconds to send the request again.",
        "schema": {"type": "integer"},
    }
}
_CHALLENGE: Final = {
    "WWW-Authenticate": {"description": "RFC 6750.", "schema": {"const": "Bearer"}}
}

_HEADERS: Final = {**_ETAG, **_RATE_HEADERS, **_REQUEST_ID}

_PROBLEM_HEADERS: Final = {
    "401": _CHALLENGE,
    "412": _ETAG,
    "429": _RETRY_AFTER,
    "503": _RETRY_AFTER,
}

_PROBLEMS: Final = {
    "401": "`UNAUTHENTICATED`: there is no valid bearer token.",
    "403": "`FORBIDDEN`: the token does not allow it; `reasons` say why.",
    "404": "`NOT_FOUND`: there is no such entry on that ticket, or the caller may not see it.",
    "408": "`REQUEST_TIMEOUT`: the body did not arrive in time. Send it again.",
    "409": "`TICKET_MERGED`: the ticket was merged into the one that the detail names, and "
    "allowMerged is not true.",
    "412": "`VERSION_CONFLICT`: the entry is at a version, which ETag has, that If-Match does not "
    "name, or that If-None-Match names.",
    "413": "`PAYLOAD_TOO_LARGE`: the body is larger than the limit.",
    "414": "`URI_TOO_LONG`: the URI is longer than the limit.",
    "415": "`UNSUPPORTED_MEDIA_TYPE`: the body is not declared as application/json in UTF-8.",
    "422": "`INVALID_INPUT`: a parameter, a header or the body breaks a rule, which the detail "
    "names. `IDEMPOTENCY_KEY_REUSED`: the key came with another request before.",
    "429": "`RATE_LIMITED`: the token, or an address without a valid one, has sent more than it "
    "may in a minute; Retry-After says when it may again. `TOO_MANY_IDEMPOTENCY_KEYS`: the token "
    "has used too many of late.",
    "431": "`REQUEST_HEADER_FIELDS_TOO_LARGE`: the headers are larger than the limit.",
    "500": "`INTERNAL`: a fault, which the log has under the requestId. `WRITE_IN_DOUBT`: the "
    "update is stored, or it is not; read the entry before you send it again.",
    "503": "Nothing was written; Retry-After says when to send it again. `BUSY`: too much waits, "
    "or the database or the keys of the token's issuer cannot be reached. `STORAGE_FULL`, "
    "`STORAGE_UNWRITABLE`: the disk takes no writes; reads go on.",
}


def openapi_document(activity_path: str, limits: InputLimits) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ticket activity",
            "version": version("ticket-activity"),
            "description": (
                "The REST API, for clients that have it already. The GraphQL API, at /graphql, has "
                "more: lists, history, creation, deletion and live changes."
            ),
        },
        "paths": {activity_path: _path_item()},
        "components": {
            "schemas": _SCHEMAS | {"TicketActivityUpdate": _update_schema(limits)},
            "responses": {
                status: {
                    "description": description,
                    "headers": {
                        **_PROBLEM_HEADERS.get(status, {}),
                        **_RATE_HEADERS,
                        **_REQUEST_ID,
                    },
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/Problem"}
                        }
                    },
                }
                for status, description in _PROBLEMS.items()
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}],
    }


def _update_schema(limits: InputLimits) -> _Schema:
    return {
        "type": "object",
        "description": (
            "What to change. A member that is absent stays as it is; members not named here are "
            "ignored."
        ),
        "properties": {
            "message": {
                "type": ["string", "null"],
                "maxLength": limits.max_message_length,
                "pattern": "^[^\\u0000]*$",
                "description": "The new text; null clears it.",
            },
            "metadata": {
                "type": "object",
                "description": (
                    f"Replaces the whole object; at most {limits.max_metadata_bytes} bytes as "
                    f"JSON and {limits.max_metadata_depth} levels deep. No text in it holds the "
                    "character U+0000."
                ),
            },
            "isPrivate": {"type": "boolean"},
        },
    }


def _path_item() -> dict[str, Any]:
    statuses = ("401", "403", "404", "412", "414", "422", "429", "431", "500", "503")
    read_problems = _problems(*statuses)
    return {
        "parameters": [_path_parameter("ticketId"), _path_parameter("activityId")],
        "put": {
            "operationId": "updateTicketActivity",
            "summary": "Update Ticket Activity",
            "parameters": [_IF_MATCH, _IF_NONE_MATCH, _IDEMPOTENCY_KEY, _ALLOW_MERGED],
            "requestBody": {"required": True, "content": _content("TicketActivityUpdate")},
            "responses": {"200": _success("The updated entry."), **_problems(*_PROBLEMS)},
        },
        "get": {
            "operationId": "getTicketActivity",
            "summary": "Get Ticket Activity",
            "parameters": [_IF_MATCH, _IF_NONE_MATCH],
            "responses": {"200": _success("The entry."), **_NOT_MODIFIED, **read_problems},
        },
        "head": {
            "operationId": "headTicketActivity",
            "summary": "Get the headers of a Ticket Activity",
            "parameters": [_IF_MATCH, _IF_NONE_MATCH],
            "responses": {
                "200": {"description": "The entry's headers.", "headers": _HEADERS},
                **_NOT_MODIFIED,
                **read_problems,
            },
        },
    }


_TAGS: Final = {"type": "string", "pattern": TAGS_PATTERN, "examples": ['"3"']}
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "description": "Only for these versions: `*` or a list of entity tags.",
    "schema": _TAGS,
}
_IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "description": "Not for these versions: `*` or a list of entity tags.",
    "schema": _TAGS,
}
_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": (
        "The same request sent again under the same key has one effect and the same answer. "
        "Another request under the key is refused."
    ),
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_ALLOW_MERGED: Final = {
    "name": "allowMerged",
    "in": "query",
    "description": "Whether to write also if the ticket was merged into another one.",
    "schema": {"type": "boolean", "default": False},
}
_NOT_MODIFIED: Final = {"304": {"description": "The caller has it.", "headers": _HEADERS}}


def _success(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _HEADERS,
        "content": _content("TicketActivity"),
    }


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _problems(*statuses: str) -> dict[str, Any]:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _UUID}
