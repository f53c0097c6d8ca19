"""Deadlines and attempts as headers say them: gRPC's format, Envoy's, and plain numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsticky.routing.hop_options import InboundOptions
from unsticky.routing.hops import attempt_text, deadline_header, previous_attempts, time_left
from unsticky.scalars import Duration

GRPC = deadline_header("grpc-timeout")
ENVOY = deadline_header("x-envoy-expected-rq-timeout-ms")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600), ("2M", 120), ("3S", 3), ("1500m", 1.5), ("250u", 0.00025), ("99999999n", 0.099999999),
        ("0n", 0), ("0S", 0), (" 5S ", 5),
        ("99999999H", 359_999_996_400),
        ("", None), ("S", None), ("5", None), ("5s", None), ("5 S", None), ("-5S", None), ("+5S", None), ("1.5S", None),
        ("100000000n", None), ("5S,5S", None), ("5S\n5", None), ("٥S", None), ("5d", None),
    ],
)  # fmt: skip
def test_grpc_timeout(text: str, seconds: float | None) -> None:
    """PROTOCOL-HTTP2: one to eight digits and a unit. grpc-go sends 0n when the deadline has passed."""
    found = GRPC.read(text)
    assert found is None if seconds is None else found == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1500", 1.5), ("1", 0.001), ("2.5", 0.0025), (" 15000 ", 15),
        ("0", None), ("", None), ("-1", None), ("1e3", None), ("nan", None), ("inf", None), ("0x10", None),
        ("1_0", None), ("1,2", None), ("9" * 13, None), (".5", None), ("٥", None),
    ],
)  # fmt: skip
def test_milliseconds(text: str, seconds: float | None) -> None:
    """Digits, perhaps with a fraction; 0 is Envoy's word for no timeout."""
    assert ENVOY.read(text) == seconds


@pytest.mark.parametrize(
    ("setting", "name", "text", "seconds"),
    [
        ("X-Timeout", "x-timeout", "1.5", 1.5),
        ("X-Timeout-Ms", "x-timeout-ms", "1500", 1.5),
        ("X-Timeout:ms", "x-timeout", "1500", 1.5),
        ("x-timeout-ms:s", "x-timeout-ms", "1.5", 1.5),
        ("X-Grpc:grpc", "x-grpc", "1500m", 1.5),
    ],
)
def test_the_format_follows_the_name(setting: str, name: str, text: str, seconds: float) -> None:
    """Unless the setting names one."""
    header = deadline_header(setting)
    assert (header.name, header.read(text)) == (name, seconds)


@pytest.mark.parametrize("setting", ["grpc-timeout", "x-envoy-expected-rq-timeout-ms", "x-timeout"])
@given(seconds=st.floats(0.001, 1e8))
def test_what_is_written_is_read_again(setting: str, seconds: float) -> None:
    """No longer than it was, and shorter by a millisecond or a millionth at most: each hop waits less."""
    header = deadline_header(setting)
    found = header.read(header.write(seconds))
    assert found is not None
    assert seconds - max(0.001, seconds * 1e-3) <= found <= seconds * (1 + 1e-12)


@given(st.floats(0, 1e300))
def test_a_grpc_timeout_is_always_well_formed(seconds: float) -> None:
    """At most eight digits, whatever the time, and never 0."""
    text = GRPC.write(seconds)
    assert len(text) <= 9
    assert GRPC.read(text)


@given(st.text(max_size=20), st.sampled_from([GRPC, ENVOY, deadline_header("x-timeout")]))
def test_nothing_that_a_client_sends_raises(text: str, header: object) -> None:
    """It is a time, or it is ignored."""
    found = header.read(text)  # type: ignore[attr-defined]
    assert found is None or 0 <= found < 1e13
    assert previous_attempts({"x-envoy-attempt-count": text, "grpc-previous-rpc-attempts": text}) >= 0


def options(timeout: float | None = None, most: float | None = None) -> InboundOptions:
    return InboundOptions(
        timeout=None if timeout is None else Duration(timeout),
        maximum_timeout=None if most is None else Duration(most),
    )


@pytest.mark.parametrize(
    ("headers", "given_options", "seconds"),
    [
        ({}, options(), None),
        ({}, options(5), 5),
        ({"grpc-timeout": "2S"}, options(), 2),
        ({"grpc-timeout": "2S", "x-envoy-expected-rq-timeout-ms": "1500"}, options(), 1.5),
        ({"grpc-timeout": "2S", "x-envoy-expected-rq-timeout-ms": "junk"}, options(), 2),
        ({"grpc-timeout": "junk"}, options(5), 5),
        ({"grpc-timeout": "2S"}, options(5), 2),
        ({"grpc-timeout": "9S"}, options(5), 5),
        ({"grpc-timeout": "9S"}, options(5, 7), 7),
        ({"grpc-timeout": "9S"}, options(None, 7), 7),
        ({}, options(None, 7), None),
        ({"grpc-timeout": "0n"}, options(5), 0),
    ],
)
def test_who_decides(headers: dict[str, str], given_options: InboundOptions, seconds: float | None) -> None:
    """The shortest header, within the most that one may ask for; without one the settings."""
    assert time_left(headers, given_options) == seconds


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 0),
        ({"x-envoy-attempt-count": "1"}, 0),
        ({"x-envoy-attempt-count": "3"}, 2),
        ({"x-envoy-attempt-count": "0"}, 0),
        ({"grpc-previous-rpc-attempts": "1"}, 1),
        ({"grpc-previous-rpc-attempts": "4", "x-envoy-attempt-count": "2"}, 4),
        ({"grpc-previous-rpc-attempts": "-4", "x-envoy-attempt-count": "2x"}, 0),
        ({"x-envoy-attempt-count": "9" * 5000}, 0),
    ],
)
def test_previous_attempts(headers: dict[str, str], expected: int) -> None:
    """Envoy counts from 1, gRPC what came before."""
    assert previous_attempts(headers) == expected


@given(st.integers(1, 1000), st.sampled_from(["x-envoy-attempt-count", "grpc-previous-rpc-attempts"]))
def test_attempts_arrive_as_they_were_sent(previous: int, header: str) -> None:
    """In either header."""
    assert previous_attempts({header: attempt_text(header, previous)}) == previous
