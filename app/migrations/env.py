"""Alembic's entry point: migrates over the connection it is handed by `app.store.migrate`."""

from alembic import context
from sqlmodel import SQLModel

import app.models

_ = app.models  # the tables are in the metadata once this is imported

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
)
context.run_migrations()
