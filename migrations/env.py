"""Runs migrations on the connection that ammeter.store.migrate hands over, each in its own transaction."""

from alembic import context

given = context.config.attributes
context.configure(
    connection=given["connection"],
    transactional_ddl=True,
    transaction_per_migration=True,
    on_version_apply=given.get("applied"),
)
context.run_migrations()
