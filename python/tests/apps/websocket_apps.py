"""ASGI WebSocket apps for the tests. `app` picks a view by the path; requests go to asgi_apps, which has /events."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from enum import Enum

import asgi_apps
from asgi_apps import Message, Receive, Scope, Send, events, opened

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

ACCEPT: Message = {"type": "websocket.accept"}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        return await asgi_apps.app(scope, receive, send)
    view = globals()["view_" + scope["path"].strip("/")]
    await view(scope, receive, send)


async def accept(receive: Receive, send: Send) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send(ACCEPT)


def note_disconnect(message: Message) -> None:
    assert message["type"] == "websocket.disconnect", message
    events.append(f"disconnect {message['code']} {message['reason']!r}")


async def view_echo(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    note_disconnect(message)
    events.append(str(await receive() == message))


async def view_sizes(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers each message with its size."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str(len(message.get("text") or message.get("bytes") or ""))})


async def view_idle(scope: Scope, receive: Receive, send: Send) -> None:
    """Receives nothing until /open is called; then says how many messages there were."""
    opened().clear()
    await accept(receive, send)
    await opened().wait()
    count = 0
    while (message := await receive())["type"] == "websocket.receive":
        count += 1
    events.append(f"{count} messages")
    note_disconnect(message)


async def view_send(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the messages that the scope holds, then raises, waits for the end, or returns, as it says."""
    await receive()
    for message in scope["extensions"]["tls"]["test.messages"]:
        try:
            await send(message)
        except Exception as exc:
            events.append(f"{type(exc).__name__}: {exc}")
            raise
        events.append(message["type"])
    if scope["extensions"]["tls"].get("test.raise"):
        raise ValueError("boom")
    if scope["extensions"]["tls"].get("test.wait"):
        note_disconnect(await receive())


async def view_try_again(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts in the right way after a wrong one, and says what was wrong with that."""
    await receive()
    try:
        await send({**ACCEPT, **scope["extensions"]["tls"]["test.accept"]})
    except (TypeError, ValueError) as exc:
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": f"{type(exc).__name__}: {exc}"})


async def view_deny_again(scope: Scope, receive: Receive, send: Send) -> None:
    """Denies in the right way after a wrong one, some turns of the loop later, and sends no body."""
    await receive()
    start = {"type": "websocket.http.response.start", "headers": []}
    with contextlib.suppress(ValueError):
        await send({**start, "status": 99})
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await send({**start, "status": 403})
    note_disconnect(await receive())


async def view_kinds(scope: Scope, receive: Receive, send: Send) -> None:
    """Types that are like the ones asked for, and a buffer that is used again."""
    await receive()
    headers = ((name, value) for name, value in [[bytearray(b"X-Array"), memoryview(b"view")]])
    await send({"type": "websocket.accept", "subprotocol": None, "headers": headers})
    data = bytearray(b"array")
    await send({"type": "websocket.send", "bytes": data, "text": None})
    data[:] = b"other"
    await send({"type": "websocket.send", "bytes": memoryview(b"view")})
    await send({"type": "websocket.send", "bytes": b""})
    await send({"type": "websocket.send", "text": ""})


class Word(str, Enum):
    """A str that cannot be marshalled."""

    CHAT = "chat"
    BYE = "bye"


async def view_words(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({**ACCEPT, "subprotocol": Word.CHAT})
    await send({"type": "websocket.close", "code": 4000, "reason": Word.BYE})


async def view_after(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends after the client has gone."""
    await accept(receive, send)
    note_disconnect(await receive())
    for kind in ("send", "close"):
        try:
            await send({"type": f"websocket.{kind}", "text": "late"})
        except OSError as exc:
            events.append(f"{kind} raised {type(exc).__name__}")
            gone = exc
    if scope["query_string"] == b"raise":
        await send({"type": "websocket.send", "text": "late"})
    elif scope["query_string"] == b"because":
        raise ValueError("after the client went") from gone
    elif scope["query_string"] == b"group":
        raise ExceptionGroup("after the client went", [gone])
    elif scope["query_string"]:
        raise ValueError("after the client went")


async def view_flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends empty messages, as many as the query says."""
    await accept(receive, send)
    for _ in range(int(scope["query_string"])):
        await send({"type": "websocket.send", "text": ""})


async def view_together(scope: Scope, receive: Receive, send: Send) -> None:
    """One task sends a message of many parts; another then sends what the client asks for."""

    async def obey() -> None:
        message = await receive()
        await send({"type": f"websocket.{message['text']}", "text": "short"})

    await accept(receive, send)
    other = asyncio.ensure_future(obey())
    await asyncio.sleep(0)  # it waits first, and so it is the first to run when something comes
    await asyncio.gather(send({"type": "websocket.send", "bytes": bytes(int(scope["query_string"]))}), other)


async def view_half(scope: Scope, receive: Receive, send: Send) -> None:
    """Gives up sending a message when /open is called."""
    opened().clear()
    await accept(receive, send)
    sending = asyncio.ensure_future(send({"type": "websocket.send", "bytes": bytes(int(scope["query_string"]))}))
    await opened().wait()
    sending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sending
    note_disconnect(await receive())


async def view_close_unread(scope: Scope, receive: Receive, send: Send) -> None:
    """Closes, when /open is called, before it has received anything."""
    opened().clear()
    await accept(receive, send)
    await opened().wait()
    await send({"type": "websocket.close", "code": 4002})
    note_disconnect(await receive())


async def view_listen(scope: Scope, receive: Receive, send: Send) -> None:
    """Listens in one task, and closes from another."""
    await accept(receive, send)
    listener = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
    note_disconnect(await listener)


async def view_listen_while_denying(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    listener = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    await send({"type": "websocket.http.response.start", "status": 429, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"later"})
    note_disconnect(await listener)
