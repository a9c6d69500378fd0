"""Apache Kafka with TLS, SASL/SCRAM and ACLs: each process has its own principal, which may do what it needs."""

import os
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import ClusterAuthorizationFailedError, TopicAuthorizationFailedError
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.cimpl import NewTopic

from events.broker_connection import RIGHTS, connection_arguments
from runtime.broker_settings import BrokerSettings
from runtime.settings import Settings
from tests.certificates import Authority
from tests.command_line import MUSTER, Told
from tests.databases import MakeSettings
from tests.processes import Process, StartProcess, environment_of
from tests.secure_kafka import ADMIN, SecureKafka, secure_kafka
from tests.waiting import eventually

pytestmark = pytest.mark.apache

RELAY, PROJECTOR, SUBSCRIBER = "muster-relay", "muster-projector", "billing"
PEOPLE = 5

Run = Callable[..., Told]
Start = Callable[..., Process]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with secure_kafka(tmp_path_factory.mktemp("kafka"), [RELAY, PROJECTOR, SUBSCRIBER]) as running:
        yield running


@pytest.fixture
def settings(make_settings: MakeSettings, kafka: SecureKafka) -> Settings:
    """The command API's, and the relay's in it."""
    return make_settings(**kafka.settings(RELAY))


@pytest.fixture
def run(make_settings: MakeSettings, kafka: SecureKafka, tmp_path: Path) -> Run:
    """Run a command as a principal: run("consume", topic, as_=SUBSCRIBER, kafka_sasl_password="...")."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}

    def command(*arguments: str, as_: str = RELAY, **others: object) -> Told:
        role = "muster_projector" if as_ == PROJECTOR else "muster_command"
        connection = {**kafka.settings(as_), **others}
        told = environment_of(make_settings(role, **connection))
        done = subprocess.run(
            [str(MUSTER), *arguments],
            stdin=subprocess.DEVNULL,
            env={**inherited, **told, "MUSTER_HOME": str(tmp_path / "nowhere")},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        for password in kafka.passwords.values():
            assert password not in done.stdout + done.stderr
        return Told(status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    return command


@pytest.fixture
def allowed(kafka: SecureKafka, run: Run) -> None:
    """Give the rights that `muster acls` prints, with Kafka's own tool."""
    printed = run("acls", "--subscriber", SUBSCRIBER)
    assert printed.status == 0, printed.stderr
    kafka.run([shlex.split(line) for line in printed.stdout.splitlines()])


@pytest.fixture
def start(start_process: StartProcess, kafka: SecureKafka) -> Start:
    principals = {"command_api": RELAY, "projector": PROJECTOR}

    def process(name: str, **others: object) -> Process:
        connection = {**kafka.settings(principals[name]), **others}
        return start_process(name, broker=False, relay=name == "command_api", **connection)

    return process


@pytest.fixture
def topic(kafka: SecureKafka, settings: Settings) -> str:
    """The events topic with one record, which only the administrator has a right to."""
    new = NewTopic(settings.events_topic, num_partitions=settings.topic_partitions, replication_factor=1)
    kafka.administer(lambda client: client.create_topics([new]))
    producer = Producer(kafka.confluent(ADMIN))
    producer.produce(settings.events_topic, key=b"key", value=b"{}", partition=0)
    assert producer.flush(30) == 0
    return settings.events_topic


def create(command: Process, number: int) -> int:
    """Give the last position."""
    position = 0
    with command.client() as client:
        for _ in range(number):
            body = {"email": f"{secrets.token_hex(6)}@example.com", "display_name": "Ada"}
            answer = client.post("/users", json=body)
            assert answer.status_code == 201, answer.text
            position = int(answer.headers["Event-Position"])
    return position


def read(kafka: SecureKafka, topic: str, wanted: int) -> list[str]:
    """As a subscriber that is not aiokafka, in a group of its own: the types of what came."""
    group = {"group.id": f"{SUBSCRIBER}.ledger", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer(kafka.confluent(SUBSCRIBER, **group))
    try:
        consumer.subscribe([topic])
        found: list[str] = []

        def enough() -> bool:
            message = consumer.poll(1)
            if message is not None:
                assert message.error() is None, message.error()
                headers: Any = message.headers()
                found.append(dict(headers)["ce_type"].decode())
            return len(found) >= wanted

        eventually(enough, what=f"{wanted} records of {topic}", timeout=60)
        consumer.commit(asynchronous=False)
        return found
    finally:
        consumer.close()


def ends(kafka: SecureKafka, settings: Settings, topic: str) -> list[int]:
    """The end offset of each partition, as the administrator sees it."""
    consumer: Any = Consumer(kafka.confluent(ADMIN, **{"group.id": "none"}))
    try:
        partitions = range(settings.topic_partitions)
        return [consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1] for number in partitions]
    finally:
        consumer.close()


@pytest.mark.usefixtures("allowed")
def test_each_process_works_with_the_rights_that_it_needs_and_no_more(
    kafka: SecureKafka, settings: Settings, start: Start, start_process: StartProcess, run: Run
) -> None:
    command = start("command_api").wait_until_ready()
    eventually(lambda: command.part("relay") == "leading", what="the relay leads", timeout=60)
    projector = start("projector").wait_until_ready()
    # its settings name a port where no broker listens
    query = start_process("query_api", broker=False).wait_until_ready()
    position = create(command, PEOPLE)
    with query.client() as client:
        listed = client.get("/users", headers={"Min-Position": str(position), "Prefer": "wait=20"})
    assert listed.status_code == 200, listed.text
    assert len(listed.json()["users"]) == PEOPLE
    eventually(lambda: command.part("integrator") == "leading", what="checkpoints are signed", timeout=60)
    assert sum(ends(kafka, settings, settings.events_topic)) == PEOPLE
    for topic in (settings.events_topic, settings.snapshot_topic):
        told = run("consume", topic, "--json", as_=SUBSCRIBER)
        assert told.status == 0, told.stderr
        assert len(told.result["records"]) == PEOPLE
        assert read(kafka, topic, PEOPLE) == ["muster.UserCreated.v1"] * PEOPLE
    verified = run("verify", "model", "--json", as_=PROJECTOR)
    assert (verified.status, verified.result["differences"]) == (0, 0), verified.stderr
    told = run("doctor", "--json")
    checks = {check["name"]: check for check in told.result["checks"]}
    assert checks["broker"]["found"] == f"{kafka.servers}, SASL_SSL as {RELAY}"
    assert {checks[topic]["state"] for topic in (settings.events_topic, settings.snapshot_topic)} == {"ok"}
    for process in (command, projector):
        log = process.log.read_text()
        for password in kafka.passwords.values():
            assert password not in log


@pytest.mark.usefixtures("allowed")
async def test_a_subscriber_reads_and_is_refused_when_it_writes(
    kafka: SecureKafka, settings: Settings, topic: str, run: Run
) -> None:
    assert len(run("consume", topic, "--json", as_=SUBSCRIBER).result["records"]) == 1
    before = ends(kafka, settings, topic)
    refused: list[Any] = []
    producer = Producer(kafka.confluent(SUBSCRIBER, **{"enable.idempotence": False}))
    producer.produce(topic, b"{}", partition=0, on_delivery=lambda error, _: refused.append(error))
    assert producer.flush(60) == 0
    assert [error.code() for error in refused] == [KafkaError.TOPIC_AUTHORIZATION_FAILED]
    subscriber = Settings(**{**settings.model_dump(), **kafka.settings(SUBSCRIBER)})
    async with AIOKafkaProducer(**connection_arguments(subscriber)) as other:
        with pytest.raises(TopicAuthorizationFailedError):
            await other.send_and_wait(topic, b"{}", partition=0)
    idempotent = AIOKafkaProducer(**connection_arguments(subscriber), enable_idempotence=True)
    with pytest.raises(ClusterAuthorizationFailedError):
        await idempotent.start()
    await idempotent.stop()
    assert ends(kafka, settings, topic) == before
    told = run("trigger", "user.created", "--to-topic", "somebody-elses", as_=SUBSCRIBER)
    assert (told.status, told.stderr) == (
        2,
        f"muster: at {kafka.servers} the broker refuses a right to topic somebody-elses: {RIGHTS}\n",
    )


WRONG: dict[str, tuple[Callable[[SecureKafka], dict[str, object]], str, str]] = {
    "another password": (
        lambda _: {"kafka_sasl_password": "a-password-of-nobody"},
        "the broker refuses the user name or the password",
        "set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD to what it has for KAFKA_SASL_MECHANISM SCRAM-SHA-512",
    ),
    "nobody": (
        lambda _: {"kafka_sasl_username": "mallory"},
        "the broker refuses the user name or the password",
        "set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD to what it has for KAFKA_SASL_MECHANISM SCRAM-SHA-512",
    ),
    "another mechanism": (
        lambda _: {"kafka_sasl_mechanism": "PLAIN"},
        "the broker does not offer PLAIN",
        "set KAFKA_SASL_MECHANISM to one that it does",
    ),
    "another authority": (
        lambda kafka: {"kafka_ca_file": Authority(kafka.folder / "other").file},
        "the broker's certificate is not trusted (unable to get local issuer certificate)",
        "set KAFKA_CA_FILE to the certificate of the authority that issued it",
    ),
    "the machine's authorities": (
        lambda _: {"kafka_ca_file": None},
        "the broker's certificate is not trusted (unable to get local issuer certificate)",
        "set KAFKA_CA_FILE to the certificate of the authority that issued it",
    ),
    "another host": (
        lambda kafka: {"kafka_bootstrap_servers": kafka.servers.replace("127.0.0.1", "localhost")},
        "the broker's certificate is for another host",
        "name the brokers in KAFKA_BOOTSTRAP_SERVERS as their certificates do",
    ),
    "no TLS": (
        lambda _: {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_ca_file": None},
        "the broker ends the connection without an answer",
        "see whether KAFKA_SECURITY_PROTOCOL, which is SASL_PLAINTEXT, is what its port speaks",
    ),
    "neither TLS nor login": (
        lambda _: {**BrokerSettings.unsecured()},
        "the broker ends the connection without an answer",
        "see whether KAFKA_SECURITY_PROTOCOL, which is PLAINTEXT, is what its port speaks",
    ),
    "no certificate": (
        lambda kafka: {
            **BrokerSettings.unsecured(),
            "kafka_security_protocol": "SSL",
            "kafka_ca_file": kafka.authority.file,
            "kafka_bootstrap_servers": kafka.mutual,
        },
        "the broker ends the connection without an answer",
        (
            "see whether KAFKA_SECURITY_PROTOCOL, which is SSL, is what its port speaks, and whether it asks for a"
            " certificate (KAFKA_CERTIFICATE_FILE, KAFKA_KEY_FILE)"
        ),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_whoever_is_not_let_in_is_told_why_in_one_line(
    kafka: SecureKafka, settings: Settings, run: Run, wrong: str
) -> None:
    others, problem, remedy = WRONG[wrong]
    told = run("consume", settings.events_topic, as_=SUBSCRIBER, **others(kafka))
    servers = others(kafka).get("kafka_bootstrap_servers", kafka.servers)
    assert (told.status, told.stdout, told.stderr) == (2, "", f"muster: at {servers} {problem}: {remedy}\n")
    told = run("doctor", "--json", **others(kafka))
    [check] = [check for check in told.result["checks"] if check["name"] == "broker"]
    assert told.status == 1
    assert check == {"name": "broker", "state": "failed", "found": f"{servers}: {problem}", "remedy": remedy}


@pytest.mark.parametrize("wrong", ["another password", "another authority", "neither TLS nor login"])
def test_readiness_tells_the_same(kafka: SecureKafka, start: Start, wrong: str) -> None:
    others, problem, _ = WRONG[wrong]
    command, projector = (start(name, **others(kafka)) for name in ("command_api", "projector"))
    for process, part in ((command, "relay"), (command, "integrator"), (projector, "projector")):
        eventually(process.answers, what=f"{process.name} answers", timeout=60)
        eventually(
            lambda process=process, part=part: process.part(part).startswith(f"retrying: {problem}"),
            what=f"{part} says {problem}",
            timeout=60,
        )
        told = process.part(part)
        assert kafka.servers not in told
        assert not any(name in told for name in (RELAY, PROJECTOR))
    # what is accepted waits in the log
    assert create(command, 1) > 0


def test_a_relay_without_rights_says_so_and_goes_on_once_it_has_them(
    kafka: SecureKafka, settings: Settings, start: Start
) -> None:
    command = start("command_api")
    eventually(command.answers, what="the command API answers", timeout=60)

    def says(words: str) -> None:
        eventually(lambda: command.part("relay") == words, what=f"the relay says {words}", timeout=60)

    refused = f"retrying: the broker refuses a right to topic {{}}: {RIGHTS}"
    says(refused.format(settings.events_topic))
    create(command, PEOPLE)
    for topic in (settings.events_topic, settings.snapshot_topic, settings.checkpoints_topic):
        for operation in ("create", "read"):
            kafka.allow(RELAY, topic, operation)
    kafka.allow(RELAY, settings.checkpoints_topic, "write")
    kafka.allow(RELAY, settings.snapshot_topic, "write")

    def snapshots() -> bool:
        try:
            return sum(ends(kafka, settings, settings.snapshot_topic)) == PEOPLE
        except KafkaException:
            # it is still to be made
            return False

    eventually(snapshots, what="the relay writes where it may", timeout=60)
    says(refused.format(settings.events_topic))
    kafka.allow(RELAY, settings.events_topic, "write")
    says("leading")
    for topic in (settings.events_topic, settings.snapshot_topic):
        eventually(lambda topic=topic: sum(ends(kafka, settings, topic)) >= PEOPLE, what=f"{topic} is whole")
        assert sum(ends(kafka, settings, topic)) == PEOPLE
    assert command.popen.poll() is None


def test_a_projector_without_rights_says_so_and_goes_on_once_it_has_them(
    kafka: SecureKafka, settings: Settings, start: Start
) -> None:
    for topic in (settings.events_topic, settings.snapshot_topic, settings.checkpoints_topic):
        for operation in ("create", "read", "write"):
            kafka.allow(RELAY, topic, operation)
    start("command_api").wait_until_ready()
    projector = start("projector")
    eventually(projector.answers, what="the projector answers", timeout=60)

    def says(words: str) -> None:
        eventually(lambda: projector.part("projector") == words, what=f"the projector says {words}", timeout=60)

    refused = f"retrying: the broker refuses a right to {{}}: {RIGHTS}"
    says(refused.format(f"topic {settings.events_topic}"))
    for topic in (settings.events_topic, settings.snapshot_topic):
        kafka.allow(PROJECTOR, topic, "read")
    says(refused.format(f"consumer group {settings.projector_group}"))
    kafka.allow(PROJECTOR, settings.projector_group, "read", kind="group")
    projector.wait_until_ready()
    assert projector.popen.poll() is None


def test_a_certificate_is_a_login_too(kafka: SecureKafka, topic: str, run: Run) -> None:
    pair = kafka.authority.issue(SUBSCRIBER, f"{SUBSCRIBER}.example.com", password="K3y-of-the-tests")
    connection = {
        **BrokerSettings.unsecured(),
        "kafka_security_protocol": "SSL",
        "kafka_bootstrap_servers": kafka.mutual,
        "kafka_ca_file": kafka.authority.file,
        "kafka_certificate_file": pair.certificate,
        "kafka_key_file": pair.key,
        "kafka_key_password": "K3y-of-the-tests",
    }
    hidden = run("consume", topic, as_=SUBSCRIBER, **connection)
    assert (hidden.status, hidden.stderr) == (
        2,
        f"muster: there is no topic {topic} at {kafka.mutual}, or none that this principal may see (`muster acls`)\n",
    )
    kafka.allow(SUBSCRIBER, topic, "describe")
    seen = run("consume", topic, as_=SUBSCRIBER, **connection)
    assert seen.stderr == f"muster: at {kafka.mutual} the broker refuses a right to topic {topic}: {RIGHTS}\n"
    kafka.allow(SUBSCRIBER, topic, "read")
    told = run("consume", topic, "--json", as_=SUBSCRIBER, **connection)
    assert told.status == 0, told.stderr
    assert len(told.result["records"]) == 1
