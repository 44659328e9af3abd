"""An app's folder that a test may change: a copy of apps/version_app.py, and the modules that it imports."""

import shutil
from pathlib import Path

from support.server import Server
from support.worker import APPS

# What the log may say of an app that does not run, whose module raises a RuntimeError, with autoreload.
DOES_NOT_RUN = ("python app failed to start", "python app not reloaded", "python app does not run", "RuntimeError")


class Project:
    """The folder of an app that says which version of it runs.

    Args:
        folder: where; it is made.
        version: the version to begin with.
    """

    def __init__(self, folder: Path, version: str = "1") -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        shutil.copy(APPS / "version_app.py", folder)
        self.write(version)

    @property
    def module(self) -> Path:
        """The file that holds the version."""
        return self.folder / "version.py"

    def write(self, version: str) -> None:
        """Save another version, in place."""
        self.module.write_text(f"VERSION = {version!r}\n")

    def site(self, *settings: str, app: str = "module_asgi version_app:app", workers: int = 2) -> str:
        """The site that serves it."""
        lines = "\n".join(settings)
        return f"python {{\n{app}\nworkers {workers}\nimport interpreter\nworking_dir {self.folder}\n{lines}\n}}"


def version(server: Server) -> str:
    """The version that answers."""
    answer: str = server.get("/").json()["version"]
    return answer


def instances(server: Server, requests: int = 20) -> set[str]:
    """The imports of the app that answer."""
    return {server.get("/").json()["instance"] for _ in range(requests)}
