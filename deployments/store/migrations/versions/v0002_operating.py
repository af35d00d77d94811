"""What operators look at: sums of what was served, when keys were used, jobs by state, ratings by time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

SUMS = ("cost_usd", "work_s", "latency_s", "expected", "expected_checked", "verified")


def upgrade() -> None:
    op.create_table(
        "served",
        sa.Column("at", sa.Double(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "policy", "recipe", "state")),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("jobs", "pictures", "checked")),
        *(sa.Column(name, sa.Double(), nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("at", "tenant", "policy", "recipe", "state"),
    )
    op.create_index("jobs_by_state", "jobs", ["state", "created_at", "id"], unique=False)
    op.create_index("feedback_by_source", "feedback", ["source", "at_s"], unique=False)
    op.add_column("keys", sa.Column("prefix", sa.Text(), nullable=True))
    op.add_column("keys", sa.Column("last_used_at", sa.Double(), nullable=True))
