"""What can be checked of the image and the compose file without an engine; the rest is seen by running them."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.services import KAFKA_IMAGE, POSTGRES_IMAGE

ROOT = Path(__file__).parent.parent.parent
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
FOLDERS = sorted({package.split(".")[0] for package in PACKAGES})


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
    images = re.findall(r"^    image: (\S+)$", (ROOT / "docker-compose.yml").read_text(), flags=re.MULTILINE)
    assert sorted(images) == sorted([POSTGRES_IMAGE, KAFKA_IMAGE])
