"""The command `actor set`."""

import argparse
import asyncio
from functools import partial

from app.activity.actors import ActorUpdate
from app.activity.state import ABSENT
from app.activity.values import utc_now
from app.commands.databases import with_database
from app.environment import read_settings
from app.errors import InvalidInput, OperatorError
from app.store.actors import upsert_actors


def set_actor(options: argparse.Namespace) -> None:
    if options.name is options.avatar_url is ABSENT:
        raise OperatorError("Give --name, --avatar-url or both.")
    update = ActorUpdate(options.id, options.name, options.avatar_url)
    try:
        update.check()
    except InvalidInput as error:
        raise OperatorError(error.message) from None
    setting = partial(upsert_actors, updates=[update], now=utc_now())
    [actor] = asyncio.run(with_database(read_settings(), lambda database: database.write(setting)))
    print(f"{actor.id}  {actor.name or '-'}  {actor.avatar_url or '-'}")
