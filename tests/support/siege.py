"""How much of a long test to run: a tenth, or with CADDYSNAKE_SIEGE=1 (as `make siege` sets it) the whole."""

import os

SIEGE = os.environ.get("CADDYSNAKE_SIEGE") == "1"


def share(whole: int) -> int:
    """How many of `whole` tries to make."""
    return whole if SIEGE else whole // 10
