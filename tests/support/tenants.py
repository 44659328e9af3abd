"""Dynamic apps: tenants in folders, each with a host name of its own."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

import httpx

from support.check import Servers
from support.polling import wait_until
from support.server import Server
from support.worker import APPS

DOMAIN = "apps.test"


class Tenants:
    """A folder in which each tenant has a folder with apps/tenant_app.py, as module `main`.

    Args:
        root: the folder, which is made.
        names: those who are there from the beginning.
    """

    def __init__(self, root: Path, names: Iterable[str] = ()) -> None:
        self.root = root
        root.mkdir(parents=True)
        for name in names:
            self.add(name)

    def add(self, name: str) -> Path:
        """Add a tenant, and return its folder."""
        folder = self.root / name
        folder.mkdir()
        shutil.copy(APPS / "tenant_app.py", folder / "main.py")
        return folder

    def site(self, *settings: str, interface: str = "wsgi") -> str:
        """A site that serves them by the first label of the host name."""
        lines = "\n".join(settings)
        return (
            f"python {{\nmodule_{interface} main:{interface}\nimport interpreter\n"
            f'working_dir "{self.root}/{{http.request.host.labels.2}}/"\n{lines}\n}}'
        )


def get(server: Server, tenant: str, path: str = "/", client: httpx.Client | None = None) -> httpx.Response:
    """Get a tenant's path."""
    return (client or server.client).get(path, headers={"Host": f"{tenant}.{DOMAIN}"})


def answered(server: Server, tenant: str, path: str = "/") -> int:
    """Get a tenant's path, expect its own answer, and return the process that gave it."""
    response = get(server, tenant, path)
    assert response.status_code == 200, f"{tenant}: {response.status_code}"
    name, pid = response.text.split()
    assert name == tenant
    return int(pid)


def started(server: Server) -> list[str]:
    """The tenants whose app has been imported, each as often as that was."""
    return [line.split()[1] for line in server.log.output("stdout") if line.startswith("started")]


def serve_tls(serve: Servers, tenants: Tenants) -> Server:
    """A server of the tenants with certificates of Caddy's own authority, by the permission module."""
    server = serve.new()
    server.caddyfile.write_text(f"""{{
        admin 127.0.0.1:{server.admin.number}
        persist_config off
        skip_install_trust
        auto_https disable_redirects
        on_demand_tls {{
            permission python_dir {{
                root {tenants.root}
                domain_suffix {DOMAIN}
            }}
        }}
    }}
    {server.worker.caddyfile()}
    https://*.{DOMAIN}:{server.port.number} {{
        bind 127.0.0.1
        tls internal {{
            on_demand
        }}
        {tenants.site()}
    }}
    """)
    server.launch("run", "--config", str(server.caddyfile))
    server.wait_accepting(server.port)
    wait_until(server.root_certificate.exists, "Caddy's own authority")
    return server


def connect_tls(server: Server, host: str) -> ssl.SSLSocket:
    """A connection to this host; ssl.SSLError or ConnectionError without a certificate that clients can trust."""
    connection = socket.create_connection(("127.0.0.1", server.port.number), 30)
    try:
        return server.trust().wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise


def handshake(server: Server, host: str) -> bool:
    """Whether the server has a certificate for this host that clients can trust."""
    try:
        connect_tls(server, host).close()
    except (ssl.SSLError, ConnectionError):
        return False
    return True
