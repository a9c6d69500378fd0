import importlib.util
from pathlib import Path

from muster.failures import CannotRun


def installed_file(package: str, path: str) -> Path:
    """Find a file of an installed package without importing it: these packages act upon import."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise CannotRun(f"the package {package} is not installed: pip install 'muster[embedded]'")
    file = Path(found.origin).parent / path
    if not file.is_file():
        raise CannotRun(f"the package {package} has no {path} for this platform")
    return file
