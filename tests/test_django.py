"""Django as it is deployed: database, admin, forms with CSRF protection, static files."""

import html.parser
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.check import Servers
from support.server import Server, isolated_environment
from support.worker import APPS, Worker

SITE = """
    handle_path /shop/static/* {{
        root * {data}/static
        file_server
    }}
    handle_path /shop/* {{
        python {{
            {module}
            workers 2
            env_var DJANGO_DATA {data}
            import worker
        }}
    }}
"""

# Its own server, because workers that are threads have one environment.
WHITENOISE = """
    python {{
        {module}
        workers 1
        env_var DJANGO_DATA {data}
        env_var DJANGO_WHITENOISE yes
        import worker
    }}
"""


@pytest.fixture(scope="module")
def data(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database with one user, and the collected static files."""
    folder = tmp_path_factory.mktemp("django")
    env = isolated_environment(folder) | {"DJANGO_DATA": str(folder), "DJANGO_SUPERUSER_PASSWORD": "secret"}
    for command in (
        "migrate --verbosity 0",
        "createsuperuser --no-input --username ada --email ada@example.com",
        "collectstatic --no-input --verbosity 0",
    ):
        manage = [str(worker.python), "django_app.py", *command.split()]
        subprocess.run(manage, cwd=APPS, env=env, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def module(request: pytest.FixtureRequest) -> str:
    return f"module_{request.param} django_app:{request.param}"


@pytest.fixture(scope="module")
def server(serve_shared: Servers, data: Path, module: str) -> Iterator[Server]:
    yield serve_shared(SITE.format(module=module, data=data), warm_up="/shop/")
    serve_shared.close()


class Fields(html.parser.HTMLParser):
    """The named input fields of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect an <input>."""
        attributes = dict(attrs)
        name = attributes.get("name")
        if tag == "input" and name:
            self.values[name] = attributes.get("value") or ""


def submit(server: Server, path: str, **values: str) -> httpx.Response:
    """Fill in the form at `path` as a browser would and send it."""
    page = server.get(path)
    assert page.status_code == 200
    return server.post(path, data=Fields(page.text).values | values)


def test_admin_login(server: Server) -> None:
    assert server.get("/shop/admin/").headers["location"] == "/shop/admin/login/?next=/shop/admin/"
    response = submit(server, "/shop/admin/login/?next=/shop/admin/", username="ada", password="secret")
    assert response.status_code == 302
    assert response.headers["location"] == "/shop/admin/"
    page = server.get("/shop/admin/")
    assert "Site administration" in page.text
    assert "ada" in page.text


def test_admin_login_with_wrong_password(server: Server) -> None:
    response = submit(server, "/shop/admin/login/", username="ada", password="guess")
    assert response.status_code == 200
    assert "Please enter the correct" in response.text
    assert server.get("/shop/admin/").status_code == 302


def test_admin_saves_to_the_database(server: Server) -> None:
    submit(server, "/shop/admin/login/", username="ada", password="secret", next="/shop/admin/")
    created = submit(server, "/shop/admin/auth/group/add/", name="Readers")
    assert created.status_code == 302, created.text
    listing = server.get("/shop/admin/auth/group/").text
    found = re.search(r'href="(/shop/admin/auth/group/\d+)/change/[^"]*">Readers', listing)
    assert found, listing
    assert submit(server, f"{found[1]}/delete/", post="yes").status_code == 302
    assert "Readers</a>" not in server.get("/shop/admin/auth/group/").text


def test_form(server: Server) -> None:
    assert "Hello, Zoë!" in submit(server, "/shop/greet", name="Zoë").text
    assert "at most 10 characters" in submit(server, "/shop/greet", name="Zoë" * 10).text


def test_forged_form_is_refused(server: Server) -> None:
    assert server.post("/shop/greet", data={"name": "Eve"}).status_code == 403


def stylesheet(server: Server, mount: str) -> str:
    """The path of the first stylesheet that the login page names."""
    page = server.get(f"{mount}/admin/login/").text
    found = re.search(r'href="([^"]+\.css)"', page)
    assert found, page
    return found[1]


def test_static_files_from_caddy(server: Server, data: Path) -> None:
    path = stylesheet(server, "/shop")
    assert path.startswith("/shop/static/admin/")
    response = server.get(path)
    assert response.content == (data / path.removeprefix("/shop/")).read_bytes()
    assert response.headers["content-type"].startswith("text/css")
    assert response.headers["accept-ranges"] == "bytes", "Caddy's file_server has served it, not Python"


def test_static_files_from_whitenoise(serve: Servers, data: Path, module: str) -> None:
    server = serve(WHITENOISE.format(module=module, data=data))
    path = stylesheet(server, "")
    response = server.get(path)
    assert response.content == (data / path.lstrip("/")).read_bytes()
    assert "max-age" in response.headers["cache-control"], "whitenoise has served it"
    not_modified = server.get(path, headers={"if-modified-since": response.headers["last-modified"]})
    assert not_modified.status_code == 304
