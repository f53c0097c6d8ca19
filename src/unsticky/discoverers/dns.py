"""Endpoints by name from nameservers, which tell how long their answers are good: A, AAAA and SRV (RFC 2782)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.message
import dns.nameserver
import dns.rcode
import dns.rdatatype
import dns.resolver

from ..clock import Clock
from ..errors import DiscoveryError
from ..routing.call import MAXIMUM_WEIGHT, Endpoint
from ..routing.discovery_options import DiscoveryOptions
from ..rules import read_nameserver
from .addresses import endpoint_at, endpoints_at
from .ttl_cache import TtlCache

_AT_ONCE = 32  # questions
_LONGEST_TRY = 2.0  # seconds until a nameserver that does not answer is asked again, or the next one
Question = tuple[str, str]  # name, record


@dataclass(frozen=True, slots=True)
class Service:
    """An SRV record. `target` is in lower case and ends with a dot; "." alone says that there is none."""

    priority: int
    weight: int
    port: int
    target: str


class DnsDiscovery:
    """The addresses of a name, or the targets of a service, each asked for again when its time to live is over.

    A name that does not exist, or has no such record, has no endpoints. SERVFAIL, other refusals, silence are errors.
    """

    def __init__(self, options: DiscoveryOptions, clock: Clock) -> None:
        self._options = options
        self._name = options.name or ""
        self._cache: TtlCache[Question, tuple[Any, ...]] = TtlCache(clock, options.minimum_ttl, options.maximum_ttl)
        self._used: set[Question] = set()

    async def discover(self) -> frozenset[Endpoint]:
        """Raises DiscoveryError when nobody knows."""
        options, asking = self._options, _Asking(self._cache, _resolver(self._options))
        try:
            if options.record == "SRV":
                return frozenset(await self._services(asking))
            records = ("A", "AAAA") if options.record == "both" else (options.record,)
            answers = await asyncio.gather(*(asking.ask(self._name, record) for record in records))
            return endpoints_at((address for answer in answers for address in answer), options)
        finally:
            self._used = asking.used

    def due_in(self) -> float:
        due = self._cache.due_in(self._used)
        return self._options.minimum_ttl if due is None else due

    async def _services(self, asking: _Asking) -> list[Endpoint]:
        services: Sequence[Service] = [one for one in await asking.ask(self._name, "SRV") if one.target != "."]
        addresses = await asyncio.gather(*(asking.addresses(one.target) for one in services))
        return [
            endpoint_at(address, one.port, self._options, weight=_weight(one, len(found)), priority=one.priority)
            for one, found in zip(services, addresses, strict=True)
            for address in found
        ]


def _weight(service: Service, addresses: int) -> int:
    """A target with several addresses has its weight once. A weight of 0 is a small one (RFC 2782)."""
    return min(max(round(service.weight / addresses), 1), MAXIMUM_WEIGHT)


class _Asking:
    """The questions of one look, of which those are asked that the cache can't answer."""

    def __init__(self, cache: TtlCache[Question, tuple[Any, ...]], resolver: dns.asyncresolver.Resolver) -> None:
        self.used: set[Question] = set()
        self._cache = cache
        self._resolver = resolver
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def addresses(self, target: str) -> tuple[str, ...]:
        """Of one server: its IPv4 addresses, or where it has none those of IPv6, so that none is counted twice."""
        return await self.ask(target, "A") or await self.ask(target, "AAAA")

    async def ask(self, name: str, record: str) -> tuple[Any, ...]:
        """The records; none for a name that does not exist."""
        self.used.add((name, record))
        found = self._cache.get((name, record))
        if found is None:
            async with self._places:
                found = await self._fresh(name, record)
        return found

    async def _fresh(self, name: str, record: str) -> tuple[Any, ...]:
        try:
            answer = await self._resolver.resolve(name, record, search=True, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return ()
        except dns.exception.DNSException as error:
            raise DiscoveryError(f"{record} {name}: {_reason(error, self._resolver.lifetime)}") from error
        if answer.rrset is None:
            return ()  # not kept: how long that is so says nobody who is asked for the rest
        found = tuple(_values(answer.rrset))
        self._cache.put((name, record), found, answer.chaining_result.minimum_ttl)
        if record == "SRV":
            self._keep_additional(answer.response, {service.target for service in found})
        return found

    def _keep_additional(self, response: dns.message.Message, targets: set[str]) -> None:
        """Addresses of the targets that came along unasked."""
        for rrset in response.additional:
            name, record = rrset.name.to_text().lower(), dns.rdatatype.to_text(rrset.rdtype)
            if name in targets and record in ("A", "AAAA"):
                self._cache.put((name, record), tuple(_values(rrset)), rrset.ttl)


def _values(rrset: Any) -> Iterator[Any]:
    for one in rrset:
        if one.rdtype == dns.rdatatype.SRV:
            yield Service(one.priority, one.weight, one.port, one.target.to_text().lower())
        else:
            yield one.address


def _resolver(options: DiscoveryOptions) -> dns.asyncresolver.Resolver:
    """Made for each look, as /etc/resolv.conf may change."""
    try:
        resolver = dns.asyncresolver.Resolver(configure=not options.nameservers)
    except dns.resolver.NoResolverConfiguration:
        raise DiscoveryError("the system names no nameservers") from None
    if options.nameservers:
        servers = [dns.nameserver.Do53Nameserver(*read_nameserver(text)) for text in options.nameservers]
        resolver.nameservers = servers
    resolver.lifetime = options.timeout
    resolver.timeout = min(options.timeout / 3, _LONGEST_TRY)
    return resolver


def _reason(error: dns.exception.DNSException, seconds: float) -> str:
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return f"no answer within {seconds:g} s"
    if isinstance(error, dns.resolver.NoNameservers):
        responses = [one[4] for one in error.kwargs.get("errors", ()) if one[4] is not None]
        codes = sorted({dns.rcode.to_text(response.rcode()) for response in responses})
        return f"the nameservers say {', '.join(codes)}" if codes else "the nameservers can't be reached"
    return type(error).__name__
