"""`muster verify log`, `muster verify --export` and `muster witness`: nothing was altered, or what was."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from events.proofs.notes import Signer
from runtime.settings import Settings
from tests.databases import MakeSettings
from tests.histories import History
from tests.integration.muster.conftest import Muster, Told
from tests.processes import StartProcess
from tests.signed_trees import ORIGIN, SEED, forget_and_sign, grow_and_sign

SIGNED, EVENTS = 300, 320

Verify = Callable[..., Any]


@pytest.fixture
def signing(make_settings: MakeSettings) -> Settings:
    return make_settings("muster_command")


@pytest.fixture
def projectors(make_settings: MakeSettings) -> dict[str, str]:
    return {"DATABASE_URL": make_settings("muster_projector").database_url.get_secret_value()}


@pytest.fixture
async def log(history: History, signing: Settings) -> History:
    history.create(range(SIGNED - 20))
    history.change(range(20), display_name="Changed")
    await grow_and_sign(signing)
    history.change(range(20, 20 + EVENTS - SIGNED), display_name="Changed")
    return history


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "log.key"
    file.write_text(f"{Signer(ORIGIN, SEED).verifier}\n")
    return file


async def kept_checkpoint(log: History, folder: Path) -> Path:
    file = folder / "checkpoint"
    file.write_text(log.owner.execute("SELECT note FROM log.checkpoints ORDER BY size DESC").fetchall()[0]["note"])
    return file


def altered(told: Told) -> dict[str, Any]:
    assert (told.status, "Traceback" in told.stderr) == (1, False), told.stderr
    return told.result["wrong"]


async def test_a_log_that_nobody_touched(
    muster: Muster, projectors: dict[str, str], log: History, key: Path, tmp_path: Path
) -> None:
    checkpoint = await kept_checkpoint(log, tmp_path)
    told = await muster("verify", "log", "--key", str(key), "--checkpoint", str(checkpoint), "--json", **projectors)
    assert told.status == 0, told.stderr
    assert told.result | {"seconds": 0} == {
        "events": EVENTS,
        "tree": SIGNED,
        "checkpoints": 1,
        "proved": SIGNED,
        "wrong": None,
        "seconds": 0,
    }
    words = await muster("verify", "log", **projectors)
    assert words.stdout.splitlines()[-1] == "nothing was altered"


async def test_the_first_position_that_is_wrong_is_told(
    muster: Muster, projectors: dict[str, str], log: History
) -> None:
    log.owner.execute('UPDATE log.events SET metadata = metadata || \'{"reason": "x"}\' WHERE position IN (41, 200)')
    told = await muster("verify", "log", "--json", **projectors)
    assert altered(told) == {"position": 41, "what": "the event is not the one that was signed"}
    words = await muster("verify", "log", **projectors)
    assert words.stderr.splitlines()[-1] == "muster: position 41: the event is not the one that was signed"


async def exported(muster: Muster, projectors: dict[str, str], folder: Path, *options: str) -> Path:
    told = await muster("export", str(folder), *options, "--json", **projectors)
    assert told.status == 0, told.stderr
    return folder


async def test_an_export_is_checked_without_a_database(
    muster: Muster, projectors: dict[str, str], log: History, key: Path, tmp_path: Path
) -> None:
    folder = await exported(muster, projectors, tmp_path / "all")
    checkpoint = await kept_checkpoint(log, tmp_path)
    nothing = {"DATABASE_URL": None, "KEK": None, "EMAIL_INDEX_KEY": None}
    for options in ((), ("--checkpoint", str(checkpoint))):
        told = await muster("verify", "--export", str(folder), "--key", str(key), *options, "--json", **nothing)
        assert told.status == 0, told.stderr
        assert (told.result["events"], told.result["proved"]) == (EVENTS, SIGNED)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("first", [2, 256, 257, 290])
async def test_a_stretch_of_the_log_is_checked_too(
    muster: Muster, projectors: dict[str, str], key: Path, tmp_path: Path, first: int
) -> None:
    folder = await exported(muster, projectors, tmp_path / "part", "--since", str(first))
    told = await muster("verify", "--export", str(folder), "--key", str(key), "--json")
    assert told.status == 0, told.stderr
    assert (told.result["events"], told.result["proved"]) == (EVENTS - first + 1, SIGNED)
    rewrite(folder, lambda lines: lines[3].update({"event_id": lines[4]["event_id"]}))
    assert (
        altered(await muster("verify", "--export", str(folder), "--key", str(key), "--json"))["position"] == first + 3
    )


def rewrite(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    file = folder / "events-00001.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


TAMPERINGS: dict[str, tuple[Callable[[Path], object], int]] = {
    "an event": (lambda folder: rewrite(folder, lambda lines: lines[9].update({"type": "UserDeleted"})), 10),
    "a ciphertext": (lambda folder: rewrite(folder, swap_sealed), 10),
    "a deletion": (lambda folder: rewrite(folder, lambda lines: lines.pop(9)), 10),
    "the end": (lambda folder: rewrite(folder, lambda lines: lines.__delitem__(slice(299, None))), 300),
    "what was not signed yet": (lambda folder: rewrite(folder, lambda lines: lines.__delitem__(slice(310, None))), 310),
    "a file": (lambda folder: (folder / "events-00001.jsonl").unlink(), 1),
    "a line": (lambda folder: (folder / "events-00001.jsonl").write_text("{\n"), 1),
    "the users' keys": (lambda folder: (folder / "keys.jsonl").write_text(""), 1),
    "a hash": (lambda folder: flip(folder / "hashes.bin", 32 * 6 + 5), 7),
    "the manifest's count": (lambda folder: manifest(folder, events=319), 320),
}


def swap_sealed(lines: list[dict[str, Any]]) -> None:
    lines[9]["sealed"], lines[10]["sealed"] = lines[10]["sealed"], lines[9]["sealed"]


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def manifest(folder: Path, **changes: Any) -> None:  # noqa: ANN401 - JSON
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.usefixtures("log")
async def test_what_was_done_to_an_export_is_told(
    muster: Muster, projectors: dict[str, str], key: Path, tmp_path: Path
) -> None:
    whole = await exported(muster, projectors, tmp_path / "whole")
    for name, (tamper, position) in TAMPERINGS.items():
        folder = tmp_path / name.replace(" ", "-")
        shutil.copytree(whole, folder)
        tamper(folder)
        told = await muster("verify", "--export", str(folder), "--key", str(key), "--json")
        assert altered(told)["position"] == position, name


async def test_an_export_that_was_made_to_fit_fails_against_the_checkpoint_that_was_kept(
    muster: Muster, projectors: dict[str, str], log: History, signing: Settings, key: Path, tmp_path: Path
) -> None:
    checkpoint = await kept_checkpoint(log, tmp_path)
    log.owner.execute("UPDATE log.events SET event_id = gen_random_uuid() WHERE position = 3")
    await forget_and_sign(log.owner, signing)
    folder = await exported(muster, projectors, tmp_path / "all")
    assert (await muster("verify", "--export", str(folder), "--key", str(key))).status == 0
    told = await muster("verify", "--export", str(folder), "--key", str(key), "--checkpoint", str(checkpoint), "--json")
    assert altered(told)["position"] <= 3


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--export", "{folder}"], "--export needs --key"),
        (["--export", "{folder}", "--key", "/nowhere"], "/nowhere: No such file or directory"),
        (["--export", "{folder}", "--key", "{folder}/manifest.json"], "is no key"),
        (["--export", "/nowhere", "--key", "{key}"], "without it an export is not whole"),
        (["--export", "{folder}", "--key", "{key}", "--checkpoint", "{key}"], "is no checkpoint that"),
        (["log", "--checkpoint", "{key}"], "--checkpoint needs --key"),
    ],
)
async def test_what_cannot_be_checked_exits_with_2(
    muster: Muster,
    projectors: dict[str, str],
    key: Path,
    tmp_path: Path,
    options: list[str],
    words: str,
) -> None:
    folder = await exported(muster, projectors, tmp_path / "all")
    told = await muster("verify", *(option.format(folder=folder, key=key) for option in options), **projectors)
    assert told.status == 2
    assert words in told.stderr


async def test_a_witness_takes_only_what_adds_to_what_it_saw(
    muster: Muster, start_process: StartProcess, log: History, signing: Settings, key: Path, tmp_path: Path
) -> None:
    query_api = start_process("query_api", broker=False).wait_until_ready()
    state = tmp_path / "seen"
    witness = ("witness", query_api.url, "--key", str(key), "--state", str(state), "--json")

    first = await muster(*witness)
    assert first.status == 0, first.stderr
    assert first.result == {"seen": "first", "before": 0, "size": SIGNED, "root": first.result["root"]}
    assert (await muster(*witness)).result["seen"] == "same"
    await grow_and_sign(signing)
    grown = await muster(*witness)
    assert (grown.result["seen"], grown.result["before"], grown.result["size"]) == ("grown", SIGNED, EVENTS)
    kept = state.read_text()

    # the history is written anew and signed, then cut back
    log.owner.execute("UPDATE log.events SET event_id = gen_random_uuid() WHERE position = 3")
    await forget_and_sign(log.owner, signing)
    forked = await muster(*witness)
    assert (forked.status, json.loads(forked.stdout)["errors"][0]["code"]) == (1, "fork")
    assert (tmp_path / "seen.contradiction").read_text() != kept
    log.owner.execute("DELETE FROM log.events WHERE position > 10")
    await forget_and_sign(log.owner, signing)
    rolled_back = await muster(*witness)
    assert (rolled_back.status, json.loads(rolled_back.stdout)["errors"][0]["code"]) == (1, "rollback")
    assert state.read_text() == kept

    other = tmp_path / "other.key"
    other.write_text(f"{Signer(ORIGIN, base64.b64decode('A' * 43 + '=')).verifier}\n")
    stranger = await muster("witness", query_api.url, "--key", str(other), "--state", str(tmp_path / "s"), "--json")
    assert (stranger.status, json.loads(stranger.stdout)["errors"][0]["code"]) == (1, "bad_note")
    query_api.stop()
    for url in (query_api.url, "http://[", "nowhere", "ftp://127.0.0.1"):
        away = await muster("witness", url, "--key", str(key), "--state", str(state))
        assert (away.status, "could not be asked" in away.stderr) == (2, True), away.stderr
