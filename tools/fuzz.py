"""Run every Go fuzz target on some new inputs, and insist that each has really run.

Those of the module's own package are left out but for `make siege` (CADDYSNAKE_SIEGE=1), as all of Caddy has to be
compiled for them. `go test` tries their seeds.
"""

import argparse
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from golang import go, go_environment
from workspace import ROOT, fail, output

# Of one target: 1 to 20 s on two cores. Not a time, because at its end Go may take its own deadline for a failure of
# the target (golang/go#75804).
INPUTS = 60_000
# What links all of Caddy resets the coverage counters of all of it each time.
SLOWER = 20


def main() -> None:
    """Run the fuzz targets one after another; the first that fails, or runs on fewer inputs, fails the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="for each target (default: %(default)s)")
    arguments = parser.parse_args()
    targets = list(_targets())
    if not targets:
        fail("no fuzz target found")
    for package, target in targets:
        inputs = arguments.inputs // (SLOWER if _links_caddy(package) else 1)
        executed = _fuzz(package, target, inputs)
        if executed < inputs:
            fail(f"{target} in {package} ran on {executed} inputs; {inputs} were expected")
        print(f"ok\t{package}\t{target}\t{executed} inputs", flush=True)


def _targets() -> Iterator[tuple[str, str]]:
    """(package, target) of every fuzz target that is to run."""
    template = "{{range .TestGoFiles}}{{$.ImportPath}} {{$.Dir}}/{{.}}\n{{end}}"
    for line in output(go(), "list", "-f", template, "./...", env=go_environment()).splitlines():
        if line:
            package, test_file = line.split(maxsplit=1)
            if _links_caddy(package) and os.environ.get("CADDYSNAKE_SIEGE") != "1":
                continue
            for target in re.findall(r"^func (Fuzz\w*)\(", Path(test_file).read_text(), re.MULTILINE):
                yield package, target


def _links_caddy(package: str) -> bool:
    return "/internal/" not in package


def _fuzz(package: str, target: str, inputs: int) -> int:
    """How many inputs the target ran on."""
    command = [str(go()), "test", "-run=^$", f"-fuzz=^{target}$", f"-fuzztime={inputs}x", package]
    result = subprocess.run(
        command, cwd=ROOT, env=go_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode != 0:
        print(result.stdout)
        fail(f"{target} in {package} failed")
    return max((int(count) for count in re.findall(r"execs: (\d+)", result.stdout)), default=0)


if __name__ == "__main__":
    main()
