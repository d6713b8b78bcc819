"""The values of `extensions.code`, as the schema's descriptions list them."""

from typing import Final

ERROR_CODES: Final = {
    "UNAUTHENTICATED": "There is no valid token. Get a new one.",
    "FORBIDDEN": "The token lacks a scope, which the message names.",
    "NOT_FOUND": "There is no such object, or the viewer does not see it.",
    "INVALID_INPUT": "The request or an argument breaks a rule that the message names.",
    "GRAPHQL_PARSE_FAILED": "The document is not GraphQL, or is too long.",
    "GRAPHQL_VALIDATION_FAILED": "The document does not fit the schema.",
    "OPERATION_RESOLUTION_FAILURE": "`operationName` does not name one operation of the document.",
    "QUERY_TOO_COMPLEX": "The operation is over a limit that the message names. Ask for less.",
    "RESPONSE_TOO_LARGE": (
        "The answer would be too large: ask for less. What a mutation wrote stands; the message "
        "says up to which field."
    ),
    "REQUEST_TIMEOUT": "The body of the request did not arrive in time.",
    "PAYLOAD_TOO_LARGE": "The body of the request is too large.",
    "UNSUPPORTED_MEDIA_TYPE": "The body of the request is not JSON in UTF-8.",
    "NOT_ACCEPTABLE": "The `Accept` header takes no type that the service answers.",
    "METHOD_NOT_ALLOWED": "The HTTP method is not one for this operation.",
    "PERSISTED_QUERY_NOT_FOUND": "The hash is not known. Send the query with it.",
    "PERSISTED_QUERY_NOT_SUPPORTED": "Hashes are switched off. Send the query.",
    "DOCUMENT_NOT_TRUSTED": "The service executes only the documents of its manifest.",
    "BUSY": "The service has too much to do. Send the request again, after a moment.",
    "STORAGE_FULL": "The disk is full. Nothing was written; send it again once that is mended.",
    "STORAGE_UNWRITABLE": (
        "The disk takes no writes. Nothing was written; send it again once that is mended."
    ),
    "WRITE_IN_DOUBT": "The write is stored, or it is not. Read before you send it again.",
    "COMMITTED_UNREAD": "The write is stored; this part of its answer could not be read. Query it.",
    "DEADLINE_EXCEEDED": "The query took too long and was cancelled. Ask for less.",
    "CURSOR_EXPIRED": (
        "The feed cannot go on after this cursor: not all changes after it are kept, or the "
        "database was restored. Read the timeline anew, and go on after its `changesCursor`."
    ),
    "IDEMPOTENCY_KEY_REUSED": (
        "The idempotency key came with another request before. Send this one with another key."
    ),
    "TOO_MANY_IDEMPOTENCY_KEYS": "The token has used too many keys. Send it without one, or later.",
    "RATE_LIMITED": (
        "The token has sent more than it may in a minute, or the address too much without a valid "
        "token. Send it again after the seconds in `extensions.retryAfter`."
    ),
    "TOO_MANY_SUBSCRIPTIONS": (
        "The token has as many subscriptions open as it may, or too many different documents of "
        "them. End one first."
    ),
    "RECONNECT": "The stream ends though there is more. Subscribe again after the last cursor.",
    "INTERNAL": "A fault of the service. Its log has more, under `extensions.requestId`.",
}

ERRORS_DESCRIPTION: Final = (
    "What fails is an error with one of these values as `extensions.code`; expected outcomes of a "
    "mutation are `userErrors` of its payload instead.\n\n"
    + "\n".join(f"- `{code}`: {meaning}" for code, meaning in ERROR_CODES.items())
)
