"""Every client of the brokers connects as the settings say: one that is made otherwise would be let in nowhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("command_api", "events", "identity", "muster", "projector", "query_api", "runtime")
CLIENTS = {"AIOKafkaAdminClient", "AIOKafkaConsumer", "AIOKafkaProducer"}
# it waits for the plaintext broker that it has started itself
EMBEDDED = Path("muster/embedded/broker.py")


def made() -> Iterator[tuple[Path, ast.Call]]:
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLIENTS:
                yield file.relative_to(ROOT), node


def connects_as_told(call: ast.Call) -> bool:
    unpacked = (keyword.value for keyword in call.keywords if keyword.arg is None)
    return any(
        isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "connection_arguments"
        for value in unpacked
    )


def test_every_client_is_made_with_the_arguments_of_the_settings() -> None:
    found = list(made())
    assert len(found) > 8
    assert {file for file, call in found if not connects_as_told(call)} == {EMBEDDED}
