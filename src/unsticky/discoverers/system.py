"""Endpoints by name, as the system resolves it: /etc/hosts and all. It tells no TTLs."""

from __future__ import annotations

import socket

from ..errors import DiscoveryError
from ..routing.call import Endpoint
from ..routing.discovery_options import DiscoveryOptions
from .addresses import endpoints_at

_FAMILIES = {"A": socket.AF_INET, "AAAA": socket.AF_INET6}
_NO_SUCH_NAME = frozenset(
    {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME), getattr(socket, "EAI_ADDRFAMILY", -1000)}
)


class SystemDiscovery:
    """The addresses that getaddrinfo finds for a name. It blocks, so it is asked in a thread."""

    def __init__(self, options: DiscoveryOptions) -> None:
        self._options = options

    def discover(self) -> frozenset[Endpoint]:
        """Raises DiscoveryError; a name that does not exist has no endpoints."""
        name = self._options.name or ""
        family = _FAMILIES.get(self._options.record, socket.AF_UNSPEC)
        try:
            found = socket.getaddrinfo(name, None, family=family, type=socket.SOCK_STREAM)
        except UnicodeError:
            raise DiscoveryError("it can't be a host name") from None
        except OSError as error:
            if error.errno in _NO_SUCH_NAME:
                return frozenset()
            raise DiscoveryError(error.strerror or type(error).__name__) from error
        return endpoints_at({str(address[0]) for *_, address in found}, self._options)
