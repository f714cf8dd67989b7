"""Which addresses webhooks may be sent to: public ones over https, and private networks that the operator allows.

A tenant chooses the URL and the server sends the request, so an unchecked target would let a tenant reach what only
the server can reach (server-side request forgery). The URL is checked when an endpoint is saved and at every
delivery; the addresses its host resolves to are checked at every delivery, before the connection is made to them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from core.errors import WebhookTargetRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LONGEST_URL = 2048
_PORTS = {"https": 443, "http": 80}
_LAST_PORT = 65535
_NAT64 = IPv6Network("64:ff9b::/96")  # carries an IPv4 address in its last 32 bits

# What ``is_global`` of Python's ``ipaddress`` lets through, or did in a release that may still run.
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "100.64.0.0/10",  # carrier-grade NAT
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarks
        "240.0.0.0/4",  # reserved
        "64:ff9b:1::/48",  # NAT64 of the local network
        "100::/64",  # discard
        "2001::/23",  # protocol assignments: Teredo carries IPv4 addresses, ORCHID is not routed
        "2002::/16",  # 6to4 carries IPv4 addresses
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local
    )
)


@dataclass(frozen=True)
class Target:
    """Where a checked URL leads. ``only_allowed``: plain http or an unusual port, fine within allowed networks only."""

    host: str
    port: int
    only_allowed: bool


@dataclass(frozen=True)
class TargetPolicy:
    """The rule; ``allow`` are networks that may be reached although they are not public."""

    allow: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, networks: Iterable[str]) -> TargetPolicy:
        """The policy of a setting's CIDRs; raises ValueError for one that is none."""
        return cls(tuple(ip_network(network) for network in networks))

    def check_url(self, url: str) -> Target:
        """Where the URL leads; raises WebhookTargetRefused for one that can never be delivered to.

        A host that is written as an address is checked here too; a name is only known when it is resolved.
        """
        target = self._parsed(url)
        if target.only_allowed and not self.allow:
            raise _refused("must use https on port 443")
        literal = _literal_address(target.host)
        if literal is not None:
            self.check_address(target, literal)
        return target

    def check_address(self, target: Target, address: Address) -> None:
        """Raise WebhookTargetRefused unless the target may be reached at this address."""
        address = _unmapped(address)
        if any(address in network for network in self.allow):
            return
        if target.only_allowed:
            raise _refused("must use https on port 443")
        if not is_public(address):
            raise _refused("leads to an address that is not public")

    def _parsed(self, url: str) -> Target:
        if len(url) > _LONGEST_URL:
            raise _refused(f"is longer than {_LONGEST_URL} characters")
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise _refused(f"cannot be read: {error}") from error
        host = parts.raw_host.decode("ascii")
        if parts.scheme not in _PORTS or not _is_host(host):
            raise _refused("must begin with https:// and name a host")
        if parts.userinfo:
            raise _refused("must not contain a user name or password")
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
        if not 1 <= port <= _LAST_PORT:
            raise _refused(f"must name a port between 1 and {_LAST_PORT}")
        usual = parts.scheme == "https" and port == _PORTS["https"]
        return Target(host=host, port=port, only_allowed=not usual)


def is_public(address: Address) -> bool:
    """Whether the address, or the IPv4 address that it carries, belongs to a host on the public internet."""
    address = _unmapped(address)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    special = address.is_multicast or address.is_reserved or any(address in network for network in _NOT_PUBLIC)
    return address.is_global and not special


def _is_host(host: str) -> bool:
    """Whether the host can be looked up at all: no escapes, no label empty or over 63 characters."""
    return "%" not in host and all(0 < len(label) <= 63 for label in host.removesuffix(".").split("."))


def _unmapped(address: Address) -> Address:
    """An IPv4 address written as IPv6 (``::ffff:a.b.c.d``) is where the connection would really go."""
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _literal_address(host: str) -> Address | None:
    """The address that the host is a notation of, the old ones (``127.1``, ``0x7f.1``, ``2130706433``) included."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(name.strip("[]"))
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(name))
    except OSError:
        return None


def _refused(why: str) -> WebhookTargetRefused:
    return WebhookTargetRefused(f"The webhook URL {why}.", param="url")
