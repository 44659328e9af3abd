"""What an app finds in its interpreter, in a thread of Caddy's as in a process: its output, signals, text encoding."""

import os
import signal
import subprocess
import sys

import pytest

from support.check import Servers
from support.project import Project, version
from support.server import Server
from support.worker import Worker

# What apps do to standard output, as the first thing.
RECIPES = {
    "reopened": "import sys\nsys.stdout = open(sys.stdout.fileno(), 'w', encoding='utf-8', buffering=1)\n",
    "reconfigured": "import sys\nsys.stdout.reconfigure(line_buffering=True)\n",
    "wrapped": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'utf-8', line_buffering=True)\n",
    "encoded": "import codecs, sys\nsys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer)\n",
}
CHATTY = """
import threading
VERSION = {version!r}
print("imported", VERSION, flush=True)
threading.Thread(target=print, args=("thread of", VERSION), kwargs={{"flush": True}}).start()
"""


def python_reload(server: Server) -> None:
    """Have the app imported anew."""
    result = server.command("python-reload", "--config", str(server.caddyfile))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_standard_output_is_what_the_app_makes_of_it(serve: Servers, project: Project, recipe: str) -> None:
    server = serve(project.site(workers=1))
    for number in "23456":
        project.module.write_text(recipe + CHATTY.format(version=number))
        python_reload(server)
        for _ in range(4):
            with server.new_client() as client:  # on descriptors that have just become free
                assert client.get("/").json()["version"] == number
        server.log.wait_for(lambda entry, number=number: entry.get("line") == f"imported {number}")  # type: ignore[misc]
        server.log.wait_for(lambda entry, number=number: entry.get("line") == f"thread of {number}")  # type: ignore[misc]
    assert server.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="where the system tells of signals that are blocked")
def test_what_the_app_starts_gets_signals_as_usual(serve: Servers, project: Project) -> None:
    project.module.write_text(
        "import subprocess\n"
        "VERSION = subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout\n"
    )
    status = dict(line.split(":", 1) for line in version(serve(project.site(workers=1))).splitlines())
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) >> signal.SIGPIPE - 1 & 1 == 0


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX"},
        {"LC_ALL": "", "LANG": "C"},
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"},
        {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "0"},
    ],
    ids=str,
)
def test_text_is_encoded_as_python_does_by_itself(
    serve: Servers, project: Project, worker: Worker, variables: dict[str, str]
) -> None:
    alone = [str(worker.python), "-c", "import sys; print(sys.flags.utf8_mode)"]
    utf8_mode = int(subprocess.check_output(alone, env={**os.environ, **variables}))
    (project.folder / "ü.txt").write_text("ü", encoding="utf-8")
    project.module.write_text(
        "import os, sys\n"
        "folder = os.path.dirname(__file__)\n"
        "[name] = [name for name in os.listdir(folder) if name.endswith('.txt')]\n"
        "text = open(os.path.join(folder, name)).read() if sys.flags.utf8_mode else ''\n"
        "VERSION = [sys.flags.utf8_mode, text]\n"
    )
    server = serve.new(**variables)
    server.start(project.site(workers=1))
    assert server.get("/").json()["version"] == [utf8_mode, "ü" if utf8_mode else ""]


def test_what_startup_files_print_is_no_obstacle(serve: Servers, project: Project) -> None:
    (project.folder / "sitecustomize.py").write_text("print('hello from a startup file')\n")
    server = serve(project.site(workers=1), PYTHONPATH=str(project.folder))
    assert version(server) == "1"
