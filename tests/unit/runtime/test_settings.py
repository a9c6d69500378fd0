from typing import Any

import pytest

from runtime.settings import BadSettings, settings_from_environment

DATABASE: dict[str, Any] = {"database_url": "postgresql://muster:secret@db/muster"}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "MUSTER_MODE", "DEVELOPMENT_TOKEN", "FAILPOINTS", "COMMAND_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_production_is_what_a_process_is_unless_told_otherwise() -> None:
    assert settings_from_environment(**DATABASE).muster_mode == "production"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/muster")
    monkeypatch.setenv("COMMAND_PORT", "9000")
    settings = settings_from_environment()
    assert settings.database_url.get_secret_value() == "postgresql://elsewhere/muster"
    assert settings.command_port == 9000


@pytest.mark.parametrize("mode", ["development", "test"])
def test_a_development_token_is_taken_outside_production(mode: str) -> None:
    settings = settings_from_environment(**DATABASE, muster_mode=mode, development_token="t0ken")
    assert settings.development_token is not None


def test_a_development_token_is_refused_in_production() -> None:
    with pytest.raises(BadSettings, match="DEVELOPMENT_TOKEN is refused in production"):
        settings_from_environment(**DATABASE, development_token="t0ken")


@pytest.mark.parametrize("mode", ["production", "development"])
def test_failpoints_are_refused_outside_tests(mode: str) -> None:
    with pytest.raises(BadSettings, match="FAILPOINTS is for MUSTER_MODE=test only"):
        settings_from_environment(**DATABASE, muster_mode=mode, failpoints="relay.before_send=kill")


def test_what_is_missing_or_wrong_is_named_in_one_line() -> None:
    with pytest.raises(BadSettings) as refused:
        settings_from_environment(command_port=70_000, log_level="loud")
    message = str(refused.value)
    assert "DATABASE_URL: Field required" in message
    assert "COMMAND_PORT: " in message
    assert "LOG_LEVEL: " in message
    assert "\n" not in message


def test_secrets_are_not_shown() -> None:
    settings = settings_from_environment(**DATABASE, muster_mode="test", development_token="t0ken")
    assert "secret" not in repr(settings).replace("SecretStr", "")
    assert "t0ken" not in repr(settings)


def test_a_refused_secret_is_not_repeated() -> None:
    with pytest.raises(BadSettings) as refused:
        settings_from_environment(**DATABASE, development_token="t0ken")
    assert "t0ken" not in str(refused.value)
    assert "secret" not in str(refused.value)
