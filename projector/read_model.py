"""The read model's tables, declared once: written here, read by the query API, made by the migrations."""

from typing import Final

from sqlalchemy import BigInteger, Column, Computed, DateTime, Integer, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData(schema="read_model")

# Counts the shapes that the table of users has had; rows are made for this one (projector/rows.py).
SHAPE: Final = 1

users = Table(
    "users",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("email", Text),
    Column("email_canonical", Text(collation="C")),
    Column("display_name", Text),
    Column("status", Text),
    Column("roles", ARRAY(Text)),
    Column("attributes", JSONB),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("password_changed_at", DateTime(timezone=True)),
    Column("deleted_at", DateTime(timezone=True)),
    Column("version", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column(
        "search",
        Text,
        Computed("lower(normalize(coalesce(email, '') || ' ' || coalesce(display_name, ''), NFC))", persisted=True),
    ),
)

progress = Table(
    "progress",
    metadata,
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("moved_at", DateTime(timezone=True), nullable=False),
    Column("epoch", Integer, nullable=False),
)
