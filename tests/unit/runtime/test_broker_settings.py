import re
from pathlib import Path
from typing import Any

import pytest

from runtime.settings import BadSettings, Settings, broker_settings_from_environment, settings_from_environment
from tests.certificates import Authority

LOGIN: dict[str, Any] = {
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_username": "muster-relay",
    "kafka_sasl_password": "Scr4m-of-the-tests",
}
EXAMPLE = Path(__file__).parents[3] / ".env.example"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        for variable in (name.upper(), f"{name.upper()}_FILE"):
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in LOGIN.items() if key != name}


def test_a_broker_needs_neither_database_nor_login() -> None:
    settings = broker_settings_from_environment()
    assert (settings.kafka_security_protocol, settings.has_tls, settings.has_sasl) == ("PLAINTEXT", False, False)


def test_a_password_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("Scr4m-of-the-tests\n")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "password"))
    settings = broker_settings_from_environment(**without("kafka_sasl_password"))
    assert settings.kafka_sasl_password is not None
    assert settings.kafka_sasl_password.get_secret_value() == "Scr4m-of-the-tests"
    assert settings.kafka_sasl_mechanism == "SCRAM-SHA-512"


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
@pytest.mark.parametrize("missing", ["kafka_sasl_username", "kafka_sasl_password"])
def test_a_login_needs_a_user_and_a_password(protocol: str, missing: str) -> None:
    with pytest.raises(BadSettings, match=rf"^KAFKA_SECURITY_PROTOCOL={protocol} needs .*: set both$"):
        broker_settings_from_environment(**{**without(missing), "kafka_security_protocol": protocol})


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
@pytest.mark.parametrize("mode", ["production", "development"])
def test_a_password_that_would_never_be_sent_is_refused(protocol: str, mode: str) -> None:
    with pytest.raises(
        BadSettings, match=rf"are for SASL, and KAFKA_SECURITY_PROTOCOL is {protocol}: set it to SASL_SSL"
    ):
        broker_settings_from_environment(**{**LOGIN, "kafka_security_protocol": protocol}, muster_mode=mode)


def test_production_sends_no_password_in_the_clear() -> None:
    values = {**LOGIN, "kafka_security_protocol": "SASL_PLAINTEXT"}
    with pytest.raises(
        BadSettings, match=r"would send the password in the clear, which production refuses: use SASL_SSL"
    ):
        broker_settings_from_environment(**values, kafka_sasl_mechanism="PLAIN")
    broker_settings_from_environment(**values, kafka_sasl_mechanism="PLAIN", muster_mode="development")
    # it is never sent itself
    broker_settings_from_environment(**values)


def test_the_example_of_a_login_is_one_and_production_refuses_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in re.findall(r"^# (KAFKA_SASL_[A-Z]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE):
        monkeypatch.setenv(name, value)
    broker_settings_from_environment(kafka_security_protocol="SASL_SSL", muster_mode="development")
    with pytest.raises(BadSettings, match=r"^KAFKA_SASL_PASSWORD is a placeholder"):
        broker_settings_from_environment(kafka_security_protocol="SASL_SSL")


@pytest.mark.parametrize("name", ["kafka_ca_file", "kafka_certificate_file", "kafka_key_file", "kafka_key_password"])
def test_files_of_tls_without_tls_are_refused(name: str) -> None:
    with pytest.raises(
        BadSettings, match=rf"^{name.upper()}: for TLS, and KAFKA_SECURITY_PROTOCOL is PLAINTEXT: set it"
    ):
        broker_settings_from_environment(**{name: "/absent"})


@pytest.mark.parametrize("name", ["kafka_certificate_file", "kafka_key_file"])
def test_half_a_pair_is_refused(name: str) -> None:
    with pytest.raises(BadSettings, match=r"^KAFKA_CERTIFICATE_FILE and KAFKA_KEY_FILE go together"):
        broker_settings_from_environment(kafka_security_protocol="SSL", **{name: "/absent"})


def test_a_password_of_no_key_is_refused() -> None:
    with pytest.raises(BadSettings, match=r"^KAFKA_KEY_PASSWORD is for KAFKA_KEY_FILE"):
        broker_settings_from_environment(kafka_security_protocol="SSL", kafka_key_password="k3y")


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    pair, other = authority.issue("one", "one.example.com"), authority.issue("other", "other.example.com")
    (tmp_path / "text").write_text("no PEM")
    (tmp_path / "folder").mkdir()
    for values, message in (
        ({"ca": "/absent"}, "KAFKA_CA_FILE: cannot read /absent: No such file or directory"),
        ({"ca": tmp_path / "folder"}, f"KAFKA_CA_FILE: cannot read {tmp_path / 'folder'}: Is a directory"),
        ({"ca": tmp_path / "text"}, f"KAFKA_CA_FILE: {tmp_path / 'text'} holds no certificates in PEM"),
        (
            {"certificate": pair.certificate, "key": "/absent"},
            "KAFKA_KEY_FILE: cannot read /absent: No such file or directory",
        ),
        (
            {"certificate": pair.certificate, "key": other.key},
            f"KAFKA_KEY_FILE: {other.key} is not the key of the certificate in {pair.certificate}",
        ),
        (
            {"certificate": tmp_path / "text", "key": pair.key},
            (
                f"KAFKA_CERTIFICATE_FILE and KAFKA_KEY_FILE: {tmp_path / 'text'} has to hold a certificate in PEM, and"
                f" {pair.key} its key, which KAFKA_KEY_PASSWORD opens if it is encrypted"
            ),
        ),
    ):
        told = {f"kafka_{name}_file": file for name, file in values.items()}
        with pytest.raises(BadSettings) as refused:
            broker_settings_from_environment(kafka_security_protocol="SSL", **told)
        assert str(refused.value) == message


def test_an_encrypted_key_is_opened_by_its_password_alone_and_nobody_is_asked_for_one(authority: Authority) -> None:
    pair = authority.issue("sealed", "sealed.example.com", password="K3y-of-the-tests")
    values: dict[str, Any] = {
        "kafka_security_protocol": "SSL",
        "kafka_certificate_file": pair.certificate,
        "kafka_key_file": pair.key,
    }
    broker_settings_from_environment(**values, kafka_key_password="K3y-of-the-tests")
    for wrong in ({}, {"kafka_key_password": "another"}):
        with pytest.raises(BadSettings, match=r"which KAFKA_KEY_PASSWORD opens if it is encrypted$") as refused:
            broker_settings_from_environment(**values, **wrong)
        assert "another" not in str(refused.value)


def test_what_is_wrong_with_broker_and_rest_is_told_at_once() -> None:
    with pytest.raises(BadSettings, match=r"^FIRST_ADMIN_EMAIL and .*; KAFKA_SECURITY_PROTOCOL=SASL_SSL needs "):
        settings_from_environment(
            database_url="postgresql://db/muster", first_admin_email="a@example.com", kafka_security_protocol="SASL_SSL"
        )


def test_a_mechanism_that_is_none_is_refused() -> None:
    with pytest.raises(BadSettings, match=r"^KAFKA_SASL_MECHANISM: .*SCRAM-SHA-512"):
        broker_settings_from_environment(**LOGIN, kafka_sasl_mechanism="GSSAPI")
