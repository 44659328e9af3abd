"""Files that Caddy sends for an app: pathsend and zerocopysend (ASGI, "Extensions"), wsgi.file_wrapper (PEP 3333)."""

from __future__ import annotations

import os
import random
import socket
import uuid
from pathlib import Path
from urllib.parse import urlencode

import pytest

from support import http2, raw
from support.check import Servers
from support.memory import Growth
from support.polling import wait_until
from support.server import Server

ASGI = "python {\n module_asgi extensions_asgi:app \n workers 1 \n import worker \n}"
WSGI = "python {\n module_wsgi files_wsgi:app \n workers 1 \n import worker \n}"

CONTENT = random.Random(2).randbytes(300_000)
GIGABYTE = 1 << 30
CPU = 0.010  # seconds of a worker's that a gigabyte may cost
MODIFIED = "Sat, 21 Nov 2020 10:00:00 GMT"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files to send: content, empty, and large, of which the disk holds nothing."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "content").write_bytes(CONTENT)
    (folder / "empty").touch()
    with open(folder / "large", "wb") as file:
        file.truncate(GIGABYTE)
    return folder


@pytest.fixture(scope="module")
def asgi(serve_shared: Servers) -> Server:
    return serve_shared(ASGI, warm_up="/extensions")


@pytest.fixture(scope="module")
def wsgi(serve_shared: Servers) -> Server:
    return serve_shared(WSGI, warm_up="/")


@pytest.fixture(scope="module")
def secure(serve_shared: Servers) -> Server:
    return serve_shared(ASGI, tls=True, warm_up="/extensions")


@pytest.fixture(params=["pathsend", "file_wrapper"])
def whole(request: pytest.FixtureRequest, asgi: Server, wsgi: Server) -> tuple[Server, str]:
    """A server, and the path at which a file is the whole response."""
    return (asgi, "/path_send") if request.param == "pathsend" else (wsgi, "/buffered")


def target(path: str, file: Path, **arguments: str | int) -> str:
    """A request target whose arguments are those of an app; `_` in their names stands for `-`."""
    query = {name.replace("_", "-"): str(value) for name, value in arguments.items()}
    return f"{path}?{urlencode({'path': file} | query)}"


def get(server: Server, path: str, file: Path, *headers: str, **arguments: str | int) -> raw.Response:
    with raw.Connection(server) as client:
        return client.get(target(path, file, **arguments).encode(), *(header.encode() for header in headers))


class TestWhole:
    """A file that is the whole response, by pathsend and by file_wrapper."""

    def test_http1(self, whole: tuple[Server, str], folder: Path) -> None:
        with raw.Connection(whole[0]) as client:
            for _ in range(2):  # the connection goes on
                response = client.get(target(whole[1], folder / "content").encode())
                assert (response.status, response.body) == (200, CONTENT)
                assert response.values(b"content-length") == [b"300000"]
                assert response.values(b"accept-ranges") == [b"bytes"]

    def test_http10(self, whole: tuple[Server, str], folder: Path) -> None:
        with raw.Connection(whole[0]) as client:
            client.send(f"GET {target(whole[1], folder / 'content')} HTTP/1.0\r\n\r\n".encode())
            assert client.response().body == CONTENT

    def test_head(self, whole: tuple[Server, str], folder: Path) -> None:
        with raw.Connection(whole[0]) as client:
            client.send(f"HEAD {target(whole[1], folder / 'content')} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            response = client.response("HEAD")
            assert response.values(b"content-length") == [b"300000"]
            assert response.values(b"accept-ranges") == [b"bytes"], "as for GET"
            client.end()
            assert list(client.responses()) == []

    def test_an_empty_file(self, whole: tuple[Server, str], folder: Path) -> None:
        response = get(*whole, folder / "empty")
        assert (response.status, response.body, response.values(b"content-length")) == (200, b"", [b"0"])

    @pytest.mark.parametrize("status", ["204", "304"])
    def test_a_status_without_a_body(self, whole: tuple[Server, str], folder: Path, status: str) -> None:
        response = get(*whole, folder / "content", status=f"{status} Name" if whole[1] == "/buffered" else status)
        assert (response.status, response.body) == (int(status), b"")

    def test_more_than_was_declared_is_left_out(self, whole: tuple[Server, str], folder: Path) -> None:
        """The file has grown since the app looked at its size."""
        name = "content-length" if whole[1] == "/path_send" else "Content-Length"
        response = get(*whole, folder / "content", **{name: 1234})  # type: ignore[arg-type]
        assert (response.body, response.complete) == (CONTENT[:1234], True)

    def test_encode(self, serve: Servers, folder: Path) -> None:
        text = folder / "text"
        text.write_bytes(b"words, words, words\n" * 10_000)
        server = serve(f"encode gzip\nroute {{\n {ASGI} \n}}")
        response = server.get(target("/path_send", text, content_type="text/plain"))
        assert response.headers["content-encoding"] == "gzip"
        assert response.content == text.read_bytes()

    def test_a_client_that_goes(self, whole: tuple[Server, str], folder: Path) -> None:
        """That no descriptor stays behind is checked after each test."""
        with raw.Connection(whole[0], receive_buffer=4096) as client:
            client.send(f"GET {target(whole[1], folder / 'large')} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert client.head()[0] == 200

    @pytest.mark.expect_errors("worker exited")
    def test_the_file_goes_on_when_the_worker_has_gone(self, serve: Servers, folder: Path) -> None:
        server = serve(ASGI)
        with raw.Connection(server, receive_buffer=4096) as client:
            client.send(f"GET {target('/path_send', folder / 'content')} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert client.head()[0] == 200
            [worker] = server.workers()
            worker.kill()
            wait_until(lambda: server.worker_pids() not in (set(), {worker.pid}), "another worker")
            assert client.read(len(CONTENT)) == CONTENT


@pytest.mark.parametrize("path", ["/path_send", "/zero_copy_send", "/buffered"])
def test_a_gigabyte_costs_the_worker_next_to_nothing(asgi: Server, wsgi: Server, folder: Path, path: str) -> None:
    server = wsgi if path == "/buffered" else asgi
    with raw.Connection(server) as client, Growth(server.caddy_and_workers()) as growth:
        client.get(target(path, folder / "content").encode())
        before = float(client.get(b"/cpu").body)
        client.send(f"GET {target(path, folder / 'large')} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert client.head()[0] == 200
        if path == "/zero_copy_send":
            received = sum(len(chunk) for chunk in client.chunks()) - len(f" at {GIGABYTE}")
        else:
            received = client.skip(GIGABYTE)
        assert received == GIGABYTE
        used = float(client.get(b"/cpu").body) - before
    assert used < CPU, f"{used * 1000:.1f} ms"
    assert max(growth.megabytes().values()) < 32


@pytest.mark.parametrize("app", ["flask", "django", "starlette"])
def test_what_frameworks_send(serve: Servers, folder: Path, app: str) -> None:
    """Their bytes do not pass through Python either."""
    interface = "asgi" if app == "starlette" else "wsgi"
    server = serve(f"python {{\n module_{interface} file_apps:{app}_app \n workers 1 \n import worker \n}}")
    with raw.Connection(server) as client:
        assert client.get(f"/file?{folder / 'content'}".encode()).body == CONTENT
        before = float(client.get(b"/cpu").body)
        client.send(f"GET /file?{folder / 'large'} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        status, headers = client.head()
        assert (status, dict(headers)[b"content-length"]) == (200, str(GIGABYTE).encode())
        assert client.skip(GIGABYTE) == GIGABYTE
        used = float(client.get(b"/cpu").body) - before
    assert used < CPU, f"{used * 1000:.1f} ms"


def test_gevent(serve: Servers, folder: Path) -> None:
    server = serve("python {\n module_wsgi files_wsgi:app \n runtime gevent \n workers 1 \n import worker \n}")
    with raw.Connection(server) as client:
        assert client.get(target("/buffered", folder / "content", seek=10).encode()).body == CONTENT[10:]
        before = float(client.get(b"/cpu").body)
        client.send(f"GET {target('/buffered', folder / 'large')} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert client.head()[0] == 200
        assert client.skip(GIGABYTE) == GIGABYTE
        used = float(client.get(b"/cpu").body) - before
    assert used < CPU, f"{used * 1000:.1f} ms"


class TestRange:
    """Ranges of a file that an app gives as a whole (RFC 9110, section 14)."""

    @pytest.mark.parametrize(
        ("asked", "first", "last"),
        [
            ("0-0", 0, 0),
            ("100-299", 100, 299),
            ("299000-", 299_000, 299_999),
            ("-5", 299_995, 299_999),
            ("299990-400000", 299_990, 299_999),
        ],
    )
    def test_one(self, whole: tuple[Server, str], folder: Path, asked: str, first: int, last: int) -> None:
        response = get(*whole, folder / "content", f"Range: bytes={asked}")
        assert (response.status, response.body) == (206, CONTENT[first : last + 1])
        assert response.values(b"content-range") == [f"bytes {first}-{last}/300000".encode()]
        assert response.values(b"content-length") == [str(last + 1 - first).encode()]

    @pytest.mark.parametrize(("asked", "status"), [("Bytes=0-9", 206), ("items=0-9", 200), ("0-9", 200)])
    def test_other_units_are_ignored_and_case_does_not_matter(
        self, whole: tuple[Server, str], folder: Path, asked: str, status: int
    ) -> None:
        response = get(*whole, folder / "content", f"Range: {asked}")
        assert (response.status, response.body) == (status, CONTENT[:10] if status == 206 else CONTENT)

    def test_several(self, whole: tuple[Server, str], folder: Path) -> None:
        response = get(*whole, folder / "content", "Range: bytes=10-19, -3")
        assert response.status == 206
        [kind] = response.values(b"content-type")
        assert kind.startswith(b"multipart/byteranges; boundary=")
        boundary = b"--" + kind.partition(b"=")[2]
        parts = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in response.body.split(boundary)[1:-1]]
        assert parts == [CONTENT[10:20], CONTENT[-3:]]

    def test_the_apps_headers_stay(self, asgi: Server, folder: Path) -> None:
        headers = {"etag": '"v1"', "last_modified": MODIFIED, "content_type": "image/x-test", "content_length": 300_000}
        response = get(asgi, "/path_send", folder / "content", "Range: bytes=0-9", **headers)  # type: ignore[arg-type]
        assert (response.status, response.body) == (206, CONTENT[:10])
        assert response.values(b"etag") == [b'"v1"']
        assert response.values(b"last-modified") == [MODIFIED.encode()]
        assert response.values(b"content-type") == [b"image/x-test"]
        assert response.values(b"content-length") == [b"10"]

    def test_none_of_it_is_there(self, whole: tuple[Server, str], folder: Path) -> None:
        response = get(*whole, folder / "content", "Range: bytes=300000-")
        assert response.status == 416
        assert response.values(b"content-range") == [b"bytes */300000"]

    @pytest.mark.parametrize(
        ("condition", "status"),
        [('"v1"', 206), ('"v2"', 200), ('W/"v1"', 200), (MODIFIED, 206), ("Sat, 21 Nov 2020 11:00:00 GMT", 200)],
    )
    def test_if_range(self, asgi: Server, folder: Path, condition: str, status: int) -> None:
        ask = ("Range: bytes=0-9", f"If-Range: {condition}")
        response = get(asgi, "/path_send", folder / "content", *ask, etag='"v1"', last_modified=MODIFIED)
        assert (response.status, response.body) == (status, CONTENT[:10] if status == 206 else CONTENT)

    @pytest.mark.parametrize("condition", ['If-None-Match: "v1"', 'If-Match: "v2"', f"If-Modified-Since: {MODIFIED}"])
    def test_other_conditions_are_the_apps_to_judge(self, asgi: Server, folder: Path, condition: str) -> None:
        ask = ("Range: bytes=0-9", condition)
        response = get(asgi, "/path_send", folder / "content", *ask, etag='"v1"', last_modified=MODIFIED)
        assert (response.status, response.body) == (206, CONTENT[:10])

    @pytest.mark.parametrize(
        "arguments",
        [{"status": 206, "content_range": "bytes 0-299999/300000"}, {"status": 404}, {"accept_ranges": "none"}],
        ids=["206", "404", "accept-ranges"],
    )
    def test_a_response_that_is_no_whole(self, asgi: Server, folder: Path, arguments: dict[str, str | int]) -> None:
        response = get(asgi, "/path_send", folder / "content", "Range: bytes=0-9", **arguments)
        assert (response.status, response.body) == (arguments.get("status", 200), CONTENT)

    def test_only_get_has_ranges(self, asgi: Server, folder: Path) -> None:
        with raw.Connection(asgi) as client:
            for method, body in (("POST", CONTENT), ("HEAD", b"")):
                head = f"{method} {target('/path_send', folder / 'content')} HTTP/1.1\r\nHost: test\r\n"
                client.send(f"{head}Content-Length: 0\r\nRange: bytes=0-9\r\n\r\n".encode())
                response = client.response(method)
                assert (response.status, response.body) == (200, body)
                assert response.values(b"content-length") == [b"300000"]

    def test_a_part_of_the_body_has_none(self, asgi: Server, folder: Path) -> None:
        response = get(asgi, "/path_send_between", folder / "content", "Range: bytes=0-9")
        assert (response.status, response.body) == (200, b"before " + CONTENT)

    def test_http2(self, secure: Server, folder: Path) -> None:
        with http2.Connection(secure) as client:
            stream = client.response(
                client.request(target("/path_send", folder / "content"), [(b"range", b"bytes=5-9")])
            )
        assert (stream.status, bytes(stream.body)) == (206, CONTENT[5:10])


class TestPathSend:
    def test_http2(self, secure: Server, folder: Path) -> None:
        with http2.Connection(secure) as client:
            stream = client.response(client.request(target("/path_send", folder / "content")))
        assert (stream.status, bytes(stream.body)) == (200, CONTENT)

    @pytest.mark.expect_errors("[Errno", "only a regular file can be sent")
    @pytest.mark.parametrize("name", ["missing", "folder", "pipe", "socket"])
    def test_what_cannot_be_sent_is_a_500(self, asgi: Server, tmp_path: Path, name: str) -> None:
        """It is known before the response begins; and a pipe without a writer keeps nobody waiting."""
        path = tmp_path / name
        if name == "folder":
            path.mkdir()
        elif name == "pipe":
            os.mkfifo(path)
        elif name == "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        response = get(asgi, "/path_send", path)
        assert response.status == 500
        entry = asgi.log.wait_for(lambda entry: str(path) in str(entry) or "regular file" in str(entry.get("error")))
        assert entry["path"] == "/path_send"

    def test_more_than_was_declared_long_ago_is_left_out(self, asgi: Server, folder: Path) -> None:
        """The headers have left before the file; what is behind it on the connection is the next response."""
        gate = uuid.uuid4().hex
        with raw.Connection(asgi) as client:
            path = target("/path_send", folder / "content", content_length=1234, gate=gate)
            client.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert client.head()[0] == 200
            assert asgi.get(f"/open_gate?gate={gate}").status_code == 200
            assert client.read(1234) == CONTENT[:1234]
            assert client.get(target("/path_send", folder / "empty").encode()).status == 200

    @pytest.mark.expect_errors("content-length")
    def test_less_than_was_declared_is_a_500(self, asgi: Server, folder: Path) -> None:
        response = get(asgi, "/path_send", folder / "content", content_length=300_001)
        assert response.status == 500


class TestZeroCopySend:
    """The app answers with the file or a part of it, and behind that where its own file stands."""

    @pytest.mark.parametrize(
        ("arguments", "first", "last", "at"),
        [
            ({}, 0, 300_000, 300_000),
            ({"seek": 1000}, 1000, 300_000, 300_000),
            ({"count": 10}, 0, 10, 10),
            ({"seek": 5, "offset": 100, "count": 50}, 100, 150, 5),
            ({"offset": 299_999, "count": 50}, 299_999, 300_000, 0),
            ({"offset": 300_001}, 0, 0, 0),
        ],
    )
    def test_parts(
        self, asgi: Server, folder: Path, arguments: dict[str, str | int], first: int, last: int, at: int
    ) -> None:
        response = get(asgi, "/zero_copy_send", folder / "content", **arguments)
        assert (response.status, response.body) == (200, CONTENT[first:last] + f" at {at}".encode())

    def test_many_parts_between_other_parts_of_the_body(self, asgi: Server, folder: Path) -> None:
        """Their order is kept, and no more of them wait than the stream's credit allows."""
        count = 500
        response = get(asgi, "/zero_copy_parts", folder / "content", parts=count)
        assert response.body == b"".join(b"%c " % byte for byte in CONTENT[:count])

    @pytest.mark.expect_errors("longer than its content-length")
    def test_a_part_beyond_what_was_declared_is_not_sent(self, asgi: Server, folder: Path) -> None:
        with raw.Connection(asgi) as client:
            path = target("/zero_copy_parts", folder / "content", parts=2, content_length=2)
            client.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert client.head()[0] == 200
            assert client.read(2) == CONTENT[:1] + b" "
            client.end()
            assert list(client.responses()) == []

    def test_a_client_that_goes_between_parts(self, asgi: Server, folder: Path) -> None:
        with raw.Connection(asgi, receive_buffer=4096) as client:
            client.send(f"GET {target('/zero_copy_parts', folder / 'content', parts=100_000)}".encode())
            client.send(b" HTTP/1.1\r\nHost: test\r\n\r\n")
            assert client.head()[0] == 200

    def test_http2(self, secure: Server, folder: Path) -> None:
        with http2.Connection(secure) as client:
            stream = client.response(client.request(target("/zero_copy_send", folder / "content", seek=7)))
        assert bytes(stream.body) == CONTENT[7:] + b" at 300000"

    @pytest.mark.expect_errors("only a regular file can be sent")
    def test_what_is_no_file_is_a_500(self, asgi: Server, folder: Path) -> None:
        assert get(asgi, "/zero_copy_socket", folder).status == 500

    def test_hundreds_at_once(self, asgi: Server, folder: Path) -> None:
        """More than the descriptors' socket holds: the rest of them wait."""
        connections = [raw.Connection(asgi) for _ in range(400)]
        try:
            for client in connections:
                client.send(
                    f"GET {target('/zero_copy_send', folder / 'content')} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
                )
            for client in connections:
                assert client.response().body == CONTENT + b" at 300000"
        finally:
            for client in connections:
                client.close()


class TestFileWrapper:
    @pytest.mark.parametrize("kind", ["buffered", "unbuffered", "temporary", "nameless", "in_memory", "compressed"])
    @pytest.mark.parametrize(
        ("arguments", "first"), [({}, 0), ({"seek": 1000}, 1000), ({"read": 100}, 100)], ids=["all", "seek", "read"]
    )
    def test_any_kind_of_file_from_its_position_on(
        self, wsgi: Server, folder: Path, kind: str, arguments: dict[str, str | int], first: int
    ) -> None:
        assert get(wsgi, f"/{kind}", folder / "content", **arguments).body == CONTENT[first:]

    def test_what_the_file_reads_counts_not_what_its_descriptor_has(self, wsgi: Server, folder: Path) -> None:
        assert get(wsgi, "/Upper", folder / "content").body == CONTENT.upper()

    def test_a_pipe(self, wsgi: Server, folder: Path) -> None:
        assert get(wsgi, "/pipe", folder / "content").body == CONTENT[:1000]

    def test_a_file_that_says_it_is_empty(self, wsgi: Server, folder: Path) -> None:
        assert get(wsgi, "/buffered", Path("/proc/cpuinfo")).body == Path("/proc/cpuinfo").read_bytes()

    def test_behind_write(self, wsgi: Server, folder: Path) -> None:
        response = get(wsgi, "/buffered", folder / "content", write="before ")
        assert (response.body, response.complete) == (b"before " + CONTENT, True)
        arguments = {"write": "before ", "Content-Length": 17}
        response = get(wsgi, "/buffered", folder / "content", **arguments)  # type: ignore[arg-type]
        assert (response.body, response.complete) == (b"before " + CONTENT[:10], True)

    @pytest.mark.expect_errors("the app declared Content-Length: 300001 and gave 300000 bytes")
    def test_less_than_was_declared_is_cut(self, wsgi: Server, folder: Path) -> None:
        response = get(wsgi, "/buffered", folder / "content", **{"Content-Length": 300_001})
        assert not response.complete

    @pytest.mark.parametrize("kind", ["buffered", "in_memory"])
    def test_it_is_closed(self, wsgi: Server, folder: Path, kind: str) -> None:
        key = uuid.uuid4().hex
        assert get(wsgi, f"/{kind}", folder / "content", key=key).body == CONTENT
        wait_until(lambda: key in wsgi.get("/closed").text, "close()")

    def test_many_threads_at_once(self, wsgi: Server, folder: Path) -> None:
        connections = [raw.Connection(wsgi) for _ in range(64)]
        try:
            for _ in range(5):
                for at, client in enumerate(connections):
                    client.send(f"GET {target('/buffered', folder / 'content', seek=at)} HTTP/1.1\r\n".encode())
                    client.send(b"Host: test\r\n\r\n")
                for at, client in enumerate(connections):
                    assert client.response().body == CONTENT[at:]
        finally:
            for client in connections:
                client.close()
