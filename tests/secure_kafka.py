"""An Apache Kafka of a test's own, with TLS, SASL/SCRAM and ACLs; its artifacts are those of .ci/kafka."""

import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from confluent_kafka import KafkaException
from confluent_kafka import admin as confluent_admin
from confluent_kafka.admin import AdminClient

from muster.embedded.ports import free_port
from tests.certificates import Authority
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent
START = ROOT / ".ci" / "kafka" / "start"
CLASS_PATH = ROOT / ".kafka" / "lib" / "*"
MECHANISM = "SCRAM-SHA-512"
ADMIN = "admin"
LOGIN = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="{name}" password="{password}";'
# the controller's listener is this machine's alone, and has no login
PROPERTIES = """
listeners=SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{ssl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{ssl},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms={mechanism}
sasl.mechanism.inter.broker.protocol={mechanism}
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={login}
listener.name.ssl.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^CN=([^,]+),.*$/$1/,DEFAULT
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{admin};User:ANONYMOUS
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureKafka:
    """`servers` is SASL_SSL's listener, `mutual` that of SSL which asks for a certificate."""

    folder: Path
    authority: Authority
    servers: str
    mutual: str
    passwords: Mapping[str, str] = field(repr=False)

    def settings(self, principal: str, **others: object) -> dict[str, Any]:
        """What a process is told to connect as a principal."""
        return {
            "kafka_bootstrap_servers": self.servers,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": MECHANISM,
            "kafka_sasl_username": principal,
            "kafka_sasl_password": self.passwords[principal],
            "kafka_ca_file": self.authority.file,
            **others,
        }

    def confluent(self, principal: str, **others: Any) -> dict[str, Any]:  # noqa: ANN401 - librdkafka's values
        """The same for a client that is not aiokafka."""
        return {
            "bootstrap.servers": self.servers,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": MECHANISM,
            "sasl.username": principal,
            "sasl.password": self.passwords[principal],
            "ssl.ca.location": str(self.authority.file),
            "log_level": 0,
            **others,
        }

    def lets_in(self) -> bool:
        try:
            return bool(AdminClient(self.confluent(ADMIN)).list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def administer(self, work: Callable[[Any], Mapping[Any, Any]]) -> None:
        """Do something as the administrator, and wait until it is done."""
        # held until then: its answers end with it
        client = AdminClient(self.confluent(ADMIN))
        for answer in work(client).values():
            answer.result(30)

    def run(self, commands: Sequence[Sequence[str]]) -> None:
        """Run lines of kafka-acls.sh as an administrator does."""
        (self.folder / "admin.properties").write_text(
            f"security.protocol=SASL_SSL\nsasl.mechanism={MECHANISM}\n"
            f"sasl.jaas.config={LOGIN.format(name=ADMIN, password=self.passwords[ADMIN])}\n"
            f"ssl.truststore.type=PEM\nssl.truststore.location={self.authority.file}\n"
        )
        for name, *arguments in commands:
            assert name == "kafka-acls.sh"
            java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", str(CLASS_PATH)]
            done = subprocess.run(
                [*java, "org.apache.kafka.tools.AclCommand", *arguments],
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == 0, done.stdout + done.stderr

    def allow(
        self,
        principal: str,
        name: str,
        operation: Literal["create", "describe", "read", "write"],
        *,
        kind: Literal["topic", "group"] = "topic",
    ) -> None:
        # it exports what it does not type
        acl: Any = confluent_admin
        binding = acl.AclBinding(
            acl.ResourceType[kind.upper()],
            name,
            acl.ResourcePatternType.LITERAL,
            f"User:{principal}",
            "*",
            acl.AclOperation[operation.upper()],
            acl.AclPermissionType.ALLOW,
        )
        self.administer(lambda client: client.create_acls([binding]))


@contextmanager
def secure_kafka(folder: Path, principals: Sequence[str]) -> Generator[SecureKafka]:
    """Run one until the block ends; the principals are there from its first start, and may do nothing yet."""
    ports: list[int] = []
    for _ in range(3):
        ports.append(free_port(taken=ports))
    sasl, ssl, controller = ports
    passwords = {name: secrets.token_urlsafe(16) for name in (ADMIN, *principals)}
    authority = Authority(folder / "tls")
    broker = authority.issue("broker", "127.0.0.1")
    keystore = folder / "tls" / "keystore.pem"
    keystore.write_bytes(broker.key.read_bytes() + broker.certificate.read_bytes())
    properties = folder / "secure.properties"
    properties.write_text(
        PROPERTIES.format(
            sasl=sasl,
            ssl=ssl,
            controller=controller,
            mechanism=MECHANISM,
            admin=ADMIN,
            login=LOGIN.format(name=ADMIN, password=passwords[ADMIN]),
            keystore=keystore,
            truststore=authority.file,
        )
    )
    users = [f"{MECHANISM}=[name={name},password={password}]" for name, password in passwords.items()]
    options = [word for user in users for word in ("--add-scram", user)]
    log = folder / "kafka.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(START), str(folder / "run"), str(sasl), str(controller), str(properties), *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # the script's own children end with it, whatever it is at
            start_new_session=True,
        )
    kafka = SecureKafka(
        folder=folder,
        authority=authority,
        servers=f"127.0.0.1:{sasl}",
        mutual=f"127.0.0.1:{ssl}",
        passwords=passwords,
    )

    def answers() -> bool:
        assert process.poll() is None, log.read_text()[-4000:]
        return kafka.lets_in()

    try:
        # the first start on a machine fetches the artifacts
        eventually(answers, what="Apache Kafka lets its administrator in", timeout=110)
        yield kafka
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
