"""One request by hand: is the answer right?"""

from __future__ import annotations

import http.client

from cases import Case

TIMEOUT_SECONDS = 30.0
LOG = "; log: "  # in a Failure's message: from here on the last words of the server's log


class Failure(Exception):
    """A contender that cannot be measured, or whose measurement does not count; the message says why."""


def wrong_answer(case: Case, port: int) -> str | None:
    """Ask once on a new connection: None if the answer is the right one, else what is wrong with it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(case.method, "/", body=b"x" * case.upload or None)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if response.status != 200:
        return f"status {response.status} instead of 200"
    if body != case.body:
        return f"a body of {len(body)} bytes, {body[:40]!r}, instead of {len(case.body)} bytes, {case.body[:40]!r}"
    return None
