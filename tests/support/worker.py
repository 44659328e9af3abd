"""What the suite is run with: the interpreter and the runtime of the workers."""

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

APPS = Path(__file__).resolve().parent.parent / "apps"

# How workers may run; every end-to-end test runs with each.
RUNTIMES = ("process", "thread")


@dataclass(frozen=True)
class Worker:
    """One way to run workers.

    Attributes:
        python: the interpreter, in a virtual environment with everything of tests/requirements.txt.
        version: its version, as in "3.13", or "3.13t" if it is free-threaded.
        runtime: the value of `workers_runtime`.
    """

    python: Path
    version: str
    runtime: str

    def __str__(self) -> str:
        return f"{self.version}-{self.runtime}"

    @property
    def venv(self) -> Path:
        """The virtual environment of the interpreter."""
        return self.python.parent.parent

    @property
    def free_threaded(self) -> bool:
        """Whether the interpreter has no global lock."""
        return self.version.endswith("t")

    def count(self, workers: int) -> int:
        """How many workers `workers` of the configuration become: an interpreter with a global lock has one."""
        return 1 if self.runtime == "thread" and not self.free_threaded else workers

    def caddyfile(self) -> str:
        """The snippets that `import interpreter`, `import worker` and `import process` stand for."""
        return (
            f"(interpreter) {{\npython_path {self.python}\nworkers_runtime {self.runtime}\n}}\n"
            f"(worker) {{\nimport interpreter\nworking_dir {APPS}\n}}\n"
            f"(process) {{\npython_path {self.python}\nworking_dir {APPS}\n}}\n"
        )


def workers(pythons: list[str]) -> list[Worker]:
    """Every way to run workers on these interpreters."""
    return [Worker(Path(python), _version(python), runtime) for python in pythons for runtime in RUNTIMES]


@cache  # it is asked for with each test that is collected
def _version(python: str) -> str:
    free_threaded = "'t' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''"
    program = f"import sys, sysconfig; print('%d.%d' % sys.version_info[:2] + ({free_threaded}))"
    return subprocess.check_output([python, "-c", program], text=True).strip()
