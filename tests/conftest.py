"""Fixtures of the end-to-end tests. See support/__init__.py for how to use them."""

import re
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]

from support import not_in_threads, siege
from support.browser import Browser, find
from support.check import Servers
from support.project import Project
from support.server import Server
from support.worker import Worker, workers

# The servers that outlive the test that runs now: those of its module.
_shared: list[Servers] = []

_own: pytest.StashKey[Servers] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --worker-python."""
    parser.addoption(
        "--worker-python",
        action="append",
        metavar="PATH",
        help="run workers on this interpreter, which has tests/requirements.txt installed; may be repeated, from old "
        "to new (default: the one that runs pytest)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that uses a worker with each runtime, on each interpreter that support/siege.py leaves it."""
    if "worker" in metafunc.fixturenames:
        found = metafunc.config.getoption("--worker-python") or [sys.executable]
        pythons = siege.pythons(metafunc.definition.nodeid, found)
        only = metafunc.definition.get_closest_marker("only_thread")
        chosen = [worker for worker in workers(pythons) if worker.runtime == "thread" or not only]
        metafunc.parametrize("worker", chosen, ids=str, scope="session")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Leave tests that share servers in one process: those of a file on the same kind of worker, and no others.

    The groups that pytest-xdist has for this are without effect in pytest 9.2.
    """
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = _together
    return scheduler


def _together(test: str) -> str:
    kind = re.search(r"[-\[](\d+\.\d+-(?:process|thread))[-\]]", test)
    return f"{test.partition('::')[0]} {kind[1] if kind else ''}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not apply to a runtime; support/not_in_threads.py has all of it."""
    threaded = [item for item in items if _runtime(item) == "thread"]
    everything = not config.getoption("keyword") and config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if everything and (unused := not_in_threads.unused(threaded)):
        raise pytest.UsageError(f"support/not_in_threads.py names tests that there are not: {', '.join(unused)}")
    left_out = {item for item in threaded if not_in_threads.reason(item)}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))
    if hasattr(config, "workerinput"):
        # Of several processes none is to be left alone with a long file: one whose tests start servers of their own.
        own = Counter(_together(item.nodeid) for item in items if "serve" in getattr(item, "fixturenames", ()))
        items.sort(key=lambda item: (-own[_together(item.nodeid)], _together(item.nodeid)))


def _runtime(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    worker = callspec.params.get("worker") if callspec else None
    return worker.runtime if isinstance(worker, Worker) else None


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test, check the servers that go on. Being first set up, it comes after the test's own have ended."""
    yield
    for servers in _shared:
        servers.check(_expected_errors(request))


@pytest.fixture
def serve(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker: Worker, nothing_left: None
) -> Iterator[Servers]:
    """Start servers for one test: `server = serve(site)`; see Servers."""
    servers = Servers(lambda env: Server(tmp_path_factory.mktemp("server"), worker, env))
    request.node.stash[_own] = servers
    yield servers
    servers.close(_expected_errors(request))


@pytest.fixture(scope="module")
def serve_shared(tmp_path_factory: pytest.TempPathFactory, worker: Worker) -> Iterator[Servers]:
    """Start servers for all tests of a module: `server = serve_shared(site, warm_up="/")`; see Servers."""
    servers = Servers(lambda env: Server(tmp_path_factory.mktemp("server"), worker, env))
    _shared.append(servers)
    yield servers
    _shared.remove(servers)
    servers.close()


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> str:
    """What `plain` and `secure` serve: the module's SITE."""
    site: str = request.module.SITE
    return site


@pytest.fixture(scope="module")
def plain(request: pytest.FixtureRequest, serve_shared: Servers, site: str) -> Server:
    """A server of the module's SITE, over HTTP/1.1."""
    return serve_shared(site, warm_up=getattr(request.module, "WARM_UP", "/"))


@pytest.fixture(scope="module")
def secure(request: pytest.FixtureRequest, serve_shared: Servers, site: str) -> Server:
    """A server of the module's SITE, over TLS and HTTP/2."""
    return serve_shared(site, tls=True, warm_up=getattr(request.module, "WARM_UP", "/"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An app's folder, which the test may change."""
    return Project(tmp_path / "site")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    program = find()
    if program is None:
        pytest.skip("there is no Chromium here; on Debian: apt-get install chromium")
    with Browser(program) as browser:
        yield browser


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of each live server's log with a test that failed."""
    report = yield
    if report.failed:
        own = [item.stash[_own]] if _own in item.stash else []
        for server in (server for servers in own + _shared for server in servers.servers):
            report.sections.append((f"log of {server.url}", server.log.tail()))
    return report


def _expected_errors(request: pytest.FixtureRequest) -> list[str]:
    return [part for marker in request.node.iter_markers("expect_errors") for part in marker.args]
