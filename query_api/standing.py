"""Where the read model stands in the log, as the database tells it: in short for every read, and in full."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from events.partitioning import partition_of
from projector.read_model import REACHED, REBUILDING
from runtime.database import Connection, Row

# how many events are looked through for the first one of a partition that is missing
SCANNED: Final = "10000"

# %s: the number of partitions if the log does not say it, and the events topic
STANDS: Final = f"""
    SELECT n.partition, t.partitions, coalesce(r.position, 0) AS published, r.published_at,
        coalesce(p.position, 0) AS applied, p.moved_at,
        r.partition IS NOT NULL AND (p.next_offset >= r.next_offset AND p.epoch = r.epoch) IS NOT TRUE AS waits,
        {REACHED} AS reached
    FROM (SELECT coalesce((SELECT a.partitions FROM log.partitioning a), %s) AS partitions) t
    CROSS JOIN generate_series(0, t.partitions - 1) AS n (partition)
    LEFT JOIN read_model.progress p ON p.partition = n.partition
    LEFT JOIN log.publication r ON r.topic = %s AND r.partition = n.partition
"""  # noqa: S608 - constants
GLANCE: Final = f"""
SELECT json_agg(s.reached ORDER BY s.partition) AS reached,
    EXISTS (SELECT 1 FROM read_model.parked WHERE build IS NULL AND user_id IS NOT NULL)
        OR EXISTS (SELECT 1 FROM log.parked) AS holds
FROM ({STANDS}) s
"""  # noqa: S608 - constants
# Users who are held back, and the first position of theirs that is.
HELD: Final = """
SELECT h.user_id, h.position
FROM (
    SELECT k.user_id, (
        SELECT e.position FROM log.events e
        WHERE e.user_id = k.user_id
            AND e.version >= greatest(k.version, (SELECT u.version + 1 FROM read_model.users u WHERE u.id = k.user_id))
            AND NOT EXISTS (SELECT 1 FROM log.discarded d WHERE d.position = e.position)
        ORDER BY e.version LIMIT 1) AS position
    FROM (
        SELECT a.user_id, min(a.version) AS version
        FROM (
            SELECT user_id, version FROM read_model.parked WHERE build IS NULL AND user_id IS NOT NULL
            UNION ALL SELECT user_id, version FROM log.parked) a
        GROUP BY a.user_id) k) h
WHERE h.position IS NOT NULL
"""
# Exact also while a partition lags: it has reached what is before the first of its events that is missing.
STANDING: Final = f"""
SELECT clock_timestamp() AS at, h.position AS head, s.partition, s.published, s.published_at, s.applied, s.moved_at,
    s.waits, x.reached,
    (SELECT e.recorded_at FROM log.events e WHERE e.position = x.reached + 1) AS waiting_since,
    (SELECT e.recorded_at FROM log.events e WHERE e.position = s.published + 1) AS unpublished_since,
    held.live, held.relay, held.users, held.records, b.phase, b.shape, b.started_at,
    b.running
FROM log.head h
CROSS JOIN ({STANDS}) s
CROSS JOIN LATERAL (
    SELECT greatest(s.reached, coalesce((
        SELECT w.position - 1
        FROM (
            SELECT e.position, e.user_id FROM log.events e WHERE e.position > s.reached
            ORDER BY e.position LIMIT {SCANNED}) w
        WHERE crc32(convert_to(w.user_id::text, 'UTF8')) %% s.partitions = s.partition
        ORDER BY w.position LIMIT 1
    ), least(h.position, s.reached + {SCANNED}))) AS reached
    -- once, not wherever it is used
    OFFSET 0) x
CROSS JOIN (
    SELECT count(*) FILTER (WHERE k.place = 'live') AS live, count(*) FILTER (WHERE k.place = 'relay') AS relay,
        count(DISTINCT k.user_id) AS users, count(*) FILTER (WHERE k.user_id IS NULL) AS records
    FROM (
        SELECT CASE WHEN user_id IS NOT NULL THEN 'live' END AS place, user_id
        FROM read_model.parked WHERE build IS NULL
        UNION ALL SELECT 'relay', user_id FROM log.parked) k) held
LEFT JOIN (
    SELECT phase, shape, started_at, EXISTS (
        SELECT 1 FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = %s AND l.objsubid = 1
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS running
    FROM read_model.builds WHERE state = 'building') b ON true
ORDER BY s.partition
"""  # noqa: S608 - constants
PROJECTORS: Final = """
SELECT instance, state, problem, partitions, rate, moved_at,
    extract(epoch FROM clock_timestamp() - seen_at)::double precision AS seen
FROM read_model.projectors ORDER BY instance
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """`reached` by partition; `held` has the first position of each user that is held back from the model."""

    reached: Sequence[int]
    held: Mapping[UUID, int]

    def reached_for(self, user_id: UUID | None) -> int:
        """The position that the user's partition has reached, or for None all of them."""
        return min(self.reached) if user_id is None else self.reached[partition_of(user_id, len(self.reached))]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStanding:
    """Positions. No event of the partition up to `reached` is missing in the model; `applied` is what is noted as such.

    `waits`: the topic has records that are not applied. `waiting_since`: when the event after `reached` was recorded,
    `unpublished_since` the one after `published`.
    """

    partition: int
    published: int
    published_at: datetime | None
    applied: int
    reached: int
    moved_at: datetime | None
    waits: bool
    waiting_since: datetime | None
    unpublished_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorSeen:
    """What a projector said of itself `seen` seconds ago; `rate` in events a second."""

    instance: str
    state: str
    problem: str | None
    partitions: Sequence[int]
    rate: float
    seen: float
    moved_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """Users held back from the live table by the projector, from the topics by the relay, and either of them.

    `records` of the topic are set aside and hold nobody back.
    """

    projector: int = 0
    relay: int = 0
    users: int = 0
    records: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A table that `muster rebuild` makes beside the live one, or has left unfinished."""

    running: bool
    phase: str
    shape: int
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All times, and `at`, are of the database's clock."""

    at: datetime
    head: int
    partitions: Sequence[PartitionStanding]
    projectors: Sequence[ProjectorSeen]
    parked: Parked
    build: Build | None


async def read_glance(connection: Connection, topic: str, partitions: int) -> Glance:
    """`partitions` counts if the log does not say how many there are."""
    row = (await (await connection.execute(GLANCE, (partitions, topic), prepare=True)).fetchall())[0]
    held: list[Row] = []
    if row["holds"]:
        # a plan that was made while the tables were small would be kept
        held = await (await connection.execute(HELD, prepare=False)).fetchall()
    return Glance(reached=row["reached"], held={user["user_id"]: user["position"] for user in held})


async def read_standing(connection: Connection, topic: str, partitions: int) -> Standing:
    """As `read_glance`, in full."""
    projectors = await (await connection.execute(PROJECTORS, prepare=False)).fetchall()
    rows = await (await connection.execute(STANDING, (partitions, topic, REBUILDING), prepare=False)).fetchall()
    first = rows[0]
    return Standing(
        at=first["at"],
        head=first["head"],
        partitions=[_partition(row) for row in rows],
        projectors=[_projector(row) for row in projectors],
        parked=Parked(projector=first["live"], relay=first["relay"], users=first["users"], records=first["records"]),
        build=None
        if first["phase"] is None
        else Build(
            running=first["running"],
            phase=first["phase"],
            shape=first["shape"],
            started_at=first["started_at"].astimezone(UTC),
        ),
    )


def _partition(row: Row) -> PartitionStanding:
    return PartitionStanding(
        partition=row["partition"],
        published=row["published"],
        published_at=row["published_at"],
        applied=row["applied"],
        reached=row["reached"],
        moved_at=_in_utc(row["moved_at"]),
        waits=row["waits"],
        waiting_since=row["waiting_since"],
        unpublished_since=row["unpublished_since"],
    )


def _projector(row: Row) -> ProjectorSeen:
    row["moved_at"] = _in_utc(row["moved_at"])
    return ProjectorSeen(**row)


def _in_utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
