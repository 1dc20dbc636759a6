"""Cycles with what belongs to them, releases, tokens; a project's reason and release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds tables and columns; the release before goes on as if they were not there."""
    for name in ("mode_reason", "release_id"):
        column = sa.Column(name, sa.Text(), nullable=False, server_default="")
        op.add_column("project", column)
    op.create_table(
        "cycle",
        sa.Column("cycle_id", sa.Text(), primary_key=True),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True)),
        sa.Column("rollback_time", sa.DateTime(timezone=True)),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=False),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.Column("lease_boot", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.Column("cancellation", sa.JSON()),
        sa.Column("decision", sa.JSON()),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_index("cycle_by_project", "cycle", ["project_id", "cycle_id"])
    active = sa.text("state != 'ended'")
    op.create_index(
        "cycle_active",
        "cycle",
        ["project_id"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )
    rolled_back = sa.text("rollback_time IS NOT NULL")
    op.create_index(
        "cycle_rolled_back",
        "cycle",
        ["project_id", "rollback_time"],
        sqlite_where=rolled_back,
        postgresql_where=rolled_back,
    )
    op.create_table(
        "cycle_change",
        sa.Column("cycle_id", sa.Text(), primary_key=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "cycle_step",
        sa.Column("cycle_id", sa.Text(), primary_key=True),
        sa.Column("step", sa.Text(), primary_key=True),
        sa.Column("log_tail", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "release",
        sa.Column("project_id", sa.Text(), primary_key=True),
        sa.Column("release_id", sa.Text(), primary_key=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
    )
    op.create_table(
        "test_report",
        sa.Column("project_id", sa.Text(), primary_key=True),
        sa.Column("cycle_id", sa.Text(), primary_key=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "pull_request",
        sa.Column("project_id", sa.Text(), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("cycle_id", sa.Text(), nullable=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("head", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("merge_commit", sa.Text(), nullable=False),
    )
    op.create_index(
        "pull_request_by_cycle", "pull_request", ["project_id", "cycle_id"], unique=True
    )
    op.create_table(
        "token",
        sa.Column("token_id", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True)),
        sa.Column("revoke_time", sa.DateTime(timezone=True)),
    )
