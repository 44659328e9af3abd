"""The check after each test: nothing may be left behind."""

import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from support.log import Entry
from support.polling import wait_until
from support.server import Server

# What wsgiref.validate says when it cannot raise; it says it on the app's standard error.
_VALIDATOR = ("WSGIWarning", "garbage collected without being closed")


class Watch:
    """Compares one server after each test with what it was like when it was ready."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._position = 0
        self._descriptors: dict[psutil.Process, set[str]] = {}
        self._files: set[Path] = set()

    def ready(self) -> None:
        """Remember what the server has now, before the first test that uses it."""
        self._descriptors = {process: _open_in(process) for process in self.server.caddy_and_workers()}
        self._files = set(self.server.tmp.iterdir())

    def after_test(self, expected_errors: Sequence[str]) -> list[str]:
        """What a test left at a server that goes on for further tests."""
        self.server.close_client()
        return [
            *self._unexpected_entries(expected_errors),
            *_persisting(self._changed_descriptors),
            *_persisting(lambda: [f"file {file}" for file in set(self.server.tmp.iterdir()) - self._files]),
        ]

    def after_stop(self, expected_errors: Sequence[str]) -> list[str]:
        """What a server left that has ended."""
        return [
            *self._unexpected_entries(expected_errors),
            *_persisting(lambda: [f"process {process}" for process in self.server.processes()]),
            *(f"file {file}" for file in self.server.tmp.iterdir()),
        ]

    def _unexpected_entries(self, expected: Sequence[str]) -> list[str]:
        problems = []
        for entry, end in self.server.log.read(self._position):
            self._position = end
            if _is_problem(entry) and not any(part in str(entry) for part in expected):
                problems.append(f"log entry {entry}")
        return problems

    def _changed_descriptors(self) -> list[str]:
        processes = self.server.caddy_and_workers()
        if processes != self._descriptors.keys():
            return [f"processes {_pids(processes)} instead of {_pids(self._descriptors)}"]
        problems = []
        for process, before in self._descriptors.items():
            # To count them is cheap; which ones they are matters only if there are more.
            if process.num_fds() > len(before) and len(now := _open_in(process)) > len(before):
                extra = f"in {process.pid}: {sorted(now - before)}"
                problems.append(f"{len(now)} descriptors instead of {len(before)} {extra}")
        return problems


class Servers:
    """Starts servers for one test or one module, checks them and ends them.

    Args:
        new_server: makes a server that is not started; gets the `env` of `start`.
    """

    def __init__(self, new_server: Callable[[dict[str, str]], Server]) -> None:
        self._new_server = new_server
        self._watches: list[Watch] = []

    @property
    def servers(self) -> list[Server]:
        """The servers made so far."""
        return [watch.server for watch in self._watches]

    def new(self, **env: str) -> Server:
        """A server that the test starts itself, with further environment variables."""
        server = self._new_server(env)
        self._watches.append(Watch(server))
        return server

    def __call__(
        self,
        site: str,
        options: str = "",
        *,
        tls: bool = False,
        client_auth: str = "",
        warm_up: str | None = None,
        **env: str,
    ) -> Server:
        """A server that is ready.

        Args:
            site: the inside of its site block; see Server.start.
            options: further global options.
            tls: serve the site over TLS and HTTP/2.
            client_auth: the inside of the tls directive's client_auth.
            warm_up: a path to get before the first test, so that what an app opens once for ever is open; servers
                that tests share need one.
            env: further environment variables of Caddy.
        """
        server = self.new(**env)
        server.start(site, options, tls=tls, client_auth=client_auth)
        if warm_up is not None:
            self.warm_up(server, warm_up)
        return server

    def warm_up(self, server: Server, *paths: str) -> None:
        """Get these paths, then take what the server has as what it may have; for a server that tests share."""
        for path in paths:
            assert server.get(path).status_code < 500, server.log.path.read_text()
        server.close_client()
        [watch] = [watch for watch in self._watches if watch.server is server]
        watch.ready()

    def check(self, expected_errors: Sequence[str]) -> None:
        """Fail if a test left something at these servers, which go on."""
        _fail_on([problem for watch in self._watches for problem in watch.after_test(expected_errors)])

    def close(self, expected_errors: Sequence[str] = ()) -> None:
        """End all of these servers; fail if one does not end well or leaves something."""
        problems = []
        while self._watches:
            watch = self._watches.pop()
            server = watch.server
            problems += _end(server)
            problems += watch.after_stop(expected_errors)
            server.close()
        _fail_on(problems)


def _end(server: Server) -> list[str]:
    server.close_client()
    if server.process is None or server.process.returncode is not None:
        return []  # the test itself has seen the end
    try:
        status = server.stop()
    except subprocess.TimeoutExpired:
        server.process.kill()
        status = server.process.wait()
    return [f"caddy ended with status {status}"] if status != 0 else []


def _fail_on(problems: list[str]) -> None:
    assert not problems, "left behind:\n" + "\n".join(problems)


def _is_problem(entry: Entry) -> bool:
    if entry["level"] in ("debug", "info", "warn"):
        return any(sign in str(entry.get("line")) for sign in _VALIDATOR)
    return True


def _pids(processes: Iterable[psutil.Process]) -> list[int]:
    return sorted(process.pid for process in processes)


def _open_in(process: psutil.Process) -> set[str]:
    """What a process has open: each descriptor's number and, where the system says that, what it is."""
    folder = Path(f"/proc/{process.pid}/fd")
    if not folder.exists():
        return {str(number) for number in range(process.num_fds())}
    found = set()
    for link in folder.iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            target = str(link.readlink())
            # Python 3.15 keeps a module open that a framework has it read the source of, until it collects its garbage.
            if not ("/site-packages/" in target and target.endswith(".py")):
                found.add(f"{link.name} {target}")
    return found


def _persisting(problems: Callable[[], list[str]]) -> list[str]:
    """What `problems` still names after a while: closing and exiting take their time."""
    with suppress(AssertionError, psutil.Error):
        wait_until(lambda: not problems(), "end of it")
        return []
    return problems()
