"""A connection to a host that vanished ends within seconds, not when TCP would give up by itself."""

from contextlib import closing

import psycopg

from ammeter.store.db import Database


def _parameters(url: str) -> dict[str, str]:
    with closing(Database(url)) as db, closing(db.raw()) as raw, db.engine() as conn:
        pooled = conn.connection.driver_connection
        assert isinstance(pooled, psycopg.Connection)
        found = raw.info.get_parameters()
        assert pooled.info.get_parameters()["tcp_user_timeout"] == found["tcp_user_timeout"]
        return found


def test_silence_is_not_waited_out(database_url: str) -> None:
    found = _parameters(database_url)
    assert int(found["tcp_user_timeout"]) <= 10_000
    assert int(found["keepalives_idle"]) + 3 * int(found["keepalives_interval"]) < 30


def test_what_the_url_says_stands(database_url: str) -> None:
    assert _parameters(f"{database_url}&tcp_user_timeout=1234")["tcp_user_timeout"] == "1234"
