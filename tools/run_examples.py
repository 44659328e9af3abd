"""Serve the examples on http://localhost:9080."""

import os
import shutil
from pathlib import Path

import venvs
from workspace import BINARY, CACHE, ROOT, environment, run

EXAMPLES = ROOT / "examples"
DATA = CACHE / "examples"

WELCOME = """
    http://localhost:9080               a guest book in Flask, with links to the others
    http://localhost:9080/api/docs      FastAPI's interactive documentation
    http://localhost:9080/django/admin/ Django's admin; user demo, password demo

Ctrl-C ends it. The configuration is examples/Caddyfile.
"""


def main() -> None:
    """Install the frameworks, prepare Django's database on the first run, and become Caddy."""
    venv = venvs.ensure("examples", EXAMPLES / "requirements.txt")
    env = environment(VENV=str(venv), DATA=str(DATA))
    if not (DATA / "ready").exists():
        shutil.rmtree(DATA, ignore_errors=True)
        prepare_django(venv / "bin" / "python", env | {"DJANGO_SUPERUSER_PASSWORD": "demo"})
        (DATA / "ready").touch()
    print(WELCOME, flush=True)
    os.chdir(EXAMPLES)
    os.execve(BINARY, ["caddy", "run"], env)


def prepare_django(python: Path, env: dict[str, str]) -> None:
    """Make the database, some books and the demo user, and collect the static files."""
    for command in (
        "migrate --verbosity 0",
        "loaddata --verbosity 0 books",
        "createsuperuser --no-input --username demo --email demo@example.com",
        "collectstatic --no-input --verbosity 0",
    ):
        run(python, "manage.py", *command.split(), cwd=EXAMPLES / "django", env=env)


if __name__ == "__main__":
    main()
