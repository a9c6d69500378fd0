"""How many argon2id hashes the machine makes and nothing else: threads that hash, each again as soon as it is done.

A process of its own: reads a Hashing as JSON from stdin, writes a Hashed to stdout.
"""

import json
import sys
import threading
import time
from dataclasses import asdict, dataclass

from argon2 import PasswordHasher


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashing:
    """argon2-cffi hashes without the interpreter's lock: as many threads as cores take all of them."""

    time_cost: int
    memory_kib: int
    parallelism: int
    threads: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    count: int
    rate: float


def hashed(asked: Hashing) -> Hashed:
    hasher = PasswordHasher(time_cost=asked.time_cost, memory_cost=asked.memory_kib, parallelism=asked.parallelism)
    began = time.perf_counter()
    counts = [0] * asked.threads
    ends = [began] * asked.threads

    def hashing(number: int) -> None:
        while ends[number] - began < asked.seconds:
            hasher.hash(f"a phrase of nobody's, number {counts[number]}")
            counts[number] += 1
            ends[number] = time.perf_counter()

    threads = [threading.Thread(target=hashing, args=(number,)) for number in range(asked.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = sum(count / (end - began) for count, end in zip(counts, ends, strict=True))
    return Hashed(count=sum(counts), rate=rate)


if __name__ == "__main__":
    json.dump(asdict(hashed(Hashing(**json.load(sys.stdin)))), sys.stdout)
