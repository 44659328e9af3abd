"""Requests that run while something happens to the server."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx

from support.polling import wait_until
from support.server import Server


class Load:
    """Requests from several clients, one after another each, until `stop`.

    Args:
        server: where to.
        path: what to get.
        clients: how many clients.
        retry: ask again, twice at most, when the connection is closed without an answer, as browsers do. A
            reload that lets Caddy's HTTP server begin anew closes a few so, whatever the site: those idle, and those
            not yet accepted.
    """

    def __init__(self, server: Server, path: str = "/process", clients: int = 4, retry: bool = False) -> None:
        self.responses: list[httpx.Response | httpx.HTTPError] = []
        self._attempts = 3 if retry else 1
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._get, args=(server, path)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _get(self, server: Server, path: str) -> None:
        with server.new_client() as client:
            while not self._stopped.is_set():
                self.responses.append(self._answer(client, path))

    def _answer(self, client: httpx.Client, path: str) -> httpx.Response | httpx.HTTPError:
        for attempt in range(1, self._attempts + 1):
            try:
                return client.get(path)
            except httpx.HTTPError as error:
                if attempt == self._attempts:
                    return error
        raise AssertionError("no attempt was made")

    def wait_for(self, count: int) -> None:
        """Wait until so many more requests have been answered."""
        goal = len(self.responses) + count
        wait_until(lambda: len(self.responses) >= goal, f"{goal} responses", 60)

    def stop(self) -> None:
        """End the load; every request was answered as if nothing had happened."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        failed = [response for response in self.responses if not is_ok(response)]
        assert not failed, f"{len(failed)} of {len(self.responses)}: {failed[:3]}"


def is_ok(response: httpx.Response | httpx.HTTPError) -> bool:
    """Whether it is an answer with status 200."""
    return isinstance(response, httpx.Response) and response.status_code == 200


class Holder:
    """Requests that worker_app.py holds until a file exists.

    Args:
        server: serves worker_app:app.
        gate: the file.
    """

    def __init__(self, server: Server, gate: Path) -> None:
        self.server = server
        self.gate = gate
        self._pool = ThreadPoolExecutor()

    def send(self, method: str = "GET") -> tuple[Future[httpx.Response], int]:
        """Send a request; it is returned once the app has it, with the worker that has it."""
        since = self.server.log.position()
        response = self._pool.submit(self._request, method)
        return response, self.wait_held(since)

    def wait_held(self, since: int) -> int:
        """Wait for the next of them."""
        return wait_until(lambda: self.held(since), "request in the app")[0]

    def held(self, since: int) -> list[int]:
        """The workers that have got a request to hold, after this position in the log."""
        lines = self.server.log.output("stdout", since)
        return [int(line.split()[-1]) for line in lines if line.startswith("holding in")]

    def _request(self, method: str) -> httpx.Response:
        with self.server.new_client() as client:
            return client.request(method, "/hold", params={"file": str(self.gate)})

    def release(self) -> None:
        """Let the app answer them all."""
        self.gate.touch()
