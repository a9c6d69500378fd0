"""TLS of a client: whom it trusts, and what it shows of itself. Host names are always verified."""

import ssl
from pathlib import Path


def client_context(
    *, authorities: Path | None, certificate: Path | None, key: Path | None, key_password: str | None
) -> ssl.SSLContext:
    """Trust the authorities in a PEM file, or those of this machine; show the certificate, if there is one.

    Raises ValueError, which begins with the setting to mend and repeats nothing of what a file holds.
    """
    named = {"KAFKA_CA_FILE": authorities, "KAFKA_CERTIFICATE_FILE": certificate, "KAFKA_KEY_FILE": key}
    for variable, file in named.items():
        if file is not None:
            _check_readable(variable, file)
    try:
        context = ssl.create_default_context(cafile=authorities)
    except ssl.SSLError:
        raise ValueError(f"KAFKA_CA_FILE: {authorities} holds no certificates in PEM") from None
    if certificate is not None:
        try:
            # never without a password: OpenSSL would ask the terminal for one
            context.load_cert_chain(certificate, key, password=key_password or "")
        except ssl.SSLError as error:
            raise ValueError(_wrong_pair(error, certificate, key)) from None
    return context


def _check_readable(variable: str, file: Path) -> None:
    try:
        file.open("rb").close()
    except OSError as error:
        raise ValueError(f"{variable}: cannot read {file}: {error.strerror}") from None


def _wrong_pair(error: ssl.SSLError, certificate: Path, key: Path | None) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"KAFKA_KEY_FILE: {key} is not the key of the certificate in {certificate}"
    return (
        f"KAFKA_CERTIFICATE_FILE and KAFKA_KEY_FILE: {certificate} has to hold a certificate in PEM, and {key} its key,"
        " which KAFKA_KEY_PASSWORD opens if it is encrypted"
    )
