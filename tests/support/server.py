"""A running Caddy."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from support.log import Log
from support.polling import wait_until
from support.ports import Port
from support.worker import Worker

CADDY = Path(os.environ.get("CADDYSNAKE_TEST_CADDY") or Path(__file__).resolve().parent.parent.parent / "bin" / "caddy")

# The environment variable that marks what a server started, however deep, even after its parent has gone.
_MARK = "E2E_SERVER"


class Server:
    """One `caddy` process with what belongs to it.

    Attributes:
        url: where the site answers, "http://127.0.0.1:PORT" or "https://127.0.0.1:PORT"; with client_auth it is at
            localhost, because Caddy finds out by a client's SNI that it is to ask for a certificate.
        tls: whether the site is served over TLS, and HTTP/2.
        log: what Caddy wrote to standard error, parsed.
        folder: a folder of this server alone; `folder / "tmp"` is TMPDIR of Caddy and its workers.
        client: an httpx client of `url` that follows no redirects; the check after each test closes it.
        process: the Caddy process, once started.

    `get`, `post` and `request` are the client's.
    """

    def __init__(self, folder: Path, worker: Worker, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.worker = worker
        self.port = Port()
        self.admin = Port()
        self.tls = False
        self.tmp = folder / "tmp"
        self.tmp.mkdir(parents=True)
        self._mark = uuid.uuid4().hex
        self._env = isolated_environment(folder) | {_MARK: self._mark} | dict(env or {})
        self.log = Log(folder / "caddy.log")
        self.log.path.touch()
        self.process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None
        self._client_auth = ""

    # Start and stop.

    def start(self, site: str, options: str = "", *, tls: bool = False, client_auth: str = "") -> None:
        """Run `caddy run` with this site and wait until the configuration is in force: all workers are ready.

        Args:
            site: the inside of the site block.
            options: further global options.
            tls: serve the site over TLS and HTTP/2, with a certificate of Caddy's own authority, which clients trust.
            client_auth: the inside of the tls directive's client_auth.

        Raises:
            AssertionError: Caddy ended instead; the message carries its log.
        """
        self.tls = tls
        self._client_auth = client_auth
        self.write_caddyfile(site, options)
        self.launch("run", "--config", str(self.caddyfile))
        # The admin API listens before the apps do, and holds back its answer until the configuration is loaded.
        self.wait_accepting(self.admin)
        assert self.admin_request("GET", "/config/").json() is not None
        self.wait_accepting(self.port)
        if tls:
            wait_until(self._has_certificate, f"certificate of {self.url}", 30)

    def launch(self, *arguments: str) -> None:
        """Start `caddy` with these arguments and do not wait for anything."""
        assert self.process is None, "this server was started before"
        with open(self.log.path, "ab") as log:
            self.process = subprocess.Popen(
                [str(CADDY), *arguments],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_accepting(self, port: Port) -> None:
        """Wait until Caddy accepts connections on `port`; AssertionError with its log if it ends instead."""
        process = self._started()
        wait_until(lambda: port.accepts() or process.poll() is not None, f"listener on port {port.number}", 60)
        if process.returncode is not None:
            raise AssertionError(f"caddy ended with status {process.returncode}:\n{self.log.path.read_text()}")

    def wait_exit(self, seconds: float = 30) -> int:
        """Wait until Caddy has ended by itself; its exit status."""
        return self._started().wait(seconds)

    def stop(self, seconds: float = 30) -> int:
        """Ask Caddy to stop as `docker stop` or systemd would, and return its exit status once it has ended."""
        process = self._started()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        return process.wait(seconds)

    def close(self) -> None:
        """Stop without a word, whatever state it is in, and kill what it leaves."""
        self.close_client()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.processes():
            process.kill()
        self.port.release()
        self.admin.release()

    # Configuration.

    @property
    def caddyfile(self) -> Path:
        """The file that `start` and `reload` write."""
        return self.folder / "Caddyfile"

    def write_caddyfile(self, site: str, options: str = "") -> None:
        """Write the Caddyfile of this server."""
        auto_https, address, tls = "off", f"http://:{self.port.number}", ""
        if self.tls:
            auto_https, address, tls = "disable_redirects\nskip_install_trust", self.url, "tls internal"
            tls += f" {{\nclient_auth {{\n{self._client_auth}\n}}\n}}\n" if self._client_auth else "\n"
        self.caddyfile.write_text(
            f"{{\nadmin 127.0.0.1:{self.admin.number}\npersist_config off\nauto_https {auto_https}\n{options}\n}}\n"
            f"{self.worker.caddyfile()}"
            f"{address} {{\nbind 127.0.0.1\n{tls}{site}\n}}\n"
        )

    def reload(self, site: str, options: str = "", *, force: bool = False) -> subprocess.CompletedProcess[str]:
        """Run `caddy reload` with a new site, or with `force` also with the same one, and return how that went.

        The listener of the configuration that has gone has closed then, be it the old one or a new one that was refused
        after Caddy had begun to listen for it: Caddy lets go of it just after the command has ended, and with it of
        connections whose requests it has not read.
        """
        self.write_caddyfile(site, options)
        result = self.command(
            "reload",
            "--config",
            str(self.caddyfile),
            "--address",
            f"127.0.0.1:{self.admin.number}",
            *(["--force"] if force else []),
        )
        wait_until(lambda: self._listeners() <= 1, "end of the other configuration's listener")
        return result

    def _listeners(self) -> int:
        """How many sockets listen on the site's port.

        Not of Caddy alone: one that it is closing may be nobody's any more, and still take connections and reset them.
        """
        sockets = psutil.net_connections("tcp4")
        return sum(one.status == psutil.CONN_LISTEN and one.laddr[-1:] == (self.port.number,) for one in sockets)

    def admin_request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request to Caddy's admin API."""
        return httpx.request(
            method, f"http://127.0.0.1:{self.admin.number}{path}", trust_env=False, timeout=60, **options
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `caddy` command in this server's environment to its end."""
        return subprocess.run(
            [str(CADDY), *arguments],
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    # Processes.

    @property
    def caddy(self) -> psutil.Process:
        """The Caddy process, seen by psutil."""
        return psutil.Process(self._started().pid)

    def workers(self) -> list[psutil.Process]:
        """The processes that workers run in: Caddy's children, or Caddy itself."""
        children = _children(self.caddy)
        return [self.caddy] if self.worker.runtime == "thread" and not children else children

    def caddy_and_workers(self) -> set[psutil.Process]:
        """The Caddy process and those that workers run in: one, if all is in Caddy."""
        return {self.caddy, *self.workers()}

    def worker_pids(self) -> set[int]:
        """Their process ids."""
        return {process.pid for process in self.workers()}

    def processes(self) -> list[psutil.Process]:
        """Everything alive that this server started, at any depth, orphans too."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == self._mark
        except psutil.Error:
            return False

    def _started(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "this server was not started"
        return self.process

    # Requests.

    @property
    def url(self) -> str:
        """Where the site answers."""
        return f"{'https' if self.tls else 'http'}://{self._host}:{self.port.number}"

    def trust(self) -> ssl.SSLContext:
        """A TLS context that trusts this server's certificate."""
        return ssl.create_default_context(cafile=self.root_certificate)

    @property
    def root_certificate(self) -> Path:
        """That of Caddy's own authority."""
        return self.folder / "home/data/caddy/pki/authorities/local/root.crt"

    @property
    def certificates(self) -> Path:
        """The folder with those that Caddy's own authority has issued, each in a folder named after its host."""
        return self.folder / "home/data/caddy/certificates/local"

    @property
    def client(self) -> httpx.Client:
        """A client with cookies and connections of its own for each test."""
        if self._client is None:
            self._client = self.new_client()
        return self._client

    def new_client(self, **options: Any) -> httpx.Client:
        """A further client, which the test closes itself; `options` are those of httpx.Client."""
        # Without TLS it is to trust nobody: to read all authorities' certificates takes longer than most tests.
        verify = self.trust() if self.tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        defaults: dict[str, Any] = {"base_url": self.url, "trust_env": False, "timeout": 30, "verify": verify}
        return httpx.Client(**(defaults | options))

    def close_client(self) -> None:
        """Close `client` with its connections; the next use makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """httpx's request."""
        return self.client.request(method, path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """httpx's get."""
        return self.client.get(path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """httpx's post."""
        return self.client.post(path, **options)

    def connect(
        self, *, source: str = "127.0.0.1", receive_buffer: int | None = None, http2: bool = False
    ) -> socket.socket:
        """A raw connection (over TLS if that is what the site wants), for what a proper HTTP client would not do.

        Args:
            source: the loopback address that it comes from.
            receive_buffer: the size of the kernel's receive buffer in bytes; a small one makes a slow client.
            http2: agree on HTTP/2, which needs TLS.
        """
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(30)
        connection.bind((source, 0))
        connection.connect(("127.0.0.1", self.port.number))
        if self.tls:
            context = self.trust()
            context.set_alpn_protocols(["h2" if http2 else "http/1.1"])
            return context.wrap_socket(connection, server_hostname=self._host)
        return connection

    @property
    def _host(self) -> str:
        return "localhost" if self._client_auth else "127.0.0.1"

    def _has_certificate(self) -> bool:
        try:
            self.connect().close()
        except OSError:  # there is none yet, or not even the authority's own
            return False
        return True


def isolated_environment(folder: Path) -> dict[str, str]:
    """The environment of a command that keeps all its files in `folder` and sees none of the user's."""
    names = ("PATH", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "GORACE")
    kept = {name: value for name, value in os.environ.items() if name in names}
    home = folder / "home"
    return kept | {
        "HOME": str(home),
        "TMPDIR": str(folder / "tmp"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _children(parent: psutil.Process) -> list[psutil.Process]:
    """The processes that this one has started. Linux says them at once; else psutil asks all that there are."""
    if not sys.platform.startswith("linux"):
        return parent.children()
    children = []
    for thread in Path(f"/proc/{parent.pid}/task").iterdir():
        with suppress(OSError):  # the thread has ended; Caddy starts processes from one that never does
            for pid in (thread / "children").read_text().split():
                with suppress(psutil.NoSuchProcess):
                    children.append(psutil.Process(int(pid)))
    return children
