"""Threats 22 and 23: a host name that leads to a folder which is not its own, and a flood of host names."""

import random
import shutil
import threading
from pathlib import Path

import pytest

from support.check import Servers
from support.polling import wait_until
from support.raw import Closed, Connection
from support.siege import share
from support.tenants import DOMAIN, Tenants, answered, get, handshake, serve_tls, started

HOSTILE = [
    *(
        "..",
        ".",
        "../outside",
        "..%2foutside",
        "%2e%2e",
        "outside",
        "up",
        "root",
        "self",
        "loop",
        "file",
        ".hidden",
        "_hidden",
    ),
    *(
        "-alice",
        "alice.",
        "alice..",
        "alice%00",
        "alice\\",
        "al ice",
        "~root",
        "$HOME",
        "{env.HOME}",
        "*",
        "",
        "x" * 64,
    ),
    *("\xe9", "a\xff", "main", "tenants"),
]


@pytest.fixture
def tenants(tmp_path: Path) -> Tenants:
    """Alice and Bob, a folder beside theirs that is nobody's, and symlinks to it and to others."""
    made = Tenants(tmp_path / "tenants", ["alice", "bob", ".hidden", "_hidden"])
    outside = tmp_path / "outside"
    shutil.copytree(made.root / "alice", outside)
    main = outside / "main.py"
    main.write_text(main.read_text().replace("Path.cwd()", 'Path("outside")'))
    (made.root / "file").touch()
    for name, target in {"up": "../outside", "out": str(outside), "root": "/", "self": ".", "loop": "loop"}.items():
        (made.root / name).symlink_to(target)
    return made


def test_threat_22_no_host_leads_to_another_folder(serve: Servers, tenants: Tenants) -> None:
    server = serve(tenants.site())
    answered(server, "alice")
    choose = random.Random(22)
    with Connection(server) as connection:
        for _ in range(share(100_000) // 10):
            pieces = [choose.choice([*HOSTILE, "alice", "out"]) for _ in range(choose.randint(1, 2))]
            host = "".join(pieces).encode("latin-1") + b"." + DOMAIN.encode()
            connection.send(b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n")
            try:
                response = connection.response()
            except Closed:
                response = None
            if response is None or response.status == 400:  # it is no host name: Caddy closes
                connection.close()
                connection.__init__(server)  # type: ignore[misc]
                continue
            assert response.status in (200, 404), (host, response)
            if response.status == 200:
                assert response.body.split()[0] == b"alice", host
                assert host.split(b".")[-3].lower() == b"alice"
    assert set(started(server)) == {"alice"}


@pytest.mark.expect_errors("the app could not start", "dynamic app could not start", "python app failed to start")
def test_threat_22_a_symlink_that_is_swapped_in_leads_nowhere(serve: Servers, tenants: Tenants) -> None:
    """Somebody exchanges tenants' folders for a symlink to another place, and back, while their apps start."""
    names = [f"t{number}" for number in range(share(100))]
    server = serve(tenants.site("max_dynamic_apps 4"))
    statuses = []
    for number, name in enumerate(names):
        folder = tenants.add(name)
        stop = threading.Event()

        swapper = threading.Thread(target=swap, args=(folder, tenants.root, stop, random.Random(number)))
        swapper.start()
        try:
            response = get(server, name)
        finally:
            stop.set()
            swapper.join()
        statuses.append(response.status_code)
        if response.status_code == 200:
            assert response.text.split()[0] in (name, "away"), "its folder, by the name that it had"
    assert set(statuses) <= {200, 404, 503}
    assert statuses.count(200) < len(statuses), "some were found out"
    wait_until(lambda: get(server, names[-1]).status_code == 200, "the app, now that its folder stays", 40)


def swap(folder: Path, root: Path, stop: threading.Event, choose: random.Random) -> None:
    """Exchange a folder for the symlink to outside, and back, at random moments."""
    away, link = root / "away", root / "out"
    while not stop.is_set():
        stop.wait(choose.random() / 20)
        folder.rename(away)
        link.rename(folder)
        stop.wait(choose.random() / 20)
        folder.rename(link)
        away.rename(folder)


def test_threat_23_a_flood_of_hosts_starts_nothing(serve: Servers, tenants: Tenants) -> None:
    server = serve(tenants.site("max_dynamic_apps 1"))
    pid = answered(server, "alice")
    with server.new_client() as client:
        for number in range(share(10_000)):
            assert get(server, f"t{number}", client=client).status_code == 404
            if number == share(10_000) // 2:  # Caddy collects no garbage before there is some
                before = server.caddy.memory_info().rss
    assert started(server) == ["alice"], "and she was not driven out"
    assert answered(server, "alice") == pid
    assert server.caddy.memory_info().rss - before < 16 << 20


def test_threat_23_a_flood_of_hosts_gets_no_certificate(serve: Servers, tenants: Tenants) -> None:
    server = serve_tls(serve, tenants)
    wait_until(lambda: handshake(server, f"alice.{DOMAIN}"), "certificate", 30)
    for number in range(share(10_000)):
        assert not handshake(server, f"t{number}.{DOMAIN}")
    for name in ("out", "up", "self", "file", "a.alice", "_hidden"):
        assert not handshake(server, f"{name}.{DOMAIN}")
    assert not handshake(server, "alice.other.test")
    assert [folder.name for folder in server.certificates.iterdir()] == [f"alice.{DOMAIN}"]
