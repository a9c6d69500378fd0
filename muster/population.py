"""The people whom `muster seed` makes and what becomes of them: the same for the same seed, whoever asks."""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, Literal, TypeVar, assert_never
from uuid import UUID

from command_api.decide import ChangeUser, CreateUser, DeleteUser, decide
from events.user import EventId, Status, User, UserEvent, UserId

T = TypeVar("T")

# everything happens within this year, evenly
BEGAN: Final = datetime(2025, 1, 1, tzinfo=UTC)
LASTS: Final = timedelta(days=365)
# even, so that each block but the last has exactly half as many further events as users
BLOCK: Final = 4_000
DELETED: Final = 0.02
DISABLED: Final = 0.03
NAMELESS: Final = 0.02

GIVEN_NAMES: Final = (
    "Ada Alan Amara Anita Arjun Astrid Barbara Björn Carlos Chen Chloé Dana Dmitri Edsger Elif Emeka Fatima Femke Grace"
    " Hana Hiro Ines Ivan Jamal Jürgen Karen Katherine Kofi Leila Linus Lucía Mads Mei Miriam Nadia Niklaus Noor Oksana"
    " Olu Pablo Priya Radia Ravi Sana Tim Tomoko Ursula Wei Yusuf Zoë"
)
FAMILY_NAMES: Final = (
    "Abbott Adeyemi Andersen Bauer Becker Boucher Castro Cohen Costa Dijkstra Diaz Eriksson Fischer Fontaine García"
    " Haddad Hamilton Hansen Hopper Ivanova Jansen Johnson Kaya Khan Kim Kowalska Kumar Lamarr Lovelace Martin Mbeki"
    " Meyer Moreau Müller Nakamura Nguyen Novak Okafor Olsen Park Perlman Rossi Sato Schmidt Silva Singh Tanaka Turing"
    " Vargas Wang Weber Wirth Yilmaz Zhang"
)
GIVEN: Final = GIVEN_NAMES.split()
FAMILY: Final = FAMILY_NAMES.split()
DOMAINS: Final = ("example.com", "example.org", "example.net")
TEAMS: Final = ("engines", "finance", "legal", "operations", "people", "research", "sales", "support")
SITES: Final = ("Berlin", "Lagos", "Lima", "Oslo", "Paris", "Pune", "Tokyo", "Toronto")
ROLES: Final[tuple[tuple[str, ...], ...]] = (
    ("user",),
    ("operator", "user"),
    ("auditor", "user"),
    ("editor", "user"),
    ("admin", "user"),
)
ROLES_OF_1000: Final = (900, 50, 30, 15, 5)
Change = Literal["attributes", "display_name", "roles", "status", "email"]
CHANGES: Final[tuple[Change, ...]] = ("attributes", "display_name", "roles", "status", "email")
CHANGES_OF_100: Final = (50, 20, 15, 8, 7)
Kind = Literal["create", "update", "delete"]
KINDS: Final[tuple[Kind, ...]] = ("create", "update", "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """`users` users, numbered from `first` on, and half as many further events.

    No two populations whose numbers do not overlap share an id or an e-mail address.
    """

    seed: int
    first: int
    users: int

    @property
    def events(self) -> int:
        return self.users + self.users // 2

    @property
    def blocks(self) -> int:
        return math.ceil(self.users / BLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """A decided event; `request` is the id of the request that would have asked for it."""

    event: UserEvent
    request: UUID


class Block:
    """One stretch of a population: its users and all that happens to them, in order, by command_api.decide.

    A block is made from its number alone, so that several processes can make them.
    """

    def __init__(self, population: Population, number: int) -> None:
        self._random = Random(f"{population.seed}/{population.first}/{number}")  # noqa: S311 - made to be foreseen
        self._population = population
        self._before = number * BLOCK
        self._users = min(BLOCK, population.users - self._before)
        self._states: dict[int, User] = {}

    def happenings(self) -> Iterator[Happening]:
        begins = self._before + self._before // 2
        for place, (_, kind, user) in enumerate(self._plan()):
            at = BEGAN + LASTS * ((begins + place) / self._population.events)
            event = self._event(KINDS[kind], user, at)
            self._states[user] = event.user
            yield Happening(event=event, request=self._uuid7(at))

    def _plan(self) -> list[tuple[float, int, int]]:
        """Moments between 0 and 1, what happens then (by its place in KINDS) and to whom, sorted."""
        chance = self._random.random
        further = self._users // 2
        last = [chance() for _ in range(self._users)]
        plan = [(moment, 0, user) for user, moment in enumerate(last)]
        deleted = [user for user in range(self._users) if chance() < DELETED][:further]
        for _ in range(further - len(deleted)):
            # a few change often, most never
            user = int(self._users * chance() ** 2)
            last[user] += (1 - last[user]) * chance()
            plan.append((last[user], 1, user))
        plan += [(last[user] + (1 - last[user]) * chance(), 2, user) for user in deleted]
        return sorted(plan)

    def _event(self, kind: Kind, user: int, at: datetime) -> UserEvent:
        event_id = EventId(self._uuid7(at))
        match kind:
            case "create":
                event = decide(None, self._creation(event_id, user, at))
            case "update":
                state = self._states[user]
                event = decide(state, _change(event_id, at, self._new(state, user)))
                # the same again, by chance: something that always differs
                event = event or decide(state, _change(event_id, at, self._moved(state)))
            case "delete":
                event = decide(self._states[user], DeleteUser(event_id=event_id, at=at, versions=None))
            case _:
                assert_never(kind)
        if event is None:
            raise ValueError(f"{kind} changes nothing")
        return event

    def _creation(self, event_id: EventId, user: int, at: datetime) -> CreateUser:
        given, family = self._one_of(GIVEN), self._one_of(FAMILY)
        return CreateUser(
            event_id=event_id,
            user_id=UserId(self._uuid7(at)),
            at=at,
            email=self._email(given, family, f"{self._number(user)}"),
            display_name=None if self._random.random() < NAMELESS else f"{given} {family}",
            status=Status.DISABLED if self._random.random() < DISABLED else Status.ACTIVE,
            roles=self._random.choices(ROLES, ROLES_OF_1000)[0],
            attributes={
                "team": self._one_of(TEAMS),
                "site": self._one_of(SITES),
                "floor": int(self._random.random() * 12),
                "employee_number": f"E{self._number(user):08}",
                "remote": self._random.random() < 0.3,  # noqa: PLR2004 - a share
            },
            with_password=False,
        )

    def _new(self, state: User, user: int) -> dict[str, Any]:
        change = self._random.choices(CHANGES, CHANGES_OF_100)[0]
        match change:
            case "attributes":
                return self._moved(state)
            case "display_name":
                return {change: f"{self._one_of(GIVEN)} {self._one_of(FAMILY)}"}
            case "roles":
                return {change: self._random.choices(ROLES, ROLES_OF_1000)[0]}
            case "status":
                return {change: Status.ACTIVE if state.status is Status.DISABLED else Status.DISABLED}
            case "email":
                number = f"{self._number(user)}.{state.version + 1}"
                return {change: self._email(self._one_of(GIVEN), self._one_of(FAMILY), number)}
            case _:
                assert_never(change)

    def _moved(self, state: User) -> dict[str, Any]:
        moves = int(state.attributes.get("moves", 0)) + 1
        return {"attributes": {**state.attributes, "site": self._one_of(SITES), "moves": moves}}

    def _number(self, user: int) -> int:
        return self._population.first + self._before + user

    def _email(self, given: str, family: str, number: str) -> str:
        local = "".join(
            letter for letter in unicodedata.normalize("NFKD", f"{given}.{family}.{number}") if letter.isascii()
        )
        return f"{local if self._random.random() < 0.1 else local.lower()}@{self._one_of(DOMAINS)}"  # noqa: PLR2004 - a share

    def _uuid7(self, at: datetime) -> UUID:
        """RFC 9562, section 5.7, with random bits that can be foreseen."""
        milliseconds = int(at.timestamp() * 1000)
        bits = self._random.getrandbits(74)
        return UUID(int=milliseconds << 80 | 0x7 << 76 | bits >> 62 << 64 | 0b10 << 62 | bits & (1 << 62) - 1)

    def _one_of(self, choices: Sequence[T]) -> T:
        return choices[int(self._random.random() * len(choices))]


def _change(event_id: EventId, at: datetime, new: dict[str, Any]) -> ChangeUser:
    return ChangeUser(event_id=event_id, at=at, new=new, attributes_patch=None, with_password=False, versions=None)
