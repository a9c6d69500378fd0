"""The integrator: grows the log's tree behind the appends and signs what it has become, by one leader at a time."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any, Final

import orjson
from prometheus_client import Counter, Gauge
from psycopg.types.json import set_json_loads

from events.keyring import Keyring, WrongKey
from events.leadership import Leader, Office
from events.proofs import storage
from events.proofs.checkpoint_topic import CheckpointTopic, checkpoint_topic
from events.proofs.leaves import STORED, hash_of
from events.proofs.merkle import (
    BadProof,
    Frontier,
    check_consistency,
    consistency_nodes,
    consistency_proof,
    root_nodes,
)
from events.proofs.notes import BadCheckpoint, BadNote, Checkpoint, Signer, sign
from events.proofs.storage import Edge, Tree, TreeMoved
from events.proofs.tiles import BadTile
from events.reader import head_position
from runtime.database import Connection
from runtime.failpoints import failpoint
from runtime.pacing import wait_at_most
from runtime.settings import Settings

SIZE = Gauge("muster_tree_size", "Events up to this position are in the tree")
SIGNED = Gauge("muster_checkpoint_size", "Events up to this position are in a signed checkpoint")
CHECKPOINTS = Counter("muster_checkpoints_total", "Checkpoints signed by this process")
INTEGRATING = Gauge("muster_integrator_leading", "1 while this process is the integrator")
HALTED = Gauge("muster_integrator_halted", "1 while the integrator waits for an operator")

# pg_advisory_lock key: any number that nothing else in this database locks
LEADERSHIP: Final = 7_203_316
# events at once: hashing them takes some milliseconds, in which the process does nothing else
BATCH: Final = 250
# between two growths under a steady stream, each of which costs as much as a hundred events do
GATHER: Final = 0.05
# under a steady stream: after a rest the first event is signed at once
SIGN_EVERY: Final = 0.2
# behind a log that was there before the tree, or that grows faster
SIGN_AT_LEAST_EVERY: Final = 1.0
SHORTEST_POLL, LONGEST_POLL = 0.01, 0.1
SEED_BYTES: Final = 32

AFTER: Final = f"SELECT {STORED} FROM log.events WHERE position > %s ORDER BY position LIMIT %s"  # noqa: S608 - a constant


class HistoryChanged(Exception):
    """What the log holds is not what was signed: nothing is signed until an operator has settled it."""


class Integrator(Leader):
    """Grows the tree by what the log has, and signs a checkpoint after each growth, or five times a second.

    A checkpoint is signed only after it was shown to add to the one before, and is known outside the database before it
    is shown to anyone: so none contradicts another, whatever was restored meanwhile. Runs until `stop`.
    """

    office = Office(
        name="integrator",
        lock=LEADERSHIP,
        grave=(HistoryChanged, BadTile, WrongKey),
        passing=(TreeMoved,),
        leading=INTEGRATING,
        halted=HALTED,
    )

    def __init__(self, settings: Settings, keyring: Keyring) -> None:
        super().__init__(settings)
        self._kek = keyring.kek

    async def _lead(self, connection: Connection) -> None:
        set_json_loads(orjson.loads, connection)
        tree = await storage.tree_of(connection)
        if tree is None:
            origin = self._settings.log_origin or f"muster/{secrets.token_hex(8)}"
            await storage.begin_tree(connection, origin, secrets.token_bytes(SEED_BYTES), self._kek)
            tree = await storage.tree_of(connection)
            assert tree is not None  # noqa: S101 - it was just begun
        signer = await storage.signer_of(connection, tree, self._kek)
        async with checkpoint_topic(self._settings) as topic:
            growing = _Growing(connection, tree, signer, topic, await storage.edge_of(connection, tree.size))
            await growing.take_up()
            self._leads(size=growing.size, signed=growing.signed.size if growing.signed else 0)
            await self._follow(growing)

    async def _follow(self, growing: "_Growing") -> None:
        loop = asyncio.get_running_loop()
        poll, signed_at = SHORTEST_POLL, loop.time() - SIGN_EVERY
        while not self._stopping.is_set():
            self._wake.clear()
            grown = await growing.grow(BATCH)
            due = signed_at + (SIGN_EVERY if grown < BATCH else SIGN_AT_LEAST_EVERY) - loop.time()
            if growing.unsigned and due <= 0:
                await growing.sign()
                signed_at, poll = loop.time(), SHORTEST_POLL
            elif grown == BATCH:
                # others of this process have their turn
                await asyncio.sleep(0)
            elif grown:
                # what comes meanwhile is taken in at once: it is shown to nobody before it is signed
                await wait_at_most(self._stopping, min(GATHER, due))
            else:
                await wait_at_most(self._wake, min(poll, due) if growing.unsigned else poll)
                poll = min(poll * 2, LONGEST_POLL)


class _Growing:
    """The tree in the hands of its leader. `signed` is the checkpoint that was signed last."""

    def __init__(self, connection: Connection, tree: Tree, signer: Signer, topic: CheckpointTopic, edge: Edge) -> None:
        self._connection = connection
        self._tree = tree
        self._signer = signer
        self._topic = topic
        self._edge = edge
        self.signed: Checkpoint | None = None

    @property
    def size(self) -> int:
        return self._edge.frontier.size

    @property
    def unsigned(self) -> bool:
        return self.size > (self.signed.size if self.signed is not None else 0)

    async def take_up(self) -> None:
        """Go on from the newest checkpoint that the topic or the database knows. Raises HistoryChanged and BadTile."""
        told = await self._topic.last(self._tree.origin)
        kept = await storage.newest_note(self._connection, self._tree)
        found = [(self._opened(note), note) for note in (told, kept) if note is not None]
        if not found:
            return
        newest, note = max(found, key=lambda pair: pair[0].size)
        head = await head_position(self._connection)
        if head < newest.size:
            raise HistoryChanged(
                f"a checkpoint of {newest.size} events was signed, and the log has {head}: events were lost from it."
                " Restore them, or begin a new tree with `muster proofs begin-anew`"
            )
        while self.size < newest.size:
            await self.grow(min(BATCH, newest.size - self.size))
        for checkpoint, _ in found:
            await self._check_root(checkpoint)
        await storage.keep(self._connection, self._tree, newest, note)
        if note != told:
            await self._topic.remember(self._tree.origin, note)
        self.signed = newest
        SIGNED.set(newest.size)

    async def grow(self, limit: int) -> int:
        """Take up to `limit` more events into the tree; gives how many there were. Raises HistoryChanged."""
        before = self.size
        cursor = await self._connection.execute(AFTER, (before, limit), prepare=True, binary=True)
        rows = await cursor.fetchall()
        if not rows:
            return 0
        tiles = self._edge.grow(_hashes(rows, before))
        failpoint("integrator.before_save")
        await storage.save_growth(self._connection, self._tree, before, self.size, tiles)
        SIZE.set(self.size)
        return len(rows)

    async def sign(self) -> None:
        """Sign the tree as it is, once it is shown to add to what was signed before. Raises HistoryChanged."""
        checkpoint = Checkpoint(self._tree.origin, self.size, self._edge.frontier.root())
        if self.signed is not None:
            await self._check_growth(self.signed, checkpoint)
        note = sign(str(checkpoint), [self._signer]).decode()
        await self._topic.remember(self._tree.origin, note)
        failpoint("integrator.remembered")
        await storage.keep(self._connection, self._tree, checkpoint, note)
        self.signed = checkpoint
        SIGNED.set(checkpoint.size)
        CHECKPOINTS.inc()

    def _opened(self, note: str) -> Checkpoint:
        try:
            return self._tree.opened(note)
        except (BadNote, BadCheckpoint) as error:
            raise HistoryChanged(f"what is kept as the last checkpoint is none that this log signed: {error}") from None

    async def _check_root(self, checkpoint: Checkpoint) -> None:
        node = await storage.nodes_read(self._connection, root_nodes(checkpoint.size), checkpoint.size)
        if Frontier.at(checkpoint.size, node).root() != checkpoint.root:
            raise HistoryChanged(
                f"the log's first {checkpoint.size} events are not those that a checkpoint was signed for:"
                " `muster verify log` says where they differ"
            )

    async def _check_growth(self, first: Checkpoint, second: Checkpoint) -> None:
        nodes = consistency_nodes(first.size, second.size)
        node = await storage.nodes_read(self._connection, nodes, second.size)
        proof = consistency_proof(first.size, second.size, node)
        try:
            check_consistency(first.size, second.size, first.root, second.root, proof)
        except BadProof as error:
            raise HistoryChanged(
                f"the tree of {second.size} events does not add to that of {first.size}: {error}"
            ) from None


def _hashes(rows: Sequence[dict[str, Any]], before: int) -> list[bytes]:
    for expected, row in enumerate(rows, before + 1):
        if row["position"] != expected:
            raise HistoryChanged(f"the log has no event at position {expected}, but one at {row['position']}")
    return [hash_of(row) for row in rows]
