"""What each principal may do at the brokers: no more than it needs."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runtime.broker_settings import BrokerSettings

Operation = Literal["Create", "Read", "Write"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """One principal's rights to resources of one kind; of topics, Read and Write let it Describe them too."""

    principal: str
    kind: Literal["topic", "group"]
    names: Sequence[str]
    operations: Sequence[Operation]
    prefixed: bool = False

    def to_wire(self) -> dict[str, Any]:
        return {
            "principal": self.principal,
            "resource": self.kind,
            "names": list(self.names),
            "pattern": "prefixed" if self.prefixed else "literal",
            "operations": list(self.operations),
        }

    def command(self, bootstrap_servers: str) -> str:
        """What gives the rights with Kafka's own tool."""
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--command-config", "admin.properties"]
        words += ["--add", "--allow-principal", self.principal]
        for operation in self.operations:
            words += ["--operation", operation]
        for name in self.names:
            words += [f"--{self.kind}", name]
        if self.prefixed:
            words += ["--resource-pattern-type", "prefixed"]
        return shlex.join(words)


def rights(settings: BrokerSettings, *, relay: str, projector: str, subscribers: Sequence[str]) -> Iterator[Rights]:
    """Of whoever publishes, of the projectors, and of those who may only read. The query API has nothing to do there.

    Nobody needs a right to the cluster: an idempotent producer may be whoever may write to some topic (Kafka 2.8 on).
    """
    followed = (settings.events_topic, settings.snapshot_topic)
    yield Rights(
        principal=_principal(relay),
        kind="topic",
        names=(*followed, settings.checkpoints_topic),
        # it reads its own last records back when it takes up the lead
        operations=("Read", "Write", "Create"),
    )
    yield Rights(principal=_principal(projector), kind="topic", names=followed, operations=("Read",))
    yield Rights(principal=_principal(projector), kind="group", names=(settings.projector_group,), operations=("Read",))
    for subscriber in subscribers:
        yield Rights(principal=_principal(subscriber), kind="topic", names=followed, operations=("Read",))
        name = subscriber.removeprefix("User:")
        yield Rights(
            principal=_principal(subscriber), kind="group", names=(f"{name}.",), operations=("Read",), prefixed=True
        )


def _principal(name: str) -> str:
    return name if name.startswith("User:") else f"User:{name}"
