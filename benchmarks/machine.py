"""Where and with what a run was made."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

PACKAGES = ("fastapi", "flask", "granian", "gunicorn", "httptools", "uvicorn", "uvloop", "websockets")


def describe_machine() -> dict[str, str]:
    """CPU, memory and kernel."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "CPU": names[0] if names else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def describe_versions(caddy: Path, wrk: str) -> dict[str, str]:
    """Versions of everything that takes part, and the commit of this tree, which tools/bench.py tells."""
    # wrk prints its version and then exits with status 1, for want of a URL.
    version = subprocess.run([wrk, "--version"], capture_output=True, text=True, check=False).stdout.split(" ", 2)
    found = {
        "Caddy Snake": os.environ.get("CADDYSNAKE_COMMIT") or "unknown",
        "Caddy": _output([str(caddy), "version"]).split()[0],
        "Python": platform.python_version(),
        "wrk": version[1] if len(version) > 1 else "unknown",
    }
    return found | {package: importlib.metadata.version(package) for package in PACKAGES}


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
