"""Run by alembic: applies the scripts on the connection the server hands over. Never runs offline."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
