"""The command `schema`."""

import argparse

from app.graphql.schema import print_schema


def print_sdl(_options: argparse.Namespace) -> None:
    print(print_schema(), end="")
