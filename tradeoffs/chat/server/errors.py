"""What a client is told that does not get what it asked for, in the form that OpenAI's clients read."""

import json
from typing import Any

from starlette.responses import Response

from tradeoffs.chat.messages import Failed
from tradeoffs.common.texts import harmless

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
# By why there is no answer (messages.py).
STATUS = {
    "invalid": 400,
    "too_long": 400,
    "too_large": 400,  # no 5xx, which clients try again
    "late": 408,
    "busy": 429,
    "broken": 500,
    "died": 503,
    "stopped": 503,
    "unloaded": 503,
}
CODES = {"too_long": "context_length_exceeded"}  # the others have none at OpenAI, and are called as they are here
RETRY_SECONDS = 2  # where nobody knows better


class RequestError(Exception):
    """`param`: the field of the body that is wrong. `retry`: seconds after which it can be tried again."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, retry: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry = status, param, code, retry or RETRY_SECONDS

    @classmethod
    def by(cls, failed: Failed) -> "RequestError":
        """As the engine says it."""
        code = CODES.get(failed.fault, failed.fault)
        return cls(STATUS[failed.fault], failed.message, code=code, retry=failed.retry)

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": harmless(str(self)), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        return Response(json.dumps(self.body()), self.status, self._headers(), "application/json")

    def _headers(self) -> dict[str, str]:
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(self.retry)} if self.status in (429, 503) else {}
