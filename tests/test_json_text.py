"""What is written as JSON is read back as the same value."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.json_text import encode_json, parse_json

strings = st.text(st.characters() | st.sampled_from('"\\\0\ud800\udfff/\u2028'), max_size=8)
integers = st.integers(-(2**70), 2**70) | st.sampled_from([0, 2**63 - 1, 2**63, -(2**63), 10**17])


def exact(value: object) -> object:
    """Make a value comparable that tells types, members in their order, and -0.0 apart."""
    if isinstance(value, dict):
        return [(name, exact(item)) for name, item in value.items()]
    if isinstance(value, list):
        return [exact(item) for item in value]
    sign = math.copysign(1, value) if isinstance(value, float) else None
    return type(value).__name__, value, sign


def test_bytes_that_are_no_text_are_refused_with_their_place() -> None:
    with pytest.raises(InvalidInput, match="not valid UTF-8 at byte 1"):
        parse_json(b'"\xff"', "It")


finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | integers | strings | finite,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=500)
@given(value=json_values)
def test_what_is_written_is_read_back_as_the_same(value: object) -> None:
    assert exact(json.loads(encode_json(value))) == exact(value)
