"""What can be checked of the image and the compose file without an engine; the rest is seen by running them."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import command_api.app
import projector.app
import query_api.app
from muster.secret_files import make_secret_files
from runtime.settings import Settings, settings_from_environment
from tests.plain_http import PLAIN
from tests.services import KAFKA_IMAGE, POSTGRES_IMAGE

# what each process may read of the secrets, beside the service that makes them
READERS = {
    "keys": {"command-api", "query-api", "projector"},
    "admin-login": {"command-api"},
    "owner-login": {"postgres", "migrate"},
    "command-login": {"migrate", "command-api"},
    "query-login": {"migrate", "query-api"},
    "projector-login": {"migrate", "projector"},
}

ROOT = Path(__file__).parent.parent.parent
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
FOLDERS = sorted({package.split(".")[0] for package in PACKAGES})
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def part(name: str, *, indent: int) -> str:
    """What stands below a name in the compose file; an anchor may follow the name."""
    pad = " " * indent
    found = re.search(rf"^{pad}{name}:(?: &\S+)?\n((?:{pad} .*\n|\s*\n)+)", COMPOSE, flags=re.MULTILINE)
    assert found, name
    return found[1]


def services() -> list[str]:
    return re.findall(r"^  (\S+):$", part("services", indent=0), flags=re.MULTILINE)


def mounts(service: str) -> dict[str, tuple[str, str]]:
    """The volumes of secrets that a service mounts: its folder, and ro or nothing."""
    found = re.findall(r"^      - (\S+?):(/secrets/\w+):?(\w*)$", part(service, indent=2), flags=re.MULTILINE)
    return {volume: (folder, mode) for volume, folder, mode in found}


def secrets_named_to(service: str) -> set[str]:
    return set(re.findall(r"/secrets/[\w-]+/[\w-]+", part(service, indent=2)))


def environment_of(service: str, secrets: Path) -> dict[str, str]:
    """What a process of ours is told, with nothing set beside; its secrets are in another folder."""
    lines = part("x-environment", indent=0) + part(service, indent=2).partition("    environment:\n")[2]
    told = dict(re.findall(r"^ +([A-Z_]+): (.+)$", lines, flags=re.MULTILINE))
    return {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value).strip('"').replace("/secrets", str(secrets))
        for name, value in told.items()
    }


def client_of(app: FastAPI, port: str) -> httpx.AsyncClient:
    """Calls an app that was not started: it has no database here."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url=f"http://127.0.0.1:{port}", verify=PLAIN, trust_env=False
    )


@pytest.fixture
def settings_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Settings]:
    """Reads a service's settings as its process does, from its environment and the secrets that it mounts alone."""

    def read(service: str) -> Settings:
        secrets = tmp_path / service
        make_secret_files(secrets)
        mounted = {Path(folder).name for folder, _ in mounts(service).values()}
        for folder in secrets.iterdir():
            if folder.name not in mounted:
                shutil.rmtree(folder)
        for name in Settings.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
            monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)
        for name, value in environment_of(service, secrets).items():
            monkeypatch.setenv(name, value)
        return settings_from_environment()

    return read


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the image installs, built from a copy: a build leaves its own files beside the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    (copy / "README.md").touch()
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir=dist",
        ".",
    ]
    subprocess.run(build, cwd=copy, check=True)
    (built,) = (copy / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_every_package(wheel: Path) -> None:
    files = {
        str(file.relative_to(ROOT))
        for name in FOLDERS
        for file in (ROOT / name).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert sorted(files - set(zipfile.ZipFile(wheel).namelist())) == []


def test_the_image_is_built_from_every_package() -> None:
    admitted = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE)
    assert sorted(set(FOLDERS) - set(admitted)) == []


def test_the_tests_run_on_the_images_that_compose_runs() -> None:
    images = re.findall(r"^    image: (\S+)$", COMPOSE, flags=re.MULTILINE)
    assert sorted(images) == sorted([POSTGRES_IMAGE, KAFKA_IMAGE])


def test_each_secret_is_mounted_for_its_readers_alone_and_read_only() -> None:
    readers: dict[str, set[str]] = {volume: set() for volume in READERS}
    for service in set(services()) - {"secrets"}:
        for volume, (_, mode) in mounts(service).items():
            assert mode == "ro", f"{service}: {volume}"
            readers[volume].add(service)
    assert readers == READERS


def test_a_volume_of_secrets_is_in_the_same_folder_everywhere_and_the_image_has_it() -> None:
    folders = {volume: folder for volume, (folder, _) in mounts("secrets").items()}
    assert folders.keys() == READERS.keys()
    for service in services():
        for volume, (folder, _) in mounts(service).items():
            assert folder == folders[volume], f"{service}: {volume}"
    installed = re.search(r"install -d -o muster -g muster -m 0700((?: \\\n +\S+)+)", DOCKERFILE)
    assert installed
    assert sorted(installed[1].replace("\\", "").split()) == sorted(folders.values())


def test_a_service_is_told_of_no_secret_but_those_that_are_made_and_that_it_mounts(tmp_path: Path) -> None:
    made = {f"/secrets/{file.relative_to(tmp_path)}" for file in make_secret_files(tmp_path)}
    for service in set(services()) - {"secrets"}:
        named = secrets_named_to(service)
        assert named <= made, service
        assert {str(Path(file).parent) for file in named} <= {folder for folder, _ in mounts(service).values()}, service
    assert "/secrets" not in part("x-environment", indent=0)


async def test_the_command_api_has_a_first_administrator_and_lets_the_query_apis_docs_log_in(
    settings_of: Callable[[str], Settings],
) -> None:
    settings = settings_of("command-api")
    assert settings.first_admin_email == "admin@example.com"
    assert settings.first_admin_password is not None
    asked = {"Origin": "http://127.0.0.1:8002", "Access-Control-Request-Method": "POST"}
    async with client_of(command_api.app.create_app(settings), "8001") as client:
        answer = await client.options("/login", headers=asked)
    assert answer.headers["Access-Control-Allow-Origin"] == "http://127.0.0.1:8002"


async def test_the_query_api_starts_with_the_key_encryption_key_alone_and_its_docs_log_in_at_the_command_api(
    settings_of: Callable[[str], Settings],
) -> None:
    settings = settings_of("query-api")
    assert (settings.email_index_key, settings.first_admin_password) == (None, None)
    async with client_of(query_api.app.create_app(settings), "8002") as client:
        document = (await client.get("/openapi.json")).json()
    flows = document["components"]["securitySchemes"]["muster"]["flows"]
    assert {flow["tokenUrl"] for flow in flows.values()} == {"http://127.0.0.1:8001/login"}


def test_the_projector_starts_with_the_key_encryption_key_alone(settings_of: Callable[[str], Settings]) -> None:
    settings = settings_of("projector")
    assert settings.email_index_key is None
    projector.app.create_app(settings)
