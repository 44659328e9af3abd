"""ASGI's WebSocket message format 2.5, clause by clause, and RFC 6455 as a client sees it, also under ESGI."""

import ast
import json
import struct
import uuid
import zlib
from typing import Any
from urllib.parse import quote

import pytest

from support.check import Servers
from support.polling import wait_until
from support.raw import Connection
from support.server import Server
from support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    Rejected,
    WebSocket,
    deflated,
    frame,
)

SITE = """
    log
    encode gzip
    python /compressed/* {{
        {app}
        workers 1
        root_path /compressed
        import worker
        websocket {{
            compression on
            max_size 1MiB
        }}
    }}
    python /pinged/* {{
        {app}
        workers 1
        root_path /pinged
        import worker
        websocket {{
            ping_interval 100ms
            ping_timeout 300ms
        }}
    }}
    python {{
        {app}
        workers 1
        import worker
        websocket {{
            max_size 3MiB
        }}
    }}
"""


APPS = {
    "native": "module_asgi conformance_websocket:app\nruntime native",
    "uvloop": "module_asgi conformance_websocket:app\nruntime uvloop",
    "esgi": "module_esgi conformance_esgi_websocket:app",
}


@pytest.fixture(scope="module", params=APPS)
def server(request: pytest.FixtureRequest, serve_shared: Servers) -> Server:
    return serve_shared(SITE.format(app=APPS[request.param]), warm_up="/")


# conformance/test_esgi.py has what is otherwise under ESGI.
asgi_alone = pytest.mark.parametrize("server", ["native", "uvloop"], indirect=True)


def notes(server: Server, key: str) -> Any:
    """What the app has noted under a key, as soon as there is something."""
    return wait_until(lambda: server.get(f"/?{key}").json(), f"note of {key}")


def key() -> str:
    return uuid.uuid4().hex


# The handshake (RFC 6455, section 4.2; ASGI, "WebSocket Connection Scope").


@asgi_alone
def test_scope(server: Server) -> None:
    with WebSocket(server, "/scope?a=%20", "Sec-WebSocket-Protocol: chat, superchat", "X-A: 1") as socket:
        text = socket.message()
        assert isinstance(text, str)
        scope = ast.literal_eval(text)
        client = socket.connection.socket.getsockname()
    headers = dict(scope.pop("headers"))
    assert headers[b"host"] == b"test"
    assert headers[b"sec-websocket-protocol"] == b"chat, superchat"
    assert headers[b"x-a"] == b"1"
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/scope",
        "raw_path": b"/scope",
        "query_string": b"a=%20",
        "root_path": "",
        "client": client,
        "server": ("test", 80),
        "subprotocols": ["chat", "superchat"],
        "extensions": {"websocket.http.response": {}},
    }


def test_accept_with_a_subprotocol_and_headers(server: Server) -> None:
    with WebSocket(server, "/choose", "Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b ,c") as socket:
        headers = socket.headers
    assert (b"sec-websocket-protocol", b"c") in headers
    assert (b"x-one", b"1") in headers
    assert [value for name, value in headers if name == b"set-cookie"] == [b"a=1", b"b=2"]
    assert [value for name, value in headers if name == b"connection"] == [b"Upgrade"]


def test_no_subprotocol_and_no_compression_unless_agreed(server: Server) -> None:
    with WebSocket(server, "/echo", "Sec-WebSocket-Extensions: permessage-deflate") as socket:
        names = {name for name, _ in socket.headers}
    assert not names & {b"sec-websocket-protocol", b"sec-websocket-extensions", b"content-encoding"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="], 426),
        (["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="], 426),
        (["Sec-WebSocket-Version: 13"], 400),
        (["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAA"], 400),
        (["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: not base64 of 16 bytes"], 400),
        (["Sec-WebSocket-Version: 13", *["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="] * 2], 400),
        (["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Content-Length: 1"], 400),
    ],
)
def test_a_wrong_handshake_is_refused(server: Server, headers: list[str], status: int) -> None:
    with Connection(server) as client:
        response = client.get(b"/echo", b"Upgrade: websocket", b"Connection: Upgrade", *(h.encode() for h in headers))
    assert response.status == status
    assert response.values(b"sec-websocket-version") == ([b"13"] if status == 426 else [])


def test_an_upgrade_to_something_else_is_a_plain_request(server: Server) -> None:
    with Connection(server) as client:
        assert client.get(b"/?none", b"Upgrade: h2c", b"Connection: Upgrade").body == b"[]"
        assert client.get(b"/?none", b"Upgrade: websocket").body == b"[]"


def test_a_message_may_come_together_with_the_handshake(server: Server) -> None:
    early = frame(FIN | TEXT, b"early") + frame(FIN | BINARY, b"x" * 3000)
    with WebSocket(server, "/echo", early=early) as socket:
        assert socket.message() == "early"
        assert socket.message() == b"x" * 3000


# Rejection.


@asgi_alone
@pytest.mark.parametrize("code", [4000, 403, 1006])
def test_a_close_before_the_accept_is_a_403(server: Server, code: int) -> None:
    """The client never sees the code, so it need not be one that can be sent."""
    name = f"{code},{key()}"
    with pytest.raises(Rejected) as rejected:
        WebSocket(server, f"/reject?{name}")
    assert rejected.value.response.status == 403
    assert notes(server, name) == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@asgi_alone
@pytest.mark.parametrize("status", [200, 401, 418])
def test_denial_response(server: Server, status: int) -> None:
    with pytest.raises(Rejected) as rejected:
        WebSocket(server, f"/deny?{status}")
    response = rejected.value.response
    assert (response.status, response.complete) == (status, True)
    assert response.body == b"not " * 100_000 + b"today"
    assert response.values(b"x-why") == [b"because"]


@pytest.mark.expect_errors(
    "before the accept",
    "without a complete response",
    "without an answer to the handshake",
    "/fail_early",
    "/leave_early",
)
def test_an_app_that_gives_no_answer_is_a_500(server: Server) -> None:
    for case in ("fail_early", "leave_early"):
        with pytest.raises(Rejected) as rejected:
            WebSocket(server, f"/{case}")
        assert rejected.value.response.status == 500


# Messages.


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 3 << 20])
def test_echo_of_any_size(server: Server, size: int) -> None:
    binary, text = bytes(range(256)) * (size // 256 + 1), "é" * (size // 2) + "x" * (size % 2)
    with WebSocket(server, "/echo") as socket:
        socket.send(FIN | BINARY, binary[:size])
        assert socket.message() == binary[:size]
        socket.text(text)
        assert socket.message() == text


def test_fragments_with_control_frames_between_them(server: Server) -> None:
    text = "fragments of text: äöü€😀" * 10
    with WebSocket(server, "/echo") as socket:
        data = text.encode()
        socket.send(TEXT, data[:1])
        for byte in data[1:]:
            socket.connection.send(frame(CONTINUATION, bytes([byte])), frame(FIN | PING, bytes([byte])))
            assert socket.receive().payload == bytes([byte])
        socket.send(FIN | CONTINUATION)
        assert socket.message() == text


def test_bytes_one_by_one(server: Server) -> None:
    with WebSocket(server, "/echo") as socket:
        for byte in frame(FIN | PING, b"ping") + frame(FIN | TEXT, b"hello") + frame(FIN | BINARY, b"x" * 200):
            socket.connection.send(bytes([byte]))
        assert socket.receive().payload == b"ping"
        assert socket.message() == "hello"
        assert socket.message() == b"x" * 200


def test_many_messages_at_once_keep_their_order(server: Server) -> None:
    count = 20_000
    with WebSocket(server, "/echo") as socket:
        sent = 0
        for number in range(count):
            socket.text(str(number))
            if number - sent == 1000:  # or both sides would wait for the other to read
                for expected in range(sent, number):
                    assert socket.message() == str(expected)
                sent = number
        for expected in range(sent, count):
            assert socket.message() == str(expected)


def test_large_messages_of_two_tasks_do_not_mix(server: Server) -> None:
    with WebSocket(server, "/both") as socket:
        got = sorted(str(socket.message()) for _ in range(6))
    assert got == ["a" * 1_000_000] * 3 + ["b" * 1_000_000] * 3


@asgi_alone
def test_messages_that_are_not_allowed_raise(server: Server) -> None:
    name = key()
    with WebSocket(server, f"/wrong?{name}") as socket:
        names = json.loads(socket.message())
        assert names == [
            *("RuntimeError", "TypeError", "ValueError", "ValueError", "RuntimeError"),
            *("RuntimeError", "RuntimeError"),
            *("TypeError", "TypeError", "TypeError", "UnicodeEncodeError", "ValueError"),
        ]
        assert socket.end() == (1000, "")
    assert notes(server, name) == ["RuntimeError"]


# The end.


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (3000, "ä" * 61), (4999, "x" * 123)])
def test_the_client_closes(server: Server, code: int, reason: str) -> None:
    name = key()
    with WebSocket(server, f"/echo?{name}") as socket:
        socket.close(code, reason)
        answer = socket.receive()
        assert answer.close == (code, "")
        socket.gone()
    assert notes(server, name) == [{"type": "websocket.disconnect", "code": code, "reason": reason}]


@pytest.mark.parametrize("code", [999, 1005, 2000, 5000])
def test_the_client_closes_with_a_code_that_nobody_may_send(server: Server, code: int) -> None:
    name = key()
    with WebSocket(server, f"/echo?{name}") as socket:
        socket.close(code, "")
        answer = socket.receive().close
        assert answer is not None
        assert answer[0] == 1002
        socket.gone()
    [note] = notes(server, name)
    assert (note["type"], note["code"]) == ("websocket.disconnect", 1002)


def test_the_client_closes_without_a_code(server: Server) -> None:
    name = key()
    with WebSocket(server, f"/echo?{name}") as socket:
        socket.send(FIN | CLOSE)
        assert socket.receive().payload == b""
        socket.gone()
    assert notes(server, name) == [{"type": "websocket.disconnect", "code": 1005, "reason": ""}]


def test_the_client_goes_without_a_close(server: Server) -> None:
    name = key()
    WebSocket(server, f"/echo?{name}").connection.close()
    assert notes(server, name) == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@pytest.mark.parametrize(
    ("argument", "code", "reason"),
    [("", 1000, ""), ("4321,why", 4321, "why"), ("3000," + "€" * 60, 3000, "€" * 41), ("1012", 1012, "")],
)
def test_the_app_closes(server: Server, argument: str, code: int, reason: str) -> None:
    with WebSocket(server, f"/close?{quote(argument)}") as socket:
        assert socket.end() == (code, reason)


def test_the_app_learns_of_its_own_close(server: Server) -> None:
    with WebSocket(server, "/close?4000,own") as socket:
        assert socket.end() == (4000, "own")
    assert notes(server, "4000,own") == [{"type": "websocket.disconnect", "code": 4000, "reason": "own"}]


def test_a_return_closes(server: Server) -> None:
    with WebSocket(server, "/leave") as socket:
        assert socket.end() == (1000, "")


@pytest.mark.expect_errors("after the accept", "/fail")
def test_an_exception_closes_with_1011(server: Server) -> None:
    with WebSocket(server, "/fail") as socket:
        assert socket.end() == (1011, "")
    entry = server.log.wait_for(lambda entry: entry.get("path") == "/fail")
    assert entry["error"] == "ValueError: after the accept"
    assert entry["traceback"].startswith("Traceback")


def test_send_after_the_end_raises_an_oserror(server: Server) -> None:
    name = key()
    with WebSocket(server, f"/send_on?{name}") as socket:
        assert socket.message() == "on and on"
        socket.close(4001)
    wait_until(lambda: len(notes(server, name)) == 3, "three notes")
    last = {"type": "websocket.disconnect", "code": 4001, "reason": ""}
    assert notes(server, name) == ["ClientGone", True, last]


# What is not allowed (RFC 6455, section 7.4.1).


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(FIN | TEXT, b"\xff"), 1007),
        (frame(FIN | TEXT, "ä".encode()[:1]), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (frame(FIN | 3), 1002),
        (frame(FIN | RSV1 | TEXT, b"x"), 1002),
        (frame(FIN | CONTINUATION, b"x"), 1002),
        (frame(TEXT, b"x") + frame(FIN | TEXT, b"y"), 1002),
        (frame(PING, b"x"), 1002),
        (frame(FIN | PING, b"x" * 126), 1002),
        (bytes([FIN | TEXT, 1, 65]), 1002),
        (struct.pack("!BBQ", FIN | BINARY, 0xFF, 1 << 63) + bytes(4), 1002),
        (frame(FIN | CLOSE, b"x"), 1002),
        (frame(FIN | CLOSE, struct.pack("!H", 1005)), 1002),
        (frame(FIN | CLOSE, struct.pack("!H", 2000)), 1002),
        (frame(FIN | CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
        (struct.pack("!BBQ", FIN | BINARY, 0xFF, (3 << 20) + 1) + bytes(4), 1009),
        (frame(BINARY, bytes(2 << 20)) + frame(CONTINUATION, bytes(2 << 20)), 1009),
    ],
)
def test_violation(server: Server, sent: bytes, code: int) -> None:
    name = key()
    with WebSocket(server, f"/echo?{name}") as socket:
        socket.connection.send(sent)
        got = socket.receive()
        assert got.close[0] == code
        # What was under way is skipped until the client answers.
        socket.connection.send(frame(FIN | TEXT, b"too late"))
        socket.connection.end()
        socket.gone()
    [last] = notes(server, name)
    assert (last["type"], last["code"]) == ("websocket.disconnect", code)


# Ping and pong are Caddy's business.


def test_pings_are_answered_while_python_is_busy(server: Server) -> None:
    with WebSocket(server, "/busy") as socket:
        socket.text("1")
        assert socket.message() == "busy"
        for number in range(50):
            socket.send(FIN | PING, b"%d" % number)
            got = socket.receive()
            assert (got.opcode, got.payload) == (PONG, b"%d" % number)
        assert socket.message() == "done"


# Backpressure.


def test_a_client_that_reads_nothing_stops_the_app(server: Server) -> None:
    name, count = key(), 1000
    with WebSocket(server, f"/flood?{count},{name}", receive_buffer=8 << 10) as socket:
        last: list[int] = []

        def still() -> bool:
            taken = notes(server, name)[0]
            last[:] = [*last, taken] if last[-1:] == [taken] else [taken]
            return len(last) > 20

        wait_until(still, "the app stops", 30)
        assert last[0] < count // 4
        assert sum(len(socket.message()) for _ in range(count)) == count * (64 << 10)


def test_an_app_that_receives_nothing_stops_the_client(server: Server) -> None:
    name = key()
    with WebSocket(server, f"/deaf?{name}") as socket:
        assert notes(server, name) == ["accepted"]
        socket.connection.socket.settimeout(1)
        part, sent = frame(FIN | BINARY, bytes(64 << 10)), 0
        with pytest.raises(TimeoutError):
            while sent < 1000:
                socket.connection.socket.sendall(part)
                sent += 1
        assert sent < 250
        server.get(f"/?{name}-go")
        # The last frame may have gone out in part: nothing can follow it.


def test_a_client_that_goes_while_its_messages_wait(server: Server) -> None:
    """The app, which only sends, learns of it by that: Caddy does not read what nobody takes."""
    name = key()
    with WebSocket(server, f"/send_on?{name}") as socket:
        socket.send(FIN | BINARY, bytes(300 << 10))
        for _ in range(200):  # meanwhile Caddy has read as much as the app gives credit for
            assert socket.message() == "on and on"
        # The connection is reset: some of what the client has sent has not been read.
    wait_until(lambda: len(notes(server, name)) == 3, "end of the app")
    assert notes(server, name)[:2] == ["ClientGone", True]
    assert notes(server, name)[2]["code"] == 1006


@pytest.mark.expect_errors("ClientGone")
def test_a_client_that_sends_and_takes_nothing_is_given_up(server: Server) -> None:
    """It answers no ping because Caddy reads none of what it sends, and that is because it takes nothing."""
    with WebSocket(server, f"/pinged/echo?{key()}", receive_buffer=8 << 10) as socket:
        client, part = socket.connection.socket, frame(FIN | BINARY, bytes(64 << 10))
        client.settimeout(1)

        def given_up() -> bool:
            try:
                client.sendall(part)
            except TimeoutError:
                return False
            except ConnectionError:
                return True
            return False

        wait_until(given_up, "end of the connection")


# Compression (RFC 7692).


def inflated(data: bytes, bits: int = 15) -> bytes:
    return zlib.decompressobj(wbits=-bits).decompress(data + b"\0\0\xff\xff")


@pytest.mark.parametrize("bits", [None, *range(9, 16)])
def test_compressed_echo(server: Server, bits: int | None) -> None:
    offer = "permessage-deflate; client_max_window_bits"
    answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    if bits:
        offer += f"; server_max_window_bits={bits}"
        answer += f"; server_max_window_bits={bits}"
    text = "".join(f"{number} bottles\n" for number in range(40_000))
    with WebSocket(server, "/compressed/echo", f"Sec-WebSocket-Extensions: x-unknown, {offer}") as socket:
        assert (b"sec-websocket-extensions", answer.encode()) in socket.headers
        for _ in range(2):
            data = deflated(text.encode())
            socket.send(RSV1 | TEXT, data[:1000])
            socket.send(FIN | PING, b"between")
            socket.send(FIN | CONTINUATION, data[1000:])
            assert socket.receive().payload == b"between"
            got = socket.receive()
            assert got.first & ~FIN == RSV1 | TEXT
            payload = got.payload
            while not got.first & FIN:
                got = socket.receive()
                payload += got.payload
            assert inflated(payload, bits or 15).decode() == text
            assert len(payload) < len(text) // 2
        socket.text("short and plain")
        assert socket.message() == "short and plain"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(FIN | RSV1 | BINARY, b"\xff" * 100), 1007),
        (frame(FIN | RSV1 | BINARY, deflated(b"x" * 1000)[:3]), 1007),
        (frame(FIN | RSV1 | TEXT, deflated(b"\xff")), 1007),
        (frame(RSV1 | TEXT, b"x") + frame(FIN | RSV1 | CONTINUATION, b"x"), 1002),
        (frame(FIN | RSV1 | PING, b"x"), 1002),
        (frame(FIN | RSV1 | BINARY, deflated(bytes((1 << 20) + 1))), 1009),
    ],
)
def test_compressed_violation(server: Server, sent: bytes, code: int) -> None:
    with WebSocket(server, "/compressed/echo", "Sec-WebSocket-Extensions: permessage-deflate") as socket:
        socket.connection.send(sent)
        assert socket.end()[0] == code


def test_a_connection_cut_within_a_message(server: Server) -> None:
    for path, extension in (("/echo", ""), ("/compressed/echo", "Sec-WebSocket-Extensions: permessage-deflate")):
        name = key()
        with WebSocket(server, f"{path}?{name}", *filter(None, [extension])) as socket:
            socket.connection.send(frame(RSV1 * bool(extension) | BINARY, deflated(b"x" * 1000))[:-2])
        assert notes(server, name) == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


def test_the_access_log_has_the_handshake(server: Server) -> None:
    path = f"/echo?{key()}"
    with WebSocket(server, path):
        entry = server.log.wait_for(lambda entry: entry.get("request", {}).get("uri") == path)
    assert (entry["msg"], entry["status"]) == ("handled request", 101)
