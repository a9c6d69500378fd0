import base64
import os
import re
import secrets
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from events.keyring import BadKey, open_digester, open_keyring
from runtime.secret_values import SECRETS
from runtime.settings import BadSettings, Settings, settings_from_environment
from tests.certificates import Authority
from tests.processes import environment_of

# of the example, what is for brokers with TLS and logins alone
SECURED = {"KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD", "KAFKA_KEY_PASSWORD"}
EXAMPLE = Path(__file__).parents[3] / ".env.example"
PASSWORD = "Tr0ub4dor-of-the-tests"
DATABASE: dict[str, Any] = {"database_url": f"postgresql://muster:{PASSWORD}@db/muster"}
# a value that each secret can have
SECRET_VALUES = {
    "database_url": DATABASE["database_url"],
    "kek": base64.b64encode(secrets.token_bytes(32)).decode(),
    "email_index_key": base64.b64encode(secrets.token_bytes(32)).decode(),
    "keks_known": base64.b64encode(secrets.token_bytes(32)).decode(),
    "email_index_keys_known": base64.b64encode(secrets.token_bytes(32)).decode(),
    "first_admin_password": PASSWORD,
    "kafka_sasl_password": "Scr4m-of-the-tests",
    "kafka_key_password": "K3y-of-the-tests",
}
# what the last two go with; the files are made once for all tests
BROKER_LOGIN: dict[str, Any] = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "muster-relay"}
CLIENT_FILES: dict[str, Any] = {}
ADMIN: dict[str, Any] = {"first_admin_email": "ada@example.com", "first_admin_password": PASSWORD}


@pytest.fixture(autouse=True, scope="session")
def _client_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    pair = Authority(tmp_path_factory.mktemp("tls")).issue("client", "client.example.com")
    CLIENT_FILES.update(kafka_certificate_file=pair.certificate, kafka_key_file=pair.key)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().removesuffix("_file") in Settings.model_fields:
            monkeypatch.delenv(name)


def told(name: str, **values: object) -> dict[str, Any]:
    """Give settings that are complete but for the secret `name`, of which they have just `values`."""
    values_of = {**DATABASE, "first_admin_email": "ada@example.com" if name == "first_admin_password" else None}
    if name == "kafka_sasl_password":
        values_of |= BROKER_LOGIN
    if name == "kafka_key_password":
        values_of |= {"kafka_security_protocol": "SSL", **CLIENT_FILES}
    return {key: value for key, value in values_of.items() if key != name} | values


def whole() -> dict[str, Any]:
    """Give settings that have every secret."""
    return {**SECRET_VALUES, **BROKER_LOGIN, **CLIENT_FILES, "first_admin_email": "ada@example.com"}


def shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    assert isinstance(value, SecretStr)
    return value.get_secret_value()


def test_production_is_what_a_process_is_unless_told_otherwise() -> None:
    assert settings_from_environment(**DATABASE).muster_mode == "production"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/muster")
    monkeypatch.setenv("COMMAND_PORT", "9000")
    settings = settings_from_environment()
    assert settings.database_url.get_secret_value() == "postgresql://elsewhere/muster"
    assert settings.command_port == 9000


def test_a_development_token_left_in_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVELOPMENT_TOKEN", "t0ken")
    assert "t0ken" not in str(environment_of(settings_from_environment(**DATABASE)))


@pytest.mark.parametrize("mode", ["production", "development"])
def test_failpoints_are_refused_outside_tests(mode: str) -> None:
    with pytest.raises(BadSettings, match=r"^FAILPOINTS is for MUSTER_MODE=test only"):
        settings_from_environment(**DATABASE, muster_mode=mode, failpoints="relay.before_send=kill")


@pytest.mark.parametrize("half", sorted(ADMIN))
def test_half_a_first_admin_is_refused(half: str) -> None:
    with pytest.raises(BadSettings, match=r"^FIRST_ADMIN_EMAIL and FIRST_ADMIN_PASSWORD .* go together"):
        settings_from_environment(**DATABASE, **{half: ADMIN[half]})


def test_what_is_missing_or_wrong_is_named_in_one_line() -> None:
    with pytest.raises(BadSettings) as refused:
        settings_from_environment(command_port=70_000, log_level="loud", kek_file="/absent")
    message = str(refused.value)
    assert "DATABASE_URL: Field required" in message
    assert "COMMAND_PORT: " in message
    assert "LOG_LEVEL: " in message
    assert "KEK_FILE: " in message
    assert "\n" not in message


def test_every_secret_may_come_from_a_file() -> None:
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert set(SECRETS) == secret == set(SECRET_VALUES)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_comes_from_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), SECRET_VALUES[name])
    assert shown(settings_from_environment(**told(name)), name) == SECRET_VALUES[name]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_comes_from_the_file_that_its_variable_with_file_names(
    name: str, end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(SECRET_VALUES[name] + end, newline="")
    monkeypatch.setenv(f"{name.upper()}_FILE", str(tmp_path / "secret"))
    assert shown(settings_from_environment(**told(name)), name) == SECRET_VALUES[name]


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_of_a_secret_can_be_passed_in(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET_VALUES[name])
    assert shown(Settings(**told(name, **{f"{name}_file": tmp_path / "secret"})), name) == SECRET_VALUES[name]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_told_both_ways_at_once_is_refused(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET_VALUES[name])
    both = {name: SECRET_VALUES[name], f"{name}_file": str(tmp_path / "secret")}
    for variable, value in both.items():
        monkeypatch.setenv(variable.upper(), value)
    message = f"{name.upper()} and {name.upper()}_FILE are both set: unset one"
    with pytest.raises(BadSettings, match=message):
        settings_from_environment(**told(name))
    with pytest.raises(BadSettings, match=message):
        settings_from_environment(**told(name, **both))


@pytest.mark.parametrize("name", SECRETS)
def test_an_override_wins_over_a_file_of_the_environment_which_is_not_even_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{name.upper()}_FILE", "/absent")
    settings = settings_from_environment(**told(name, **{name: SECRET_VALUES[name]}))
    assert shown(settings, name) == SECRET_VALUES[name]


@pytest.mark.parametrize("name", SECRETS)
def test_an_override_by_a_file_wins_over_the_environment(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(SECRET_VALUES[name])
    monkeypatch.setenv(name.upper(), "postgresql://elsewhere")
    settings = settings_from_environment(**told(name, **{f"{name}_file": tmp_path / "secret"}))
    assert shown(settings, name) == SECRET_VALUES[name]


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_that_cannot_be_used_is_named_with_its_variable(name: str, tmp_path: Path) -> None:
    absent, folder, binary, empty = (tmp_path / file for file in ("absent", "folder", "binary", "empty"))
    folder.mkdir()
    binary.write_bytes(b"\xff\xfe\x00")
    empty.write_text("\n")
    for file, message in {
        absent: f"cannot read {absent}: No such file or directory",
        folder: f"cannot read {folder}: Is a directory",
        binary: f"cannot read {binary}: it is not text in UTF-8",
        empty: f"{empty} is empty",
    }.items():
        with pytest.raises(BadSettings) as refused:
            settings_from_environment(**told(name, **{f"{name}_file": file}))
        assert str(refused.value) == f"{name.upper()}_FILE: {message}"


@pytest.mark.parametrize("name", SECRETS)
def test_an_empty_secret_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), "")
    with pytest.raises(BadSettings, match=f"^{name.upper()} is empty"):
        settings_from_environment(**told(name))


def test_secrets_are_not_shown() -> None:
    settings = settings_from_environment(**whole())
    for secret in SECRET_VALUES.values():
        assert secret not in repr(settings) + str(settings) + str(settings.model_dump()) + settings.model_dump_json()


@pytest.mark.parametrize(
    "wrong",
    [
        {"failpoints": "relay.before_send=kill"},
        {"first_admin_email": None},
        {"command_port": "much"},
        {"database_url": f"postgresql://muster:{PASSWORD}@[db/muster"},
        {"database_url": f"postgres+psycopg://muster:{PASSWORD}@db/muster"},
        {"kek_file": "/absent"},
    ],
)
def test_a_refusal_repeats_no_secret(wrong: dict[str, Any]) -> None:
    values = {**whole(), **wrong}
    with pytest.raises(BadSettings) as told_to_the_operator:
        settings_from_environment(**values)
    with pytest.raises(ValidationError) as told_to_the_programmer:
        Settings(**values)
    for secret in (*SECRET_VALUES.values(), PASSWORD):
        assert secret not in str(told_to_the_operator.value) + str(told_to_the_programmer.value)


def test_the_environment_of_a_process_holds_its_secrets_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_from_environment(**whole(), allowed_origins="https://app.example.com")
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    assert settings_from_environment() == settings


@pytest.mark.parametrize(
    "password",
    [
        *("password", "postgres", "changeme", "change-me", "CHANGE_ME", "%3Cpassword%3E", "secret", "muster", "admin"),
        *("example", "test", "placeholder", "TODO", "x", "xxxxxxxx", "...", "replace-me"),
    ],
)
@pytest.mark.parametrize("url", ["postgresql://ada:{}@db/muster", "postgresql://ada@db/muster?password={}"])
def test_a_database_password_that_everybody_knows_is_refused_in_production(password: str, url: str) -> None:
    with pytest.raises(BadSettings, match=r"^DATABASE_URL holds a placeholder, which production refuses: give"):
        settings_from_environment(database_url=url.format(password))


@pytest.mark.parametrize("mode", ["development", "test"])
def test_placeholders_are_taken_outside_production(mode: str) -> None:
    admin = {**ADMIN, "first_admin_password": "changeme"}
    settings_from_environment(database_url="postgresql://ada:password@db/muster", muster_mode=mode, **admin)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://muster@db/muster",
        "postgresql://muster:@db/muster",
        "postgresql://muster@db/muster?passfile=/secrets/muster/pgpass",
        "postgresql:///muster",
        "postgresql://muster:my-secret-2@db/muster",
    ],
)
def test_a_database_url_without_a_password_or_with_one_of_its_own_is_taken(url: str) -> None:
    assert settings_from_environment(database_url=url).database_url.get_secret_value() == url


@pytest.mark.parametrize("password", ["change-me", "password", "xxxxxxxxxxxx"])
def test_the_first_admin_needs_a_password_of_their_own_in_production(password: str) -> None:
    with pytest.raises(BadSettings, match=r"^FIRST_ADMIN_PASSWORD is a placeholder") as refused:
        settings_from_environment(**DATABASE, **{**ADMIN, "first_admin_password": password})
    assert password not in str(refused.value)


def test_every_placeholder_is_named() -> None:
    with pytest.raises(BadSettings, match=r"^DATABASE_URL .*; FIRST_ADMIN_PASSWORD "):
        settings_from_environment(
            database_url="postgresql://ada:test@db/muster", **{**ADMIN, "first_admin_password": "changeme"}
        )


def test_a_database_url_that_cannot_be_parsed_is_refused_with_an_example() -> None:
    with pytest.raises(BadSettings, match=r"^DATABASE_URL is no connection string of PostgreSQL: write postgresql://"):
        settings_from_environment(database_url="db/muster")


def test_trusted_proxies_are_addresses_and_networks() -> None:
    settings = settings_from_environment(**DATABASE, trusted_proxies="10.0.0.7, 192.168.0.0/16,2001:db8::/32,")
    assert settings.proxies == tuple(
        ip_network(network) for network in ("10.0.0.7/32", "192.168.0.0/16", "2001:db8::/32")
    )


def test_no_proxy_is_trusted_unless_named() -> None:
    assert settings_from_environment(**DATABASE).proxies == ()


@pytest.mark.parametrize("wrong", ["proxy.example.com", "10.0.0.7/16", "10.0.0.0/33", "*"])
def test_a_proxy_that_is_neither_address_nor_network_is_refused(wrong: str) -> None:
    with pytest.raises(BadSettings, match=rf"^TRUSTED_PROXIES: .*{re.escape(wrong)}.*: write addresses"):
        settings_from_environment(**DATABASE, trusted_proxies=f"10.0.0.1,{wrong}")


def test_allowed_origins_are_as_a_browser_writes_them() -> None:
    settings = settings_from_environment(
        **DATABASE, allowed_origins="https://App.Example.com:443, https://bücher.example:8443,http://[::1]:3000,"
    )
    assert settings.origins == {
        "https://app.example.com",
        "https://xn--bcher-kva.example:8443",
        "http://[::1]:3000",
    }


def test_no_other_origin_is_allowed_unless_named() -> None:
    assert settings_from_environment(**DATABASE).origins == frozenset()


@pytest.mark.parametrize(
    "wrong",
    [
        "*",
        "null",
        "app.example.com",
        "https://*.example.com",
        "https://app.example.com/login",
        "https://app.example.com?x=1",
        "https://ada@app.example.com",
        "https://app.example.com:99999",
        "ftp://app.example.com",
        "https://",
    ],
)
def test_what_is_no_origin_is_refused(wrong: str) -> None:
    with pytest.raises(BadSettings, match=rf"^ALLOWED_ORIGINS: '{re.escape(wrong)}' is no origin: write scheme://"):
        settings_from_environment(**DATABASE, allowed_origins=f"https://a.example.com,{wrong}")


def test_production_allows_https_origins_alone() -> None:
    with pytest.raises(BadSettings, match=r"^ALLOWED_ORIGINS: http://app.example.com is not safe in production"):
        settings_from_environment(**DATABASE, allowed_origins="http://app.example.com")


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "http://[::1]"])
def test_production_allows_http_on_this_machine(origin: str) -> None:
    assert settings_from_environment(**DATABASE, allowed_origins=origin).origins == {origin}


@pytest.mark.parametrize("mode", ["development", "test"])
def test_http_origins_are_allowed_outside_production(mode: str) -> None:
    settings = settings_from_environment(**DATABASE, muster_mode=mode, allowed_origins="http://app.example.com")
    assert settings.origins == {"http://app.example.com"}


def example() -> dict[str, str]:
    """Give the values of .env.example, those that are commented out too, but not the files: the other way to tell."""
    found = re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    return {name: value for name, value in found if not name.endswith("_FILE") and name not in SECURED}


def test_the_example_holds_the_defaults_and_runs_in_development(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings(**DATABASE)
    for name, value in example().items():
        monkeypatch.setenv(name, value)
    settings = settings_from_environment(muster_mode="development")
    open_keyring(settings)
    open_digester(settings)
    told_here = {"muster_mode", "first_admin_email", "login_url", "log_origin", *SECRETS}
    assert settings.model_dump(exclude=told_here) == defaults.model_dump(exclude=told_here)


def test_production_refuses_the_secrets_of_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in example().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=r"^DATABASE_URL .*; FIRST_ADMIN_PASSWORD "):
        settings_from_environment()
    mended = settings_from_environment(**DATABASE, **ADMIN)
    with pytest.raises(BadKey, match=r"^KEK is a placeholder"):
        open_keyring(mended)
    with pytest.raises(BadKey, match=r"^EMAIL_INDEX_KEY is a placeholder"):
        open_digester(mended)


@pytest.mark.parametrize("name", SECRETS)
def test_the_example_shows_both_ways_for_every_secret(name: str) -> None:
    for variable in (name.upper(), f"{name.upper()}_FILE"):
        assert re.search(rf"^(# )?{variable}=", EXAMPLE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("value", "seconds"), [("", 0), ("0", 0), ("60", 60), (None, 30 * 86_400)])
def test_the_deleted_are_erased_after_a_while_or_never(
    monkeypatch: pytest.MonkeyPatch, value: str | None, seconds: int
) -> None:
    if value is not None:
        monkeypatch.setenv("ERASE_DELETED_AFTER", value)
    settings = settings_from_environment(muster_mode="test", database_url="postgresql://127.0.0.1:1/nowhere")
    assert settings.erase_deleted_after == seconds
