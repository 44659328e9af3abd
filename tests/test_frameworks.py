"""The frameworks from PyPI, unmodified: each serves the same small site in its own manner (apps/*_app.py).

Every test runs with the app at / and mounted by handle_path; WSGI apps also inside wsgiref.validate, and under
gevent.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from support.check import Servers
from support.server import Server

WSGI = {
    "bottle": "bottle_app:app",
    "bottle-validated": "bottle_app:validated",
    "bottle-gevent": "bottle_app:app",
    "django": "django_app:wsgi",
    "django-validated": "django_app:validated",
    "django-gevent": "django_app:wsgi",
    "falcon": "falcon_app:app",
    "falcon-validated": "falcon_app:validated",
    "flask": "flask_app:app",
    "flask-validated": "flask_app:validated",
    "flask-gevent": "flask_app:app",
    "pyramid": "pyramid_app:app",
    "pyramid-validated": "pyramid_app:validated",
    "pyramid-gevent": "pyramid_app:app",
}
ASGI = {
    "django-asgi": "django_app:asgi",
    "falcon-asgi": "falcon_asgi_app:app",
    "fastapi": "fastapi_app:app",
    "litestar": "litestar_app:app",
    "quart": "quart_app:app",
    "starlette": "starlette_app:app",
}
DIRECTIVES = {
    name: f"module_wsgi {app}\nruntime {'gevent' if name.endswith('-gevent') else 'sync'}" for name, app in WSGI.items()
} | {name: f"module_asgi {app}" for name, app in ASGI.items()}
# What is mounted where it is not the same.
MOUNTED = DIRECTIVES | {"falcon-asgi": "module_asgi falcon_asgi_app:mounted"}
# Those that read a body whose length they are not told.
READ_TO_THE_END = [
    *("flask", "flask-gevent", "flask-validated", "pyramid", "pyramid-gevent", "pyramid-validated"),
    *("falcon-asgi", "fastapi", "litestar", "quart", "starlette"),
]


@dataclass
class Site:
    """The common site, where one framework serves it."""

    server: Server
    framework: str
    mount: str

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Request a path of the site."""
        return self.server.request(method, self.mount + path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Get a path of the site."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """Post to a path of the site."""
        return self.request("POST", path, **options)


@pytest.fixture(scope="module", params=sorted(DIRECTIVES))
def server(serve_shared: Servers, request: pytest.FixtureRequest) -> Iterator[Server]:
    site = f"""
        handle_path /mounted/* {{
            python {{
                {MOUNTED[request.param]}
                workers 1
                import worker
            }}
        }}
        python {{
            {DIRECTIVES[request.param]}
            workers 1
            import worker
        }}
    """
    yield serve_shared(site, warm_up="/")
    serve_shared.close()


@pytest.fixture(params=["", "/mounted"], ids=["root", "mounted"])
def site(server: Server, request: pytest.FixtureRequest) -> Site:
    return Site(server, request.node.callspec.params["server"].split("-")[0], request.param)


def test_page(site: Site) -> None:
    response = site.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.text.lower() == f"<h1>hello from {site.framework}</h1>"


def test_head(site: Site) -> None:
    if site.framework in ("falcon", "fastapi", "litestar"):
        assert site.request("HEAD", "/").status_code == 405, "these route HEAD only where the app says so"
    else:
        response = site.request("HEAD", "/")
        assert (response.status_code, response.content) == (200, b"")


def test_route_with_parameters(site: Site) -> None:
    response = site.get("/items/7", params={"color": "blå & grøn"})
    assert response.json() == {"id": 7, "color": "blå & grøn"}


def test_unicode_in_path(site: Site) -> None:
    assert site.get("/names/Zoë Ωmega").json() == {"name": "Zoë Ωmega"}


@pytest.mark.parametrize("path", ["/missing", "/items/seven"])
def test_not_found(site: Site, path: str) -> None:
    assert site.get(path).status_code == 404


def test_form(site: Site) -> None:
    response = site.post("/form", data={"name": "Zoë", "fruit": ["apple", "pear"]})
    assert response.json() == {"name": "Zoë", "fruit": ["apple", "pear"]}


def test_cookie_and_redirect(site: Site) -> None:
    response = site.post("/login", data={"name": "Ada"})
    assert response.status_code == 303
    target = urljoin(str(response.url), response.headers["location"])
    assert target == f"{site.server.url}{site.mount}/me"
    assert site.server.get(target).text == "Hello, Ada"


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
def test_upload(site: Site, size: int) -> None:
    content = os.urandom(size)
    response = site.post("/upload", files={"file": ("data.bin", content, "application/octet-stream")})
    sha256 = hashlib.sha256(content).hexdigest()
    assert response.json() == {"filename": "data.bin", "size": size, "sha256": sha256}


@pytest.mark.parametrize("server", READ_TO_THE_END, indirect=True)
def test_upload_of_unknown_length(site: Site) -> None:
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\n" + b"x" * 100_000 + b"\r\n--edge--\r\n"
    )
    chunks = (body[start : start + 7000] for start in range(0, len(body), 7000))
    response = site.post("/upload", content=chunks, headers={"content-type": "multipart/form-data; boundary=edge"})
    assert response.json()["size"] == 100_000


def test_json(site: Site) -> None:
    document = {"numbers": [1, 2.5, None], "text": "Grüße"}
    assert site.post("/json", json=document).json() == {"got": document}


def test_link_leads_back(site: Site) -> None:
    link = urljoin(f"{site.server.url}/", site.get("/links").json()["item"])
    assert link == f"{site.server.url}{site.mount}/items/7"
    assert site.server.get(link).json()["id"] == 7


def test_stream_is_not_held_back(site: Site) -> None:
    key = uuid.uuid4().hex
    with site.server.client.stream("GET", f"{site.mount}/stream/{key}") as response:
        lines = response.iter_lines()
        assert next(lines) == "first"
        # The app does not go on until this request, which it can only get because the first line has arrived.
        assert site.post(f"/release/{key}").status_code in (200, 201)
        assert list(lines) == ["second"]


@pytest.mark.expect_errors("a bug in the app")
def test_error(site: Site) -> None:
    since = site.server.log.position()
    assert site.get("/error").status_code == 500
    site.server.log.wait_for(lambda entry: "RuntimeError: a bug in the app" in str(entry), since)
    assert site.get("/").status_code == 200
