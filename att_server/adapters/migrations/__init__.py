"""The history of the state store's schema, run by Alembic.

To change the schema: change `state_schema.py`, add `versions/vNNNN_what.py` with
the next revision number, and raise `SCHEMA_VERSION`. Within one release a
migration only adds, and what went out of use is removed a release later; so the
release before still reads the database. Where it cannot, the migration raises
`min_reader` in the table `meta` to the lowest schema version that can.

Imported only when there is something to migrate: Alembic costs memory and time.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config


def upgrade(connection: sa.Connection) -> None:
    """Brings the database to the newest schema, within the connection's transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
