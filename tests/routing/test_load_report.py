"""Load reports: Envoy's vectors, what is read leniently, what is refused, and that nothing breaks the reader."""

from __future__ import annotations

import json
from base64 import b64encode
from struct import pack

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unsticky.routing.load_report import FORMATS, LONGEST, LoadReport, parse

EXAMPLE = LoadReport(
    cpu_utilization=0.7,
    application_utilization=0.8,
    mem_utilization=0.9,
    rps_fractional=1000,
    eps=2,
    named_metrics={"foo": 123, "bar": 0.2},
    utilization={"total": 0.5},
)
OF_GRPC_GO = "CQAAAAAAAOA/MQAAAAAAAFlAOQAAAAAAAABAQg4KA3JpZhEAAAAAAAAQQA"  # not padded
READ_GRPC_GO = LoadReport(cpu_utilization=0.5, rps_fractional=100, eps=2, named_metrics={"rif": 4})


def binary(message: bytes) -> str:
    return "BIN " + b64encode(message).decode()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            "TEXT cpu_utilization=0.7,application_utilization=0.8,mem_utilization=0.9,rps_fractional=1000,eps=2,"
            "named_metrics.foo=123,named_metrics.bar=0.2,utilization.total=0.5",
            EXAMPLE,
        ),
        (
            "TEXT cpu_utilization:0.7, application_utilization : 0.8 ,mem_utilization= 0.9, rps_fractional=1e3,,eps=2, "
            "named_metrics.foo=123,named_metrics.bar=.2, utilization.total=5E-1,",
            EXAMPLE,
        ),
        (
            'JSON {"cpu_utilization": 0.7, "application_utilization": 0.8, "mem_utilization": 0.9, "rps_fractional": '
            '1000, "eps": 2, "named_metrics": {"foo": 123, "bar": 0.2}, "utilization": {"total": 0.5}}',
            EXAMPLE,
        ),
        (
            'JSON {"cpuUtilization": 0.7, "applicationUtilization": 0.8, "memUtilization": 0.9, "rpsFractional": 1000, '
            '"eps": 2, "namedMetrics": {"foo": 123, "bar": 0.2}, "utilization": {"total": 0.5}}',
            EXAMPLE,
        ),
        (f"BIN {OF_GRPC_GO}", READ_GRPC_GO),
        (f"BIN {OF_GRPC_GO}==", READ_GRPC_GO),
        ("TEXT named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=2.0",
         LoadReport(named_metrics={"kv_cache_usage_perc": 0.4, "num_requests_waiting": 2})),
        ("TEXT named_metrics.a.b=1", LoadReport(named_metrics={"a.b": 1})),
        ("TEXT eps=0", LoadReport()),
        ("TEXT ", LoadReport()),
        ("TEXT", LoadReport()),
        ("JSON {}", LoadReport()),
        (binary(b"\x18\x96\x01"), LoadReport(rps_fractional=150)),
        (binary(b"\x18\x96\x01\x31" + pack("<d", 9)), LoadReport(rps_fractional=9)),
        (binary(b"\x22\x0c\x0a\x01q\x11" + pack("<d", 3)), LoadReport()),
        (binary(b"\x7d1234" + b"\x78\x01" + b"\x7a\x02hi" + b"\x79" + bytes(8) + b"\x49" + pack("<d", 0.25)),
         LoadReport(application_utilization=0.25)),
    ],
)  # fmt: skip
def test_what_is_read(header: str, expected: LoadReport) -> None:
    """Envoy's and grpc-go's vectors, vLLM's spelling, fields that are unknown or former."""
    assert parse(header) == expected


def test_the_legacy_header_wins() -> None:
    """Envoy BinHeaderPrecedence: the other one is not even looked at."""
    assert parse("cpu_utilization:0.7", OF_GRPC_GO) == READ_GRPC_GO


@pytest.mark.parametrize(
    "header",
    [
        "BAD random-value",
        "",
        "text cpu_utilization=0.7",
        "cpu_utilization=0.7",
        'TEXT cpu_utilization="0.7"',
        "TEXT cpu_utilization=nan",
        "TEXT cpu_utilization=inf",
        "TEXT cpu_utilization=1e999",
        "TEXT cpu_utilization=-0.1",
        "TEXT cpu_utilization=1_0",
        "TEXT cpu_utilization=\u0661",
        "TEXT cpu_utilization=0x10",
        "TEXT cpu_utilization=",
        "TEXT =0.7",
        "TEXT cpu_utilization=0.7,cpu_utilization=0.8",
        "TEXT named_metrics.foo=123,named_metrics.duplicate=123,named_metrics.duplicate=0.2",
        "TEXT cpu_utilization=0.7,unsupported_metric=0.8",
        "TEXT cpu_utilization=0.7,metric=0.8",
        "TEXT named_metrics.=123",
        "TEXT utilization=1",
        "TEXT other.key=1",
        "TEXT not-a-list-of-key-value-pairs",
        "TEXT cpu_utilization=0.7, TEXT eps=1",
        "JSON not-json",
        "JSON [1]",
        "JSON {",
        'JSON {"cpu_utilization": 0.7, "unknown_field": 2}',
        'JSON {"cpu_utilization": "0.7"}',
        'JSON {"cpu_utilization": true}',
        'JSON {"cpu_utilization": null}',
        'JSON {"cpu_utilization": NaN}',
        'JSON {"cpu_utilization": -1}',
        'JSON {"cpu_utilization": 1, "cpu_utilization": 1}',
        'JSON {"cpu_utilization": 1, "cpuUtilization": 1}',
        'JSON {"named_metrics": 1}',
        'JSON {"named_metrics": {"a": {"b": 1}}}',
        'JSON {"named_metrics.a": 1}',
        'JSON {"cpu_utilization": 1' + "0" * 400 + "}",
        "JSON " + "[" * (LONGEST - 5),
        'JSON {"cpu_utilization":' * 100,
        "BIN not-a-valid-binary-proto",
        "BIN ",
        "BIN " + OF_GRPC_GO[:30],
        binary(b"\x08\x01"),  # a double as a varint
        binary(b"\x09"),
        binary(b"\x09" + pack("<d", float("nan"))),
        binary(b"\x09" + pack("<d", -1.0)),
        binary(b"\x0b"),  # a group
        binary(b"\xff" * 12),
        binary(b"\x42\x05\x0a\x03\xff\xfe\xfd"),
        binary(b"\x42\x09\x11" + bytes(8)),  # no key
        "TEXT eps=1," + " " * LONGEST,
    ],
)  # fmt: skip
def test_what_is_refused(header: str) -> None:
    """A report that is wrong anywhere is refused whole, and nothing of it is quoted."""
    with pytest.raises(ValueError, match=r"^[a-zA-Z0-9, ]+$"):
        parse(header)


def test_an_empty_legacy_header_is_refused() -> None:
    """Envoy EmptyBinaryHeader."""
    with pytest.raises(ValueError, match="an empty message"):
        parse(None, "")


pieces = st.sampled_from(
    ["TEXT ", "JSON ", "BIN ", "cpu_utilization", "named_metrics.", "utilization.x", "=", ":", ",", ", ", "0.5", "1e9",
     "nan", "-1", "{", "}", '"', '{"eps":', "null", "[", OF_GRPC_GO, "\xa0", "\u0661"]
)  # fmt: skip


@given(st.one_of(st.none(), st.text(max_size=200), st.lists(pieces, max_size=12).map("".join)), st.none() | st.text())
@example("JSON " + "[" * 4000, None)
def test_no_header_breaks_the_reader(metrics: str | None, legacy: str | None) -> None:
    """Whatever an endpoint sends, there is a report or a ValueError."""
    try:
        report = parse(metrics, legacy)
    except ValueError:
        return
    assert 0 <= report.cpu_utilization < float("inf")


@given(st.binary(max_size=300))
def test_no_message_breaks_the_reader(message: bytes) -> None:
    """The same for what is in base64."""
    try:
        parse(binary(message))
    except ValueError:
        return


values = st.floats(0, 1e12, allow_subnormal=False)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=",=:"), min_size=1, max_size=20)
reports = st.builds(
    LoadReport,
    cpu_utilization=values,
    mem_utilization=values,
    application_utilization=values,
    rps_fractional=values,
    eps=st.floats(1, 1e12),  # a message that says nothing is empty, and refused as Envoy does
    utilization=st.dictionaries(names, values, max_size=3),
    named_metrics=st.dictionaries(names, values, max_size=3),
)


@pytest.mark.parametrize("form", list(FORMATS))
@given(report=reports)
def test_what_is_written_is_read(form: str, report: LoadReport) -> None:
    """In each form a report comes back as it was, to six digits."""

    def rounded(one: LoadReport) -> object:
        plain = [one.cpu_utilization, one.mem_utilization, one.application_utilization, one.rps_fractional, one.eps]
        groups = [sorted(group.items()) for group in (one.utilization, one.named_metrics)]
        shown = [[(key, f"{value:.6g}") for key, value in group] for group in groups]
        return [f"{value:.6g}" for value in plain], shown

    assert rounded(parse(FORMATS[form](report))) == rounded(report)


def test_json_is_json() -> None:
    """Any reader of JSON reads it, and what is 0 is not in it."""
    form, _, body = FORMATS["json"](LoadReport(cpu_utilization=0.25, named_metrics={"in_flight": 0})).partition(" ")
    assert (form, json.loads(body)) == ("JSON", {"cpu_utilization": 0.25, "named_metrics": {"in_flight": 0}})


def test_metrics_by_name() -> None:
    """The first dot cuts: a name may hold more."""
    report = LoadReport(cpu_utilization=0.5, named_metrics={"a.b": 2}, utilization={"bandwidth": 0.3})
    names = ["cpu_utilization", "named_metrics.a.b", "utilization.bandwidth", "named_metrics.c", "other.x", "nothing"]
    assert [report.metric(name) for name in names] == [0.5, 2, 0.3, 0, 0, 0]
