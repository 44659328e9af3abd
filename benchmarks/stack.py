"""A contender that runs: its processes, from start to stop, and what they use."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from cases import APPS, Case
from contenders import Contender, Upstream, caddyfile
from request import LOG, Failure, wrong_answer

READY_SECONDS = 30.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.002


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Stack:
    """Caddy and, for some contenders, an app server behind it."""

    case: Case
    contender: Contender
    port: int
    folder: Path
    processes: list[subprocess.Popen[bytes]]
    started: float
    """When the first process was started, on the clock of `time.perf_counter`."""

    def tree(self) -> list[psutil.Process]:
        """Every process on the server side."""
        found: list[psutil.Process] = []
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                found += [root, *root.children(recursive=True)]
        return found

    def cpu_seconds(self) -> float:
        """User and system time of all processes so far, those of children that have gone included.

        It is utime + stime + cutime + cstime of /proc/PID/stat, in ticks of 10 ms for each process.
        """
        total = 0.0
        for process in self.tree():
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory_mib(self) -> float:
        """Proportional set size of all processes: pages that several share count once."""
        total: int = sum(process.memory_full_info().pss for process in self.tree())
        return total / 2**20

    def wait_ready(self) -> float:
        """Wait for the first right answer; return the seconds from start to then."""
        deadline = self.started + READY_SECONDS
        while wrong := wrong_answer(self.case, self.port):
            self.check_alive()
            if time.perf_counter() > deadline:
                raise Failure(f"no right answer within {READY_SECONDS:.0f} s, last: {wrong}{LOG}{self.last_words()}")
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - self.started

    def check_alive(self) -> None:
        """Raise Failure if Caddy or the app server has ended."""
        for process in self.processes:
            if process.poll() is not None:
                raise Failure(f"ended with status {process.returncode}{LOG}{self.last_words()}")

    def wait_quiet(self) -> None:
        """Wait until start-up work is over, so that every worker takes part from the first request on."""
        deadline = time.perf_counter() + READY_SECONDS
        before = self.cpu_seconds()
        while time.perf_counter() < deadline:
            time.sleep(0.2)
            now = self.cpu_seconds()
            if now - before < 0.011:
                return
            before = now
        raise Failure("does not come to rest after its start")

    def last_words(self) -> str:
        """The last lines of the log."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return " | ".join(lines[-3:]) or "the log is empty"

    def stop(self) -> None:
        """End all processes, by force if they do not go."""
        survivors = self.tree()
        for process in self.processes:
            process.terminate()
        _, alive = psutil.wait_procs(survivors, timeout=STOP_SECONDS)
        for survivor in alive:
            survivor.kill()
        for process in self.processes:
            process.wait()


def environment(folder: Path) -> dict[str, str]:
    """The environment for servers: nothing that changes how Python runs, and a place of their own for Caddy's files."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}


@dataclass(frozen=True)
class Setup:
    """What all contenders have in common."""

    caddy: Path
    """The binary."""
    over_tcp: bool
    """Caddy reaches app servers by TCP; otherwise by Unix sockets."""
    idle: int | None
    """How many idle connections Caddy keeps to an app server; None: its default."""


@contextmanager
def running(setup: Setup, contender: Contender, case: Case, workers: int, root: Path) -> Iterator[Stack]:
    """Start a contender, all its processes at once, and stop it at the end.

    `root` holds the static files that a case needs; a folder in it takes this contender's files and log.
    """
    folder = root / contender.name
    folder.mkdir()
    upstream = Upstream(folder / "app.sock", free_port() if setup.over_tcp else 0, setup.idle)
    port = free_port()
    config = folder / "Caddyfile"
    config.write_text(caddyfile(contender.handler(case, workers, upstream), port, root))
    commands = [([str(setup.caddy), "run", "--config", str(config)], folder)]
    if server := contender.server_command(case, workers, upstream):
        commands.append((server, APPS))
    env = environment(folder)
    with (folder / "log").open("wb") as log:
        stack = Stack(case, contender, port, folder, [], time.perf_counter())
        try:
            for command, cwd in commands:
                stack.processes.append(subprocess.Popen(command, cwd=cwd, env=env, stdout=log, stderr=log))
            yield stack
        finally:
            stack.stop()
