"""What counts as a change between runs, and what is noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unsticky.statelessness.oracle import compare, shown
from unsticky.statelessness.responses import Response, content, cookies


def of_json(value: Any, status: int = 200, **headers: str) -> Response:
    given = [(name.replace("_", "-"), text) for name, text in headers.items()]
    return Response(status, (("content-type", "application/json"), *given), json.dumps(value).encode())


def of_text(text: str) -> Response:
    return Response(200, (("content-type", "text/html"),), text.encode())


def found(control: Sequence[Response], again: Sequence[Response], experiment: Sequence[Response]) -> list[str]:
    return [shown(one.path) for one in compare(control, again, experiment).differences]


def test_the_same_responses_are_the_same() -> None:
    run = [of_json({"a": [1, {"b": None}]}), of_text("<p>hello</p>")]
    assert found(run, run, run) == []


@pytest.mark.parametrize(
    ("changed", "leaf"),
    [
        (of_json({"a": 2, "b": [1]}), "body.a"),
        (of_json({"a": 1, "b": []}), "the length of body.b"),
        (of_json({"a": 1, "b": [1]}, 404), "status"),
        (of_json({"a": 1, "b": [1]}, x_page="2"), "header x-page"),
        (of_json({"a": 1, "b": [1]}, set_cookie="who=1; Path=/"), "cookie who"),
        (of_json({"a": 1}), "the length of body.b"),
        (Response(failure="the app raised KeyError"), "status"),
    ],
)
def test_what_differs_is_named(changed: Response, leaf: str) -> None:
    control = [of_json({"a": 1, "b": [1]})]
    assert leaf in found(control, control, [changed])


def test_a_nonce_is_new_each_time_in_all_runs() -> None:
    runs = [[of_json({"id": f"{run}-{turn}"}) for turn in range(3)] for run in range(3)]
    assert found(*runs) == []


def test_what_a_process_made_once_changes_with_the_process() -> None:
    control = [of_json({"salt": "a"}) for _ in range(3)]
    again = [of_json({"salt": "b"}) for _ in range(3)]
    experiment = [of_json({"salt": salt}) for salt in "cde"]
    assert found(control, again, experiment) == ["body.salt", "body.salt"]


def test_a_token_that_comes_back_later_must_come_back_later() -> None:
    def run(token: str, later: str) -> list[Response]:
        return [of_json({"token": token}), of_json({"yours": later})]

    assert found(run("a", "a"), run("b", "b"), run("c", "c")) == []
    assert found(run("a", "a"), run("b", "b"), run("c", "d")) == ["body.yours"]


def test_noise_that_repeats_by_chance_in_one_control_is_no_pattern() -> None:
    runs = [[of_json({"dice": dice}) for dice in thrown] for thrown in ((1, 1, 2), (3, 4, 5), (6, 7, 8))]
    assert found(*runs) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (of_json(["a", "b", "c"]), of_json(["c", "a", "b"])),
        (of_json({"tags": "a b c"}), of_json({"tags": "c b a"})),
        (of_text("a, b"), of_text("b, a")),
        (of_json([{"n": 1}, {"n": 2}]), of_json([{"n": 2}, {"n": 1}])),
    ],
)
def test_order_that_differs_between_the_controls_means_nothing(one: Response, other: Response) -> None:
    assert found([one, one], [other, other], [other, one]) == []


def test_the_order_of_a_set_is_noise_beside_what_is_random() -> None:
    def page(seed: int, number: int) -> Response:
        return of_text(f"<p n=x{seed}y{number}>{', '.join(ORDERS[seed])}</p>")

    def objects(seed: int, number: int) -> Response:
        return of_json([{"name": name, "id": f"{seed}-{number}-{name}"} for name in ORDERS[seed]])

    def lines(seed: int, number: int) -> Response:
        return of_text(f"nonce x{seed}y{number}\n" + "\n".join(f"<li>{name}</li>" for name in ORDERS[seed]))

    def header(seed: int, number: int) -> Response:
        return of_json(1, allow_tags=", ".join(ORDERS[seed]), x_id=f"{seed}-{number}")

    for response in (page, objects, lines, header):
        runs = [[response(seed, 10 * run + turn) for turn, seed in enumerate(order)] for run, order in enumerate(RUNS)]
        assert found(*runs) == []


ORDERS = {1: ("ann", "bob", "cid"), 2: ("cid", "ann", "bob"), 3: ("bob", "cid", "ann")}
RUNS = ((1, 1, 1), (2, 2, 2), (1, 2, 3))  # the hash seed of each request's replica


def test_a_member_that_only_one_replica_has_counts_in_any_order() -> None:
    def run(*orders: Sequence[str]) -> list[Response]:
        return [
            of_json([{"name": name, "id": f"{id(orders)}{name}{turn}"} for name in order], tags=", ".join(order))
            for turn, order in enumerate(orders)
        ]

    control, again = run(ORDERS[1], ORDERS[1]), run(ORDERS[2], ORDERS[2])
    assert "header tags" in found(control, again, run(ORDERS[2], ("ann", "cid")))
    assert "the length of body" in found(control, again, run(ORDERS[2], ("ann", "cid")))
    assert "header tags" in found(control, again, run(ORDERS[2], ("ann", "dan", "cid")))
    assert "body[1].name" in found(control, again, run(ORDERS[2], ("ann", "dan", "cid")))


def test_shards_by_the_hash_seed_are_no_order() -> None:
    def run(*shards: Sequence[int]) -> list[Response]:
        return [of_json([{"shard": shard} for shard in given]) for given in shards]

    one, two = (0, 1, 2, 0, 1), (2, 0, 0, 1, 0)
    assert found(run(one, one), run(two, two), run(one, two)) != []


def test_order_that_is_the_same_in_the_controls_counts() -> None:
    assert found([of_json([1, 2])], [of_json([1, 2])], [of_json([2, 1])]) == ["body[0]", "body[1]"]


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-26T16:00:{:02}Z", "2026-11-26 16:00:{:02}.123+01:00", "Thu, 26 Nov 2026 16:00:{:02} GMT",
        "17641728{:02}", "17641728{:02}.25", "17641728{:02}123", "<object at 0x7f00aa00bb{:02}>",
    ],
)  # fmt: skip
def test_times_and_addresses_are_masked(text: str) -> None:
    runs = [[of_json({"v": text.format(number)}), of_text(text.format(number))] for number in (10, 10, 11)]
    assert found(*runs) == []


def test_a_number_that_is_no_time_counts() -> None:
    assert found([of_json(1764)], [of_json(1764)], [of_json(1765)]) == ["body"]


def test_a_status_that_the_controls_disagree_on_says_nothing() -> None:
    comparison = compare([of_json(1)], [of_json(1, 500)], [of_json(2)])
    assert comparison.unstable == (0,)
    assert comparison.differences == ()


def test_cookies_are_named_set_and_cleared_their_values_are_opaque() -> None:
    def response(header: str) -> Response:
        return Response(200, (("set-cookie", header),))

    one, other = response("who=abc; Path=/; HttpOnly"), response("who=xyz; Path=/; HttpOnly")
    assert found([one], [one], [other]) == []
    assert found([one], [one], [response("who=; Path=/; HttpOnly; Max-Age=0")]) == ["cookie who"]
    assert dict(cookies(response("who=; Max-Age=0"))) == {"who": None}
    assert dict(cookies(one)) == {"who": "abc"}


def test_what_is_no_text_is_compared_whole() -> None:
    image = Response(200, (("content-type", "image/png"),), b"\x00\x01")
    assert isinstance(content(image), str)
    other = Response(200, (("content-type", "image/png"),), b"\x00\x02")
    assert found([image], [image], [other]) == ["body"]


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["a", "b", "2026-01-01T00:00:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # not of a machine that others use
@given(st.lists(values, min_size=1, max_size=4))
def test_a_run_never_differs_from_itself(given: list[Any]) -> None:
    run = [of_json(value) for value in given]
    assert found(run, run, run) == []


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # not of a machine that others use
@given(st.lists(values, min_size=1, max_size=3), st.lists(values, min_size=1, max_size=3), st.lists(values, min_size=1))
def test_any_responses_can_be_compared(one: list[Any], other: list[Any], third: list[Any]) -> None:
    count = min(len(one), len(other), len(third))
    runs = [[of_json(value) for value in run[:count]] for run in (one, other, third)]
    compare(*runs)


def test_cookies_are_read_as_browsers_read_them() -> None:
    given = ['prefs={"user":"ann"}; Path=/', "my[sid]=abc; Partitioned", "gone=; expires=Thu, 01 Jan 1970 00:00:00 GMT"]
    response = Response(200, tuple(("set-cookie", header) for header in given))
    assert dict(cookies(response)) == {"prefs": '{"user":"ann"}', "my[sid]": "abc", "gone": None}


def test_headers_that_are_sets_have_no_order() -> None:
    def response(allow: str) -> Response:
        return Response(405, (("allow", allow),))

    runs = [response("GET, PUT"), response("GET, PUT"), response("PUT, GET")]
    assert found(*([run] for run in runs)) == []
    assert found([runs[0]], [runs[0]], [response("GET")]) == ["header allow"]


def test_a_large_text_is_compared_by_lines() -> None:
    text = "\n".join(f"line {number} of a long text" for number in range(20_000))
    assert found([of_text(text)], [of_text(text)], [of_text(text.replace("line 7 ", "line x "))]) == ["body[7][0]"]
