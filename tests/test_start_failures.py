"""An app that cannot start: one message that says what is wrong and where, the app's own traceback, no process left."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.check import Servers
from support.log import Entry
from support.server import Server

# What this module's servers log is what it tests.
pytestmark = pytest.mark.expect_errors("")


@dataclass
class Broken:
    """An app that cannot start.

    Attributes:
        directive: what the Caddyfile says.
        source: main.py.
        message: what the message must say, in this order, between other words.
        traceback: the last line of the app's own traceback; empty where the app has raised nothing.
    """

    directive: str
    source: str
    message: list[str]
    traceback: str = ""


BROKEN = {
    "missing module": Broken("module_wsgi mian:app", "app = None", ["mian", "main"]),
    "missing attribute": Broken(
        "module_wsgi main:app", "def application(environ, start_response): ...", ["main.py", "app", "application"]
    ),
    "not callable": Broken("module_wsgi main:app", "app = 42", ["app", "main.py", "int"]),
    "import error": Broken(
        "module_wsgi main:app",
        "import no_such_package\napp = None",
        ["main", "no_such_package"],
        "ModuleNotFoundError: No module named 'no_such_package'",
    ),
    "exception at import": Broken(
        "module_wsgi main:app",
        "settings = {}\napp = settings['SECRET']",
        ["main", "KeyError", "SECRET"],
        "KeyError: 'SECRET'",
    ),
    "syntax error": Broken(
        "module_wsgi main:app", "def app(environ, start_response)\n    pass", ["main", "SyntaxError"], "SyntaxError: "
    ),
    "exit at import": Broken(
        "module_wsgi main:app", "import sys\nsys.exit('no licence')", ["no licence"], "SystemExit: no licence"
    ),
    "factory raises": Broken(
        "module_wsgi main:make_app()", "def make_app():\n    return 1 / 0", ["make_app()", "ZeroDivisionError"], "Zero"
    ),
    "async app under module_wsgi": Broken(
        "module_wsgi main:app", "async def app(scope, receive, send): ...", ["main.py", "ASGI", "module_asgi"]
    ),
    "sync app under module_asgi": Broken(
        "module_asgi main:app", "def app(environ, start_response): ...", ["main.py", "WSGI", "module_wsgi"]
    ),
    "lifespan startup raises": Broken(
        "module_asgi main:app\nlifespan on",
        "async def app(scope, receive, send):\n    raise RuntimeError('no database')",
        ["lifespan", "RuntimeError: no database"],
        "RuntimeError: no database",
    ),
    "lifespan startup fails": Broken(
        "module_asgi main:app\nlifespan on",
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})",
        ["lifespan", "no database"],
    ),
    "takes too long": Broken(
        "module_wsgi main:app\nstart_timeout 500ms", "import time\ntime.sleep(1000)", ["start_timeout"]
    ),
}


def broken_site(broken: Broken, folder: Path) -> str:
    """A site with the app, whose main.py is in `folder`."""
    folder.mkdir()
    Path(folder, "main.py").write_text(broken.source)
    return f"python {{\nimport interpreter\n{broken.directive}\nworking_dir {folder}\nworkers 2\n}}"


def reason(server: Server) -> str:
    """What the command says last, in one entry."""
    said = [entry["msg"] for entry in server.log.entries() if entry["msg"].startswith("loading initial config")]
    assert len(said) == 1, said
    return str(said[0])


def tracebacks(server: Server) -> list[Entry]:
    """The entries with a traceback of the app."""
    return [entry for entry in server.log.entries() if entry["msg"] == "python app failed to start"]


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_caddy_run_fails(serve: Servers, broken: Broken, tmp_path: Path) -> None:
    server = serve.new()
    server.write_caddyfile(broken_site(broken, tmp_path / "app"))
    server.launch("run", "--config", str(server.caddyfile))
    assert server.wait_exit() == 1
    assert re.search(".*".join(map(re.escape, broken.message)), reason(server)), reason(server)
    app = broken.directive.split()[1]
    assert len(re.findall(rf"['\"]{re.escape(app)}['\"]", reason(server))) == 1, "the app is named once"
    if broken.traceback:
        [once] = [entry["traceback"] for entry in tracebacks(server) if "traceback" in entry]
        traceback = once.rstrip().splitlines()
        assert traceback[0] == "Traceback (most recent call last):" or "SyntaxError" in broken.traceback
        assert traceback[-1].startswith(broken.traceback)
        assert not any("caddysnake" in line for line in traceback), "only the app's own frames"
    else:
        assert tracebacks(server) == []


def test_reload_fails_and_the_old_app_goes_on(serve: Servers, tmp_path: Path) -> None:
    site = "python {\nmodule_wsgi worker_app:app\nworkers 1\nimport worker\n}"
    server = serve(site)
    pids = server.worker_pids()
    result = server.reload(broken_site(BROKEN["exception at import"], tmp_path / "app"))
    assert result.returncode == 1
    assert "KeyError" in result.stderr
    assert server.get("/process").status_code == 200
    assert server.worker_pids() == pids
