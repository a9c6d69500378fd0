"""Python imports this by itself, first of all, where PYTHONPATH has this folder."""

from tests.second_version import install

install()
