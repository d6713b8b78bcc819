"""JSON is read and written by a fast library wherever it does what the strict decoder does."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.json_text import _parse_slowly, encode_json, parse_json

strings = st.text(st.characters() | st.sampled_from('"\\\0\ud800\udfff/\u2028'), max_size=8)
integers = st.integers(-(2**70), 2**70) | st.sampled_from([0, 2**63 - 1, 2**63, -(2**63), 10**17])
numerals = st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?\Z")
spaces = st.sampled_from(["", " ", "\n", "\t", "\r"])


@st.composite
def texts(draw: st.DrawFn, depth: int = 3) -> str:
    """JSON texts, with all the ways to write a value, and duplicate names."""
    kinds = ["string", "integer", "numeral", "word", "raw"] + (["list", "object"] if depth else [])
    before, after = draw(spaces), draw(spaces)
    match draw(st.sampled_from(kinds)):
        case "string":
            text = json.dumps(draw(strings), ensure_ascii=draw(st.booleans()))
        case "integer":
            text = str(draw(integers))
        case "numeral":
            text = draw(numerals)
        case "word":
            text = draw(st.sampled_from(["true", "false", "null"]))
        case "raw":
            text = draw(st.sampled_from(["NaN", "-Infinity", "-0", "-0.0", "01", "1.", "'a'", ""]))
        case "list":
            items = draw(st.lists(texts(depth - 1), max_size=3))
            text = f"[{','.join(items)}]"
        case _:
            names = st.sampled_from(["a", "b", "", "1e5", "é"])
            pairs = draw(st.lists(st.tuples(names, texts(depth - 1)), max_size=4))
            members = [f"{json.dumps(name)}{before}:{value}" for name, value in pairs]
            text = f"{{{','.join(members)}}}"
    return before + text + after


def outcome(parse: Any, text: str) -> object:
    try:
        return exact(parse(text, "It"))
    except InvalidInput as error:
        return error.message


def exact(value: object) -> object:
    """Make a value comparable that tells types, members in their order, and -0.0 apart."""
    if isinstance(value, dict):
        return [(name, exact(item)) for name, item in value.items()]
    if isinstance(value, list):
        return [exact(item) for item in value]
    sign = math.copysign(1, value) if isinstance(value, float) else None
    return type(value).__name__, value, sign


@settings(max_examples=1500, deadline=None)
@given(text=texts())
@example(text='{"a": 1e-400}')
@example(text="[" * 2000)
@example(text="-0")
@example(text="[18446744073709551616]")
@example(text='"\\ud800"')
@example(text="9" * 5000)
def test_every_text_is_read_as_the_strict_decoder_reads_it(text: str) -> None:
    assert outcome(parse_json, text) == outcome(_parse_slowly, text)


def test_bytes_that_are_no_text_are_refused_with_their_place() -> None:
    with pytest.raises(InvalidInput, match="not valid UTF-8 at byte 1"):
        parse_json(b'"\xff"', "It")


finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | integers | strings | finite,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=500, deadline=None)
@given(value=json_values)
def test_what_is_written_is_read_back_as_the_same(value: object) -> None:
    assert exact(json.loads(encode_json(value))) == exact(value)
