"""Run the Go unit tests, with the race detector where there is a C compiler."""

from golang import cgo, go, go_environment
from workspace import run


def main() -> None:
    """`go test` over every package of the module."""
    race = ["-race"] if cgo() else []
    if not race:
        print("no C compiler (or CGO_ENABLED=0): the Go tests run without the race detector")
    run(go(), "test", *race, "./...", env=go_environment())


if __name__ == "__main__":
    main()
