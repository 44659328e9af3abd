"""Run the cases of Autobahn's fuzzing client against bin/caddy, with an ASGI and an ESGI app that echo.

`make test` runs a slice of them, `make siege` (CADDYSNAKE_SIEGE=1) all. Arguments name others:
`python3 tools/test_autobahn.py "9.2.*"`.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pythons
import venvs
from workspace import BINARY, CACHE, ROOT, environment, fail, has_c_compiler

TOOLS = ROOT / "tools"
APPS = ROOT / "tests" / "apps"
REPORTS = CACHE / "autobahn"
INTERFACES = ("asgi", "esgi")

# Patterns of cases, and how many there are, so that none can be missing unnoticed. Not there: 9.3 to 9.9, which measure
# other sizes of the same messages.
WHOLE = {
    "1.*": 16,
    "2.*": 11,
    "3.*": 7,
    "4.*": 10,
    "5.*": 20,
    "6.*": 145,
    "7.*": 37,
    "9.1.*": 6,
    "9.2.*": 6,
    "10.*": 1,
    "12.*": 90,
    "13.*": 126,
}
SLICE = {
    "1.*": 16,
    "2.*": 11,
    "3.*": 7,
    "4.*": 10,
    "5.*": 20,
    "6.2.*": 4,
    "7.*": 37,
    "9.1.1": 1,
    "9.2.1": 1,
    "10.*": 1,
    **dict.fromkeys(("12.1.1", "12.5.3", *(f"13.{kind}.1" for kind in range(1, 8))), 1),
}

# NON-STRICT goes against a SHOULD, or against what is usual where the RFC leaves it open: Autobahn's reports call that
# conformant. Here it is that a client which violates the protocol is cut off before its last echo.
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
CLOSED = ("OK", "INFORMATIONAL")

# Either app is at /INTERFACE/echo; compression is on for the cases of sections 12 and 13, and harmless to the others.
CADDYFILE = """{{
    admin off
    persist_config off
    auto_https off
}}
(echo) {{
    workers 1
    python_path {python}
    working_dir {apps}
    websocket {{
        compression on
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    python /asgi/* {{
        module_asgi conformance_websocket:app
        import echo
    }}
    python /esgi/* {{
        module_esgi conformance_esgi_websocket:app
        import echo
    }}
}}
"""

Case = dict[str, Any]


def main() -> None:
    """Run the cases on both interfaces; fail with a list of those that were not passed."""
    if not BINARY.exists():
        fail("there is no bin/caddy; run `make build` first")
    wstest = _wstest()
    if wstest is None:
        print("left out, because Python 2.7 or a C compiler was not found: Autobahn's fuzzing client")
        return
    usual = WHOLE if os.environ.get("CADDYSNAKE_SIEGE") == "1" else SLICE
    wanted: Mapping[str, int | None] = dict.fromkeys(sys.argv[1:]) or usual
    REPORTS.mkdir(parents=True, exist_ok=True)
    with socket.socket() as port, tempfile.TemporaryDirectory() as folder:
        # Caddy listens beside this socket, which keeps the port from everybody else: both set SO_REUSEPORT.
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port.bind(("127.0.0.1", 0))
        number = port.getsockname()[1]
        with _caddy(number, Path(folder)):
            results = _run(wstest, list(wanted), number, Path(folder))
    problems = [problem for name in INTERFACES for problem in _check(name, results.get(name, {}), wanted)]
    if problems:
        fail("\n".join([*problems, f"the reports are in {REPORTS}"]))


def _wstest() -> Path | None:
    """Autobahn's command, installed; None without Python 2.7, the only one that it runs on, or a C compiler."""
    python = pythons.search("2.7")
    if python is None or not has_c_compiler():
        return None
    virtualenv = venvs.ensure("virtualenv", TOOLS / "requirements-virtualenv.txt") / "bin/virtualenv"
    venv = venvs.ensure("autobahn", TOOLS / "requirements-autobahn.txt", python.path, virtualenv=virtualenv)
    return venv / "bin/wstest"


@contextmanager
def _caddy(port: int, folder: Path) -> Iterator[None]:
    """Caddy with the two apps, on this port."""
    caddyfile = folder / "Caddyfile"
    python = pythons.test_venv(pythons.find()[-1]) / "bin/python"
    caddyfile.write_text(CADDYFILE.format(python=python, apps=APPS, port=port))
    log = REPORTS / "caddy.log"
    with open(log, "wb") as output:
        caddy = subprocess.Popen(
            [BINARY, "run", "--config", caddyfile],
            env=environment(PYTHONDONTWRITEBYTECODE="1"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_accepting(port, caddy, log)
        yield
    finally:
        caddy.terminate()
        status = caddy.wait(60)
    if status != 0:
        fail(f"caddy exited with status {status}; its log is {log}")


def _wait_accepting(port: int, caddy: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and caddy.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    fail(f"caddy did not start; its log:\n{log.read_text()}")


def _run(wstest: Path, patterns: list[str], port: int, folder: Path) -> dict[str, dict[str, Case]]:
    """Run the cases that match the patterns; each interface's results by the case's number."""
    index, log, spec = REPORTS / "index.json", REPORTS / "wstest.log", folder / "spec.json"
    index.unlink(missing_ok=True)
    servers = [{"agent": name, "url": f"ws://127.0.0.1:{port}/{name}/echo"} for name in INTERFACES]
    spec.write_text(json.dumps({"outdir": str(REPORTS), "servers": servers, "cases": patterns, "exclude-cases": []}))
    with open(log, "wb") as output:
        command = [str(wstest), "--mode=fuzzingclient", f"--spec={spec}"]
        status = subprocess.run(command, cwd=folder, env=environment(), stdout=output, stderr=output).returncode
    if status != 0 or not index.exists():
        fail(f"wstest exited with status {status}; its output is in {log}")
    results: dict[str, dict[str, Case]] = json.loads(index.read_text())
    return results


def _check(name: str, results: dict[str, Case], wanted: Mapping[str, int | None]) -> list[str]:
    """Say what ran on an interface, and return what is wrong with it."""
    sections = Counter(f"section {number.partition('.')[0]}" for number in results)
    verdicts = Counter(case["behavior"] for case in results.values())
    print(f"{name}: {len(results)} cases ({_listed(sections)}): {_listed(verdicts)}", flush=True)
    missing = []
    for pattern, expected in wanted.items():
        ran = sum(fnmatchcase(number, pattern) for number in results)
        if ran == 0 or expected not in (ran, None):
            missing.append(f"{name}: {ran} cases of {pattern} ran, not {expected or 'any'}")
    failed = [
        f"{name}: case {number}: {case['behavior']}, closing: {case['behaviorClose']} (see {case['reportfile']})"
        for number, case in results.items()
        if case["behavior"] not in PASSED or case["behaviorClose"] not in CLOSED
    ]
    return missing + failed


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in counts.items())


if __name__ == "__main__":
    main()
