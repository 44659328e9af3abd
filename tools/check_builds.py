"""Check that the plugin builds in the ways its users build it: without cgo, and with xcaddy."""

import re
import tempfile
from pathlib import Path

from golang import cgo, go, go_environment
from workspace import ROOT, fail, output, run

PLUGIN = "github.com/mliezun/caddy-snake"
TOOLS = ROOT / "tools" / "go.mod"


def main() -> None:
    """Build Caddy with the plugin in each way that `make build` does not, and look for the plugin in the results."""
    with tempfile.TemporaryDirectory() as scratch:
        if cgo():
            plain = Path(scratch, "caddy-without-cgo")
            run(go(), "build", "-o", plain, "./cmd/caddy", env=go_environment() | {"CGO_ENABLED": "0"})
            _expect_plugin(plain)
        made = Path(scratch, "caddy-by-xcaddy")
        xcaddy = (go(), "tool", f"-modfile={TOOLS}", "xcaddy")
        # A replaced module needs some version, or xcaddy asks the module proxy for one.
        plugin = f"{PLUGIN}@v0.0.0={ROOT}"
        run(*xcaddy, "build", _caddy_version(), "--with", plugin, "--output", made, env=go_environment())
        _expect_plugin(made)


def _caddy_version() -> str:
    match = re.search(r"caddyserver/caddy/v2 (v\S+)", (ROOT / "go.mod").read_text())
    return match[1] if match else fail("go.mod does not name Caddy")


def _expect_plugin(binary: Path) -> None:
    modules = output(binary, "list-modules", "--skip-standard")
    if "http.handlers.python" not in modules.split():
        fail(f"{binary.name} has no http.handlers.python:\n{modules}")


if __name__ == "__main__":
    main()
