"""Text filters find what `str.casefold` says, on every engine, also where characters fold oddly."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.activity.listing import Filter, holds_words
from app.settings import Settings
from tests.support.service import start

FOUND = """
query Found($id: ID!, $text: String!) { ticket(id: $id) {
  activities(first: 100, filter: {text: $text, types: [COMMENT]}) { nodes { message } } } }
"""
# The Kelvin sign folds to k, both forms of sharp s to ss, the ligature to f and i.
CHARACTERS = st.sampled_from("aAkKK sSßẞ fiﬁFI İIiı éÉ Σςσ %_'\"\\0 ")
texts = st.text(CHARACTERS, max_size=12)


@given(messages=st.lists(texts, min_size=1, max_size=8), text=texts)
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_a_text_filter_finds_what_casefold_says(
    blank: Settings, messages: list[str], text: str
) -> None:
    async with start(blank) as service:
        client = await service.client()
        ticket_id = await client.create_ticket()
        for message in messages:
            await client.create_activity(ticket_id, message=message)
        document = await client.graphql(FOUND, id=ticket_id, text=text)
    assert "errors" not in document, document
    nodes = document["data"]["ticket"]["activities"]["nodes"]
    words = Filter(text=text).words
    expected = [message for message in messages if holds_words(message.casefold(), words)]
    assert sorted(node["message"] for node in nodes) == sorted(expected)
