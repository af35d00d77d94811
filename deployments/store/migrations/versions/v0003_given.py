"""Pictures that jobs brought."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "given",
        sa.Column("job", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("role", "digest")),
        sa.Column("bytes_n", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("width", "height")),
        sa.Column("key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job", "role"),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], ondelete="CASCADE"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("given_by_digest", "given", ["digest"], unique=False)
