"""Check that the plugin builds in the ways its users build it: without cgo, with xcaddy, and for Windows."""

import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from golang import cgo, go, go_environment
from workspace import IN_CI, ROOT, environment, fail, output, run

PLUGIN = "github.com/mliezun/caddy-snake"
TOOLS = ROOT / "tools" / "go.mod"
MINGW = "x86_64-w64-mingw32-gcc"


def main() -> None:
    """Build Caddy with the plugin in each way that `make build` does not, and look for the plugin in the results."""
    checks = (_build_without_cgo, _build_with_xcaddy, _build_for_windows)
    # At once, as xcaddy mostly waits for modules.
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as together:
        for check in [together.submit(check, Path(scratch)) for check in checks]:
            check.result()


def _build_without_cgo(scratch: Path) -> None:
    if not cgo():
        return  # as `make build` does it
    made = scratch / "caddy-without-cgo"
    run(go(), "build", "-o", made, "./cmd/caddy", env=go_environment() | {"CGO_ENABLED": "0"})
    _expect_plugin(made)
    _expect_no_threads(made, scratch / "Caddyfile")


def _build_with_xcaddy(scratch: Path) -> None:
    made = scratch / "caddy-by-xcaddy"
    xcaddy = (go(), "tool", f"-modfile={TOOLS}", "xcaddy")
    # A replaced module needs some version, or xcaddy asks the module proxy for one.
    plugin = f"{PLUGIN}@v0.0.0={ROOT}"
    run(*xcaddy, "build", _caddy_version(), "--with", plugin, "--output", made, env=go_environment())
    _expect_plugin(made)


def _build_for_windows(scratch: Path) -> None:
    """Compile and link it, and compile its tests; nothing of it can be run here."""
    if shutil.which(MINGW) is None:
        if IN_CI:
            fail(f"CI builds for Windows; not found: {MINGW}")
        print(f"left out, because there is no {MINGW}: the build for Windows")
        return
    env = go_environment(GOOS="windows", GOARCH="amd64", CC=MINGW) | {"CGO_ENABLED": "1"}
    warnings = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only")
    run(MINGW, *warnings, "caddysnake.c")
    run(go(), "build", "-o", scratch / "caddy.exe", "./cmd/caddy", env=env)
    run(go(), "vet", "./...", env=env)


def _caddy_version() -> str:
    match = re.search(r"caddyserver/caddy/v2 (v\S+)", (ROOT / "go.mod").read_text())
    return match[1] if match else fail("go.mod does not name Caddy")


def _expect_plugin(binary: Path) -> None:
    modules = output(binary, "list-modules", "--skip-standard")
    if "http.handlers.python" not in modules.split():
        fail(f"{binary.name} has no http.handlers.python:\n{modules}")


def _expect_no_threads(binary: Path, caddyfile: Path) -> None:
    """Without cgo, an app that is to run in threads is refused with one line that says what to do."""
    caddyfile.write_text(":9080 {\n\tpython {\n\t\tmodule_wsgi main:app\n\t\tworkers_runtime thread\n\t}\n}\n")
    command = [str(binary), "validate", "--config", str(caddyfile)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment())
    last = (result.stderr.splitlines() or [""])[-1]
    if result.returncode == 0 or "thread needs a caddy that is built with cgo" not in last:
        fail(f"{binary.name} does not refuse workers_runtime thread in a line:\n{result.stderr}")


if __name__ == "__main__":
    main()
