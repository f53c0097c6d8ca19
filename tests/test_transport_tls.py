"""A TLS connection that was verified for one name never carries calls to another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.pools import wires
from support.tls import tls_endpoint, trusting
from unsticky import Pools

ORIGINS = ["https://api.example.com", "https://other.example.com"]


def settings(url: str, client: str) -> dict[str, Any]:
    """The endpoint's certificate is for api.example.com alone."""
    client, _, wire = client.partition(" over ")
    return {
        "client": client,
        "wire": wire or "default",
        "pools": {"p": {"endpoints": [url], "match": ORIGINS, "retry": {"attempts": 1}}},
    }


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_each_match_origin_is_verified(library: str) -> None:
    """Also when a connection to the same endpoint is open already."""
    with (
        tls_endpoint() as endpoint,
        Pools.from_settings(settings(endpoint.url, library)) as pools,
        pools.client(verify=trusting()) as client,
    ):
        assert client.get(ORIGINS[0]).status_code == 200
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
            client.get(ORIGINS[1])
        assert client.get(ORIGINS[0]).status_code == 200
        assert client.get("https://p/").status_code == 200, "the endpoint's own address is in the certificate"
        assert set(endpoint.names) == {"api.example.com", "other.example.com", None}


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_callers_host_header_is_no_name_to_verify(library: str) -> None:
    """Who chooses it does not choose whose certificate is good."""
    with (
        tls_endpoint() as endpoint,
        Pools.from_settings(settings(endpoint.url, library)) as pools,
        pools.client(verify=trusting()) as client,
    ):
        assert client.get("https://p/", headers={"Host": "other.example.com"}).status_code == 200
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
            client.get(ORIGINS[1], headers={"Host": "api.example.com"})
        assert endpoint.names == [None, "other.example.com"]


@wires
def test_each_match_origin_is_verified_async(library: str) -> None:
    """The same on an event loop."""

    async def calls(pools: Pools) -> None:
        async with pools.async_client(verify=trusting()) as client:
            assert (await client.get(ORIGINS[0])).status_code == 200
            with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(ORIGINS[1])
            assert (await client.get(ORIGINS[0])).status_code == 200

    with tls_endpoint() as endpoint, Pools.from_settings(settings(endpoint.url, library)) as pools:
        asyncio.run(calls(pools))
