"""No structure of a worker relies on a thread being left alone for a while: here they change every microsecond."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest
from conftest import Launch
from driver import DATA, DECLINE, END, REQUEST, RESET, RESPONSE, Worker, frame

REQUESTS = 1_000_000 if os.environ.get("CADDYSNAKE_SIEGE") == "1" else 20_000
OPEN = 48  # requests at once: more than threads, so that some are declined
BATCH = 16

# What the apps of stress.py do with a request. "/nap" is long enough for other threads to take over.
KINDS = ("/plain",) * 40 + ("/parts", "/write", "/body", "/helper", "/unread") * 4 + ("/nap",)


def begin(worker: Worker, generator: random.Random) -> dict[int, bytes]:
    """Send some requests, and return what makes each one different, by its stream."""
    sent, begun, rest = {}, [], []
    for stream in worker.next_streams(BATCH):
        own, kind = b"%016x" % generator.getrandbits(64), generator.choice(KINDS)
        ended = kind not in ("/body", "/helper", "/unread")
        head = worker.head(f"{kind}?{own.decode()}", "POST")
        begun.append(frame(REQUEST | END if ended else REQUEST, stream, head, b"" if ended else own))
        if kind in ("/body", "/helper"):
            rest.append(frame(DATA | END, stream))
        elif generator.random() < 0.02:
            rest.append(frame(RESET, stream))
        sent[stream] = own
    worker.write(b"".join(begun))
    worker.write(b"".join(rest))
    return sent


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_threat_27_no_response_is_anothers_while_threads_change_all_the_time(launch: Launch, interface: str) -> None:
    worker = launch(f"stress:{interface}", interface, threads=32).start()
    generator = random.Random(27)
    name: Any = "X-Own" if interface == "wsgi" else b"x-own"
    waiting: dict[int, bytes] = {}
    count: Counter[int] = Counter()
    crossed = []
    begun = 0
    while begun < REQUESTS or waiting:
        if begun < REQUESTS:
            waiting |= begin(worker, generator)
            begun += BATCH
        while len(waiting) > (OPEN - BATCH if begun < REQUESTS else 0):
            stream = next(iter(waiting))
            own, response = waiting.pop(stream), worker.response(stream)
            count[response.closed] += 1
            answered = response.closed in (RESPONSE, DATA)
            if answered and (response.body != own or response.header(name) not in (own, own.decode())):
                crossed.append((own, response))
    assert crossed == []
    assert count.keys() <= {RESPONSE, DATA, RESET, DECLINE}, count
    assert count[RESPONSE] > REQUESTS // 2, count
    assert worker.unread() == {}
    assert worker.stop() == 0
