"""ASGI's early hints, trailers and TLS extension on the wire, over HTTP/1.1 and HTTP/2. Files are in test_files.py."""

from __future__ import annotations

import ssl
import uuid

import httpx
import pytest

from support import http2, raw
from support.check import Servers
from support.server import Server

SITE = "python {\n module_asgi extensions_asgi:app \n workers 1 \n import worker \n}"
WARM_UP = "/extensions"
LINKS = [b"</style.css>; rel=preload; as=style", b"</app.js>; rel=preload"]
LATE_LINK = b"</late.css>; rel=preload"
TRAILERS = [(b"x-digest", b"abc"), (b"server-timing", b"db;dur=53")]
TE = (b"te", b"trailers")


def open_gate(server: Server, gate: str) -> None:
    assert server.get(f"/open_gate?gate={gate}").status_code == 200


def links(headers: http2.Fields) -> list[bytes]:
    return [value for name, value in headers if name == b"link"]


class TestEarlyHints:
    @pytest.mark.parametrize(
        ("case", "hints"), [("hint", [LINKS, [LATE_LINK]]), ("hint_first", [LINKS])], ids=["behind start", "first"]
    )
    def test_http1(self, plain: Server, case: str, hints: list[list[bytes]]) -> None:
        """They are on the wire while the app still works on its response."""
        gate = uuid.uuid4().hex
        with raw.Connection(plain) as client:
            client.send(f"GET /{case}?gate={gate} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            for expected in hints:
                status, headers = client.head()
                assert status == 103
                assert headers == [(b"link", link) for link in expected], "nothing else is known so early"
            open_gate(plain, gate)
            response = client.response()
        assert (response.status, response.body) == (200, b"body")
        assert response.values(b"link") == []
        assert response.values(b"content-type") != []

    @pytest.mark.parametrize(
        ("case", "hints"), [("hint", [LINKS, [LATE_LINK]]), ("hint_first", [LINKS])], ids=["behind start", "first"]
    )
    def test_http2(self, secure: Server, case: str, hints: list[list[bytes]]) -> None:
        gate = uuid.uuid4().hex
        with http2.Connection(secure) as client:
            stream = client.streams[client.request(f"/{case}?gate={gate}")]
            while len(stream.hints) < len(hints):
                client.read()
            assert [links(headers) for headers in stream.hints] == hints
            assert [dict(headers)[b":status"] for headers in stream.hints] == [b"103"] * len(hints)
            open_gate(secure, gate)
            while not stream.ended:
                client.read()
        assert (stream.status, bytes(stream.body)) == (200, b"body")
        assert links(stream.headers) == []

    def test_a_start_alone_leaves_soon_when_nothing_follows(self, plain: Server) -> None:
        """Waiting for hints and for the body has an end."""
        gate = uuid.uuid4().hex
        with raw.Connection(plain) as client:
            client.send(f"GET /hint?gate={gate} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert [client.head()[0] for _ in range(3)] == [103, 103, 200]
            open_gate(plain, gate)
            assert b"".join(client.chunks()) == b"body"

    def test_a_hint_that_comes_too_late_is_ignored(self, plain: Server) -> None:
        with raw.Connection(plain) as client:
            client.send(b"GET /hint_late HTTP/1.1\r\nHost: test\r\n\r\n")
            response = client.response()
        assert (response.status, response.body) == (200, b"body")

    def test_a_client_that_waits_to_send_its_body_is_told_to_and_gets_none(self, plain: Server) -> None:
        """Both at once would garble one another."""
        for _ in range(100):
            with raw.Connection(plain) as client:
                client.send(b"POST /hint_and_body HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n")
                client.send(b"Expect: 100-continue\r\n\r\n")
                assert client.head() == (100, [])
                client.send(b"body")
                response = client.response()
            assert (response.status, response.body) == (200, b"body")

    def test_http10_has_none(self, plain: Server) -> None:
        with raw.Connection(plain) as client:
            client.send(b"GET /hint HTTP/1.0\r\n\r\n")
            assert client.head()[0] == 200

    @pytest.mark.expect_errors("illegal link in an early hint")
    def test_one_that_would_split_the_response_is_a_500(self, plain: Server) -> None:
        with raw.Connection(plain) as client:
            client.send(b"GET /hint_illegal HTTP/1.1\r\nHost: test\r\n\r\n")
            status, headers = client.head()
        assert status == 500
        assert b"x-injected" not in dict(headers)


class TestTrailers:
    @pytest.mark.parametrize("query", ["", "?length=8", "?empty=1"], ids=["body", "length", "empty"])
    def test_http1(self, plain: Server, query: str) -> None:
        with raw.Connection(plain) as client:
            for _ in range(2):  # the connection goes on
                response = client.get(b"/trailers" + query.encode(), b"TE: trailers", b"Connection: TE")
                assert response.status == 200
                assert response.values(b"transfer-encoding") == [b"chunked"]
                assert response.values(b"trailer") == [b"X-Digest, Server-Timing"]
                assert response.body == (b"" if "empty" in query else b"the body")
                assert sorted(response.trailers) == sorted(TRAILERS)

    @pytest.mark.parametrize("query", ["", "?length=8", "?empty=1"], ids=["body", "length", "empty"])
    def test_http2(self, secure: Server, query: str) -> None:
        with http2.Connection(secure) as client:
            stream = client.response(client.request("/trailers" + query, [TE]))
        assert (stream.status, bytes(stream.body)) == (200, b"" if "empty" in query else b"the body")
        assert stream.ended
        assert sorted(stream.trailers) == sorted(TRAILERS)

    def test_behind_encode(self, serve: Servers) -> None:
        server = serve(f"encode {{\n gzip \n minimum_length 1 \n}}\n{SITE}")
        with raw.Connection(server) as client:
            response = client.get(b"/trailers", b"TE: trailers", b"Connection: TE", b"Accept-Encoding: gzip")
        assert response.values(b"content-encoding") == [b"gzip"]
        assert response.complete
        assert sorted(response.trailers) == sorted(TRAILERS)

    def test_a_client_that_wants_none_gets_none(self, plain: Server, secure: Server) -> None:
        with raw.Connection(plain) as client:
            response = client.get(b"/trailers")
            assert (response.body, response.complete, response.trailers) == (b"the body", True, [])
        with http2.Connection(secure) as client:
            stream = client.response(client.request("/trailers"))
            assert (bytes(stream.body), stream.ended, stream.trailers) == (b"the body", True, [])

    @pytest.mark.expect_errors("without a complete response")
    def test_a_response_without_its_trailers_is_cut(self, plain: Server) -> None:
        with raw.Connection(plain) as client:
            response = client.get(b"/trailers_missing", b"TE: trailers", b"Connection: TE")
        assert (response.body, response.complete) == (b"body", False)

    @pytest.mark.expect_errors("content-length cannot be a trailer")
    def test_a_header_that_must_come_first_is_no_trailer(self, plain: Server) -> None:
        with raw.Connection(plain) as client:
            response = client.get(b"/trailers_illegal", b"TE: trailers", b"Connection: TE")
        assert not response.complete


def advertised(response: httpx.Response | raw.Response) -> set[str]:
    return set(response.json())


def test_what_is_advertised(plain: Server, secure: Server) -> None:
    always = {"http.response.pathsend", "http.response.zerocopysend"}
    hints, trailers = {"http.response.early_hint"}, {"http.response.trailers"}
    with raw.Connection(plain) as client:
        assert advertised(client.get(b"/extensions")) == always | hints
        assert advertised(client.get(b"/extensions", b"TE: trailers, deflate")) == always | hints | trailers
        client.send(b"GET /extensions HTTP/1.0\r\nTE: trailers\r\n\r\n")
        assert advertised(client.response()) == always
    with http2.Connection(secure) as h2:
        assert set(h2.response(h2.request("/extensions", [TE])).json()) == always | hints | trailers | {"tls"}


class TestTLS:
    """Version 0.2 of the TLS extension."""

    def test_without_a_client_certificate(self, secure: Server) -> None:
        with raw.Connection(secure) as client:
            client.send(b"GET /extensions HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            tls = client.response().json()["tls"]
            assert isinstance(client.socket, ssl.SSLSocket)
            cipher = client.socket.cipher()
        assert cipher is not None
        suites = {cipher["name"]: cipher["id"] & 0xFFFF for cipher in ssl.create_default_context().get_ciphers()}
        assert tls == {
            "server_cert": None,
            "client_cert_chain": [],
            "client_cert_name": None,
            "client_cert_error": None,
            "tls_version": 0x0304,
            "cipher_suite": suites[cipher[0]],
        }

    @pytest.mark.parametrize(
        ("mode", "error"),
        [("require_and_verify", None), ("require", "the certificate was not verified against a certificate authority")],
    )
    def test_client_certificate(self, serve: Servers, secure: Server, mode: str, error: str | None) -> None:
        """The client shows the certificate that another server of Caddy's own authority has: signed by one between."""
        trust = f"trust_pool file {secure.root_certificate}" if mode == "require_and_verify" else ""
        server = serve(SITE, tls=True, client_auth=f"mode {mode}\n{trust}")
        context = server.trust()
        [certificate] = secure.certificates.glob("127.0.0.1/*.crt")
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        with server.new_client(verify=context) as client:
            tls = client.get("/extensions").json()["tls"]
        assert len(tls["client_cert_chain"]) == 2
        assert "".join(tls["client_cert_chain"]) == certificate.read_text()
        assert tls["client_cert_name"] == "", "which is the subject of such a certificate"
        assert tls["client_cert_error"] == error
