"""Free ports, kept free until they are used."""

import socket


class Port:
    """A TCP port that nobody else gets, on no address of this machine, until `release`.

    A socket that never listens is bound to it. Caddy binds the same port beside it, because both set SO_REUSEPORT;
    connections are refused until Caddy listens, and no other process is handed the number meanwhile.
    """

    def __init__(self) -> None:
        # One for both families where there are both, as Caddy's is if a site says nothing else.
        dual = socket.has_dualstack_ipv6()
        self._socket = socket.socket(socket.AF_INET6 if dual else socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if dual:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.bind(("", 0))
        self.number: int = self._socket.getsockname()[1]

    def accepts(self) -> bool:
        """Whether somebody listens on the port."""
        try:
            socket.create_connection(("127.0.0.1", self.number), timeout=1).close()
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Give the number back."""
        self._socket.close()
