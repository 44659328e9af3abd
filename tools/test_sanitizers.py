"""Run the end-to-end tests with threads on binaries that watch themselves; what one of them reports fails its test.

Without arguments: all tests, with `workers_runtime thread`, but those that measure times and memory. Arguments go to
pytest.
"""

import sys

import pythons
from golang import cgo, go, go_environment
from test_e2e import PARALLEL
from workspace import CACHE, ROOT, environment, fail, run

# Compiler and linker flags, and environment while building and running.
_C = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"
BUILDS = {
    "asan-ubsan": (
        ["-asan"],
        {"CGO_CFLAGS": f"-g -O1 {_C}", "CGO_LDFLAGS": _C},
        # What Python and Caddy still hold at their end is no leak.
        {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
    ),
    "race-cgocheck2": (["-race"], {"GOEXPERIMENT": "cgocheck2"}, {"GORACE": "halt_on_error=1"}),
}


def main() -> None:
    """Build each binary and run the tests on it."""
    if not cgo():
        fail("the sanitizers need cgo, and there is no C compiler (or CGO_ENABLED=0)")
    python = pythons.test_venv(pythons.find()[-1]) / "bin/python"
    tests = sys.argv[1:] or [*PARALLEL, "-m=not alone and not memory", "-k=-thread"]
    for name, (flags, building, running) in BUILDS.items():
        binary = CACHE / f"caddy-{name}"
        run(go(), "build", *flags, "-o", binary, "./cmd/caddy", env=go_environment(**building))
        running |= {"CADDYSNAKE_TEST_CADDY": str(binary), "CADDYSNAKE_SIEGE": ""}
        env = environment(PYTHONDONTWRITEBYTECODE="1", **running)
        run(python, "-m", "pytest", f"--worker-python={python}", *tests, cwd=ROOT / "tests", env=env)


if __name__ == "__main__":
    main()
