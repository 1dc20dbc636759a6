"""Whose a token is, what it is limited to, what replaced it, and when it was used last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds columns; the release before goes on as if they were not there."""
    op.add_column("token", sa.Column("owner", sa.Text(), nullable=False, server_default=""))
    op.add_column("token", sa.Column("projects", sa.JSON(none_as_null=True)))
    op.add_column("token", sa.Column("successor_id", sa.Text(), nullable=False, server_default=""))
    op.add_column("token", sa.Column("last_use_time", sa.DateTime(timezone=True)))
