import psycopg
import pytest

from tests.command_line import Operate
from tests.databases import PARTITIONS
from tests.people import ADA
from tests.read_model import ReadModel

Owner = psycopg.Connection[dict[str, object]]


@pytest.fixture
def standing(model: ReadModel) -> ReadModel:
    """A read model that is up to date, with a projector that says so."""
    for partition in range(PARTITIONS):
        model.stand(partition, offset=1, position=0)
        model.publish(partition, offset=1, position=0)
    return model


@pytest.mark.usefixtures("standing")
def test_a_model_that_is_up_to_date_is_healthy(operate: Operate) -> None:
    told = operate("lag")
    assert (told.status, told.stdout.splitlines()[0]) == (0, "live")
    document = operate("lag", "--json").document
    assert (document["state"], document["head"], document["lag_events"]) == ("live", 0, 0)
    assert [one["projector"] for one in document["partitions"]] == ["one"] * PARTITIONS


def test_a_projector_that_is_not_seen_is_a_finding(operate: Operate) -> None:
    told = operate("lag")
    assert told.status == 1
    assert told.stdout.splitlines()[0] == "stalled: no projector is running"


def test_something_parked_is_a_finding(standing: ReadModel, operate: Operate) -> None:
    standing.park(ADA.id)
    told = operate("lag")
    assert (told.status, told.stdout.splitlines()[0]) == (1, "parked 1: 1 users held back from the read model")


def test_a_database_that_is_away_could_not_be_checked(operate: Operate) -> None:
    told = operate("lag", DATABASE_URL="postgresql://nobody:nothing@127.0.0.1:1/nowhere")
    assert (told.status, told.stdout) == (2, "")
    assert told.stderr.startswith("muster: no connection to the database")


def test_another_number_of_partitions_is_told(standing: ReadModel, operate: Operate) -> None:
    standing.owner.execute("INSERT INTO log.partitioning (partitions) VALUES (%s)", (PARTITIONS,))
    told = operate("lag", TOPIC_PARTITIONS="12")
    assert (told.status, told.stdout) == (2, "")
    assert "TOPIC_PARTITIONS is 12" in told.stderr
