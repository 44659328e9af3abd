"""The environment that a worker gets, as its app sees it, and what becomes of its output."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.check import Servers
from support.polling import wait_until
from support.server import Server
from support.worker import APPS, Worker


def site(*settings: str) -> str:
    """A site with worker_app and these settings."""
    lines = "\n".join(settings)
    return f"python {{\nmodule_wsgi worker_app:app\nworkers 1\n{lines}\n}}"


def process(server: Server) -> dict[str, Any]:
    """What the app says about its process."""
    answer: dict[str, Any] = server.get("/process").json()
    return answer


def variable(server: Server, name: str) -> str:
    """The app's environment variable."""
    return server.get("/env", params={"name": name}).text


def test_simple_form(serve: Servers, worker: Worker) -> None:
    server = serve.new(PATH=f"{worker.venv / 'bin'}:/usr/bin:/bin", PYTHONPATH=str(APPS))
    (server.folder / "main.py").write_text("from worker_app import app\n")
    server.start("python main:app")
    seen = process(server)
    assert seen["prefix"] == str(worker.venv), "python3 is the one on PATH"
    assert seen["path"] == seen["cwd"] == str(server.folder), "the app is imported from Caddy's current directory"


def test_one_worker_for_each_processor_by_default(serve: Servers) -> None:
    server = serve("python {\nmodule_wsgi worker_app:app\nimport worker\n}", GOMAXPROCS="3")
    assert len(server.workers()) == 3


def test_working_dir(serve: Servers) -> None:
    seen = process(serve(site("import worker")))
    assert seen["path"] == seen["cwd"] == str(APPS)


def test_venv(serve: Servers, worker: Worker, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([worker.python, "-m", "venv", "--without-pip", venv], check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "shop.py").write_text("from worker_app import app\n")
    settings = f"venv {venv}\nworking_dir {APPS}\nworkers 1\nworkers_runtime {worker.runtime}"
    server = serve(f"python {{\nmodule_wsgi shop:app\n{settings}\n}}")
    seen = process(server)
    assert seen["prefix"] == str(venv)
    assert seen["version"] == worker.version


def test_python_path_wins_over_venv(serve: Servers, worker: Worker, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([worker.python, "-m", "venv", "--without-pip", venv], check=True)
    server = serve(site(f"venv {venv}", "import worker"))
    assert process(server)["executable"] == str(worker.python)


def test_env_var_wins_over_env_file_and_env_file_over_caddys_own(serve: Servers, tmp_path: Path) -> None:
    file = tmp_path / "app.env"
    file.write_text("# the shop's settings\nexport FILE='from the file'\nBOTH=file\nALL=file\n")
    settings = ("import worker", f"env_file {file}", "env_var BOTH var", 'env_var ALL "va r"')
    server = serve(site(*settings), ALL="caddy", CADDY_ONLY="from caddy")
    expected = {"FILE": "from the file", "BOTH": "var", "ALL": "va r", "CADDY_ONLY": "from caddy"}
    assert {name: variable(server, name) for name in expected} == expected


def test_env_file_in_working_dir(serve: Servers, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('GREETING="hello\\nworld"\n')
    (tmp_path / "main.py").write_text("from worker_app import app\n")
    settings = ("import interpreter", f"working_dir {tmp_path}", "env_file .env", f"env_var PYTHONPATH {APPS}")
    assert variable(serve(site(*settings).replace("worker_app", "main")), "GREETING") == "hello\nworld"


@pytest.mark.expect_errors("app.env")
def test_env_file_outside_working_dir_is_refused(serve: Servers, tmp_path: Path) -> None:
    (tmp_path / "app.env").write_text("SECRET=1\n")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "app.env").symlink_to("../app.env")
    for file in ("../app.env", "app.env"):
        server = serve.new()
        server.write_caddyfile(site("import interpreter", f"working_dir {inside}", f"env_file {file}"))
        result = server.command("validate", "--config", str(server.caddyfile))
        assert result.returncode == 1
        assert "must lie within working_dir" in result.stderr


def test_changed_env_file_takes_effect_on_reload(serve: Servers, tmp_path: Path) -> None:
    file = tmp_path / "app.env"
    file.write_text("VERSION=1\n")
    settings = site("import worker", f"env_file {file}")
    server = serve(settings)
    assert variable(server, "VERSION") == "1"
    file.write_text("VERSION=2\n")
    assert server.reload("header X-Reloaded yes\n" + settings).returncode == 0
    wait_until(lambda: variable(server, "VERSION") == "2", "worker with the new variable")


def test_output_becomes_log_entries(serve: Servers) -> None:
    server = serve(site("import worker"))
    pid = process(server)["pid"]
    assert server.get("/output").text == "written"
    wanted = [
        ("stdout", "to standard output"),
        ("stderr", "to standard error"),
        ("stdout", "ünïcode and a tab\t"),
        ("stderr", "from logging"),  # Python's own default format: logging is not configured behind the app's back
    ]
    server.log.wait_for(lambda entry: entry.get("line") == "from logging")
    for stream, line in wanted:
        [entry] = [entry for entry in server.log.entries() if entry.get("line") == line]
        assert entry["msg"] == "worker output"
        assert (entry["stream"], entry["worker"], entry["pid"]) == (stream, 1, pid)
        assert (entry["logger"], entry["app"], entry["level"]) == ("python", "worker_app:app", "info")
