"""Whether a text holds words in any case, as `str.casefold` of Python folds it, on each engine.

SQLite folds ASCII itself. For other texts it calls `casefold`; each call waits for the interpreter
lock and makes the event loop wait for it, so a search of a long timeline must do without most.
PostgreSQL has no such function before release 18, and its own would be of another version of
Unicode: so the statement names the folds that matter for the words, which are few: those of
characters whose fold has one of the words' characters in it.
"""

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    LargeBinary,
    and_,
    case,
    cast,
    collate,
    false,
    func,
    literal,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from app.store.parameters import Condition


class _HoldsWords(Condition):
    """Its text depends on the words, so it is compiled each time."""

    inherit_cache = False
    words: Sequence[str]


def holds_words(text: Column[Any], words: Sequence[str]) -> ColumnElement[bool]:
    """Whether a text holds every word; the words are folded."""
    element = _HoldsWords(text)
    element.words = words
    return element


@compiles(_HoldsWords, "sqlite")
def _holds_words_on_sqlite(element: _HoldsWords, compiler: SQLCompiler, **options: Any) -> str:
    [text] = element.clauses
    is_ascii = func.length(text) == func.length(cast(text, LargeBinary))
    found = case(
        (text.is_(None), false()),
        (is_ascii, _holds_in_ascii(text, element.words)),
        else_=func.holds_words(text, " ".join(element.words)) == 1,
    )
    return compiler.process(found, **options)


def _holds_in_ascii(text: Any, words: Sequence[str]) -> ColumnElement[bool]:
    """Whether an ASCII text holds the words: SQLite's `lower` folds it as `casefold` does."""
    if not all(map(str.isascii, words)):
        return false()
    return and_(*(func.instr(func.lower(text), word) > 0 for word in words))


@compiles(_HoldsWords, "postgresql")
def _holds_words_on_postgresql(element: _HoldsWords, compiler: SQLCompiler, **options: Any) -> str:
    [text] = element.clauses
    folded = _folded(text, set("".join(element.words)))
    # Compared byte by byte, whatever the collation of the database.
    found = [func.strpos(collate(folded, "C"), word) > 0 for word in element.words]
    return compiler.process(and_(*found), **options)


def _folded(text: Any, wanted: set[str]) -> Any:
    """Return the text with every character folded that matters to find the wanted ones."""
    folds = {one: fold for one, fold in _folds().items() if wanted & set(fold)}
    for one, fold in folds.items():
        if len(fold) > 1:
            text = func.replace(text, literal(one), literal(fold))
    single = {one: fold for one, fold in folds.items() if len(fold) == 1}
    if not single:
        return text
    return func.translate(text, literal("".join(single)), literal("".join(single.values())))


@cache
def _folds() -> dict[str, str]:
    """Return every character that is not its own fold, with its fold."""
    characters = map(chr, range(sys.maxunicode + 1))
    return {one: fold for one in characters if (fold := one.casefold()) != one}
