"""Configuration says what is wrong and what to do, and starts nothing unsafe by default."""

import stat
from pathlib import Path

import pytest

from ammeter.config import ConfigurationError, Settings, load, load_pepper

PEPPER = "x" * 32


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"AMMETER_{name.upper()}", raising=False)


def test_every_default_works_and_every_field_is_described() -> None:
    settings = load()
    assert settings.is_embedded
    assert settings.is_development
    assert all(field.description for field in Settings.model_fields.values())


def test_the_environment_is_read_and_an_option_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMMETER_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("AMMETER_CODEC", "zstd")
    settings = load(listen="127.0.0.1:2", codec=None)
    assert (settings.listen, settings.codec) == ("127.0.0.1:2", "zstd")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"listen": "0.0.0.0:7117"}, r"AMMETER_LISTEN=.* is not loopback: set AMMETER_TLS_CERTIFICATE and"),
        ({"listen": "7117"}, r"AMMETER_LISTEN: give host:port"),
        ({"listen": "localhost:99999"}, r"AMMETER_LISTEN: give host:port"),
        ({"tls_key": "key.pem"}, r"AMMETER_TLS_CERTIFICATE and AMMETER_TLS_KEY go together"),
        ({"codec": "gzip"}, r"AMMETER_CODEC: .*'lz4', 'zstd' or 'none'"),
        ({"max_pending_bytes": "many"}, r"AMMETER_MAX_PENDING_BYTES: .*integer.*back-pressure"),
        ({"database_url": "sqlite://"}, r"AMMETER_DATABASE_URL: give a URL such as postgresql://"),
        ({"key_pepper": "short"}, r"AMMETER_KEY_PEPPER is too short: set 32"),
        (
            {"database_url": "postgresql://h/d", "allow_anonymous_loopback": False},
            r"AMMETER_KEY_PEPPER is needed with AMMETER_DATABASE_URL",
        ),
        ({"faults": "fold.before=die"}, r"AMMETER_FAULTS lets things go wrong on purpose: remove it"),
        (
            {"faults": "fold.before=die", "test_faults": True, "allow_anonymous_loopback": False},
            r"AMMETER_FAULTS lets things go wrong on purpose: remove it",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_do(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(**overrides)


@pytest.mark.parametrize(
    "safe",
    [
        {"tls_certificate": "c.pem", "tls_key": "k.pem"},
        {"allow_insecure": True},
    ],
)
def test_off_loopback_it_serves_with_tls_or_on_an_explicit_word(safe: dict[str, object]) -> None:
    settings = load(listen="0.0.0.0:7117", **safe)
    assert not settings.is_development


def test_secrets_do_not_show() -> None:
    settings = load(key_pepper=PEPPER, database_url="postgresql://user:hunter2@host/database")
    assert PEPPER not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_a_pepper_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path / "data")
    pepper = load_pepper(settings)
    assert len(pepper) == 64
    assert load_pepper(settings) == pepper
    assert stat.S_IMODE((tmp_path / "data" / "key-pepper").stat().st_mode) == 0o600
    assert load_pepper(load(key_pepper=PEPPER)) == PEPPER.encode()
