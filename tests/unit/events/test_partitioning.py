from uuid import UUID

from events.partitioning import partition_of
from tests.people import ADA_ID


def test_a_user_stays_in_one_partition_for_ever() -> None:
    assert [partition_of(ADA_ID, partitions) for partitions in (1, 3, 6, 12)] == [0, 0, 3, 9]


def test_users_spread_over_all_partitions() -> None:
    counts = [0] * 6
    for number in range(6000):
        counts[partition_of(UUID(int=number), 6)] += 1
    assert min(counts) > 800
