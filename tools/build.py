"""Build bin/caddy."""

from golang import cgo, go, go_environment
from workspace import BINARY, run


def build() -> None:
    """Compile cmd/caddy into bin/caddy."""
    if not cgo():
        print("no C compiler (or CGO_ENABLED=0): building without cgo")
    run(go(), "build", "-ldflags=-w -s", "-o", BINARY, "./cmd/caddy", env=go_environment())


if __name__ == "__main__":
    build()
