"""The read model's tables, declared once: written here, read by the query API, made by migrations and rebuilds."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData(schema="read_model")

# Counts the shapes that the table of users has had; rows are made for this one (projector/rows.py).
SHAPE: Final = 1

# The key of the advisory lock that a rebuild holds while it runs: any number that nothing else in this database locks.
REBUILDING: Final = 7_203_313

users = Table(
    "users",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("email", Text),
    Column("email_canonical", Text(collation="C")),
    Column("display_name", Text),
    Column("status", Text),
    # with fewer statistics, the planner takes a rare role for a common one and walks a sort order
    Column("roles", ARRAY(Text), info={"statistics": 1000}),
    Column("attributes", JSONB),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("password_changed_at", DateTime(timezone=True)),
    Column("deleted_at", DateTime(timezone=True)),
    Column("version", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    CheckConstraint(
        "deleted_at IS NOT NULL OR (email IS NOT NULL AND email_canonical IS NOT NULL AND status IS NOT NULL"
        " AND roles IS NOT NULL AND attributes IS NOT NULL)",
        name="users_check",
    ),
    comment="a deleted user stays as a row without personal data, so that 410 differs from 404",
    # room for a row's next version beside it, which then needs no new entry in the indexes
    info={"fillfactor": 85},
)
_living = users.c.deleted_at.is_(None)
Index("users_created_at_idx", users.c.created_at, users.c.id, postgresql_where=_living)
Index("users_email_idx", users.c.email_canonical, users.c.id, postgresql_where=_living)
# a rare status is found by its own rows, not by walking a sort order
Index("users_disabled_idx", users.c.id, postgresql_where=_living & (users.c.status != "active"))
Index("users_roles_idx", users.c.roles, postgresql_using="gin", postgresql_where=_living)
Index(
    "users_email_part_idx",
    func.read_model.folded(users.c.email).label("email_part"),
    postgresql_using="gin",
    postgresql_ops={"email_part": "gin_trgm_ops"},
    postgresql_where=_living,
)

# What changes often has tables of its own: an index of it on the table of users would have every change put into all of
# that one's indexes. read_model.put and read_model.project write them with the rows.

# The order by update, which each change alters. Its rows lie nearly in that order, so that a list by status or role
# reads many of them at once.
users_updated = Table(
    "users_updated",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("updated_at", DateTime(timezone=True)),
    Column("status", Text),
    Column("roles", ARRAY(Text)),
    comment="the order of users by their last update; no time: the user is deleted",
)
Index(
    "users_updated_order_idx",
    users_updated.c.updated_at,
    users_updated.c.id,
    postgresql_where=users_updated.c.updated_at.is_not(None),
)
users_names = Table(
    "users_names",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("name", Text),
    comment="display names as q looks for them, after a blank; none: the user has none, or is deleted",
)
Index("users_names_idx", users_names.c.name, postgresql_using="gin", postgresql_ops={"name": "gin_trgm_ops"})

# A partition has reached a position when its applied events go that far, or when the relay has published that far and
# the projector stands at the end of what was published: so partitions without traffic hold nobody up. Offsets of
# different epochs do not compare. p: its row of progress, r: of log.publication for the events topic, or nothing.
REACHED: Final = """CASE WHEN p.next_offset >= r.next_offset AND p.epoch = r.epoch
            THEN greatest(p.position, r.position) ELSE coalesce(p.position, 0) END"""

progress = Table(
    "progress",
    metadata,
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("moved_at", DateTime(timezone=True), nullable=False),
    Column("epoch", Integer, nullable=False),
)
