"""The command line over the wire: what it prints, and what its exit codes mean."""

import json
import signal
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.rpc.terminal import Terminal
from tests.serving import ServerProcess


@pytest.fixture(scope="module")
def terminal(server: ServerProcess) -> Terminal:
    return Terminal(server.address)


def lines(events: Iterable[dict[str, object]]) -> str:
    return "".join(f"{json.dumps(each)}\n" for each in events)


def event(number: int, **facts: object) -> dict[str, object]:
    return {"id": f"e-{number}", "source": "cli", "type": "call", "subject": "s", **facts}


def test_a_meter_counts_what_a_file_records(terminal: Terminal, tmp_path: Path) -> None:
    made = terminal.json("meter", "create", "calls", "--type", "counted", "--aggregation", "count")
    assert made["state"] == "STATE_ACTIVE"
    file = tmp_path / "events.jsonl"
    file.write_text(lines(event(n, type="counted", subject=f"s-{n % 3}") for n in range(1_500)))
    recorded = terminal.json("usage", "record", str(file))
    assert recorded["accepted_count"] == 1_500
    answer = terminal.json("usage", "query", "calls", "--group-by", "subject", "--from", "1h")
    assert [(row["group_values"], row["value"]) for row in answer["rows"]] == [
        ([f"s-{n}"], "500") for n in range(3)
    ]
    assert int(answer["position"]) >= recorded["position"]


def test_numbers_in_json_lines_stay_exact(terminal: Terminal) -> None:
    terminal.run("meter", "create", "exact", "--type", "exact", "--aggregation", "sum", "--value", "v")
    numbers = ["0.1", "0.2", "1e2", "12345678901234567890123456", "0.000000000001", "-3E-1"]
    start = '"source": "exact", "type": "exact", "subject": "s", "properties": {"v": '
    text = "".join(f'{{"id": "{n}", {start}{number}}}}}\n' for n, number in enumerate(numbers))
    terminal.run("usage", "record", "-", stdin=text)
    rows = terminal.json("usage", "query", "exact")["rows"]
    assert [row["value"] for row in rows] == ["12345678901234567890123556.000000000001"]


def test_every_line_that_was_not_counted_is_named(terminal: Terminal) -> None:
    long_ago = (datetime.now(UTC) - timedelta(days=40)).isoformat()
    text = lines([event(1, source="bad", properties={"a": 1}), event(2, source="bad", time=long_ago)])
    text += '{"source": "bad", "type": "call", "subject": "s"}\nnot json\n\n'
    text += lines([event(1, source="bad", properties={"a": 2}), {**event(4, source="bad"), "subjct": "s"}])
    summary = terminal.json("usage", "record", "-", stdin=text, code=1)
    found = [(each["line"], each["outcome"], each["reason"]) for each in summary["problems"]]
    assert found == [
        (2, "rejected", "EVENT_TOO_OLD"),
        (3, "rejected", "LINE_INVALID"),
        (4, "rejected", "LINE_INVALID"),
        (6, "conflict", ""),
        (7, "rejected", "LINE_INVALID"),
    ]
    assert (summary["accepted_count"], summary["conflict_count"], summary["rejected_count"]) == (1, 1, 4)
    assert "id is missing" in terminal.run("usage", "record", "-", stdin=text, code=1).stdout


def test_ids_made_from_file_and_line_count_once_however_often_a_file_is_sent(
    terminal: Terminal, tmp_path: Path
) -> None:
    file = tmp_path / "without-ids.jsonl"
    file.write_text(lines({"source": "auto", "type": "call", "subject": "s"} for _ in range(700)))
    first = terminal.json("usage", "record", str(file), "--assign-ids")
    again = terminal.json("usage", "record", "--assign-ids", str(file))
    assert (first["accepted_count"], again["accepted_count"], again["duplicate_count"]) == (700, 0, 700)


def test_recording_outlives_the_server(server: ServerProcess, terminal: Terminal) -> None:
    terminal.run("meter", "create", "survivors", "--type", "survivor", "--aggregation", "count")
    sending = terminal.popen("usage", "record", "-", "--json")
    assert sending.stdin is not None
    assert sending.stderr is not None
    batches = [
        lines(event(n, source="survivor", type="survivor") for n in range(b, b + 500))
        for b in range(0, 9_000, 500)
    ]
    sending.stdin.write("".join(batches[:9]))
    sending.stdin.flush()
    while not terminal.run("events", "--source", "survivor", "--limit", "1", "--json").stdout:
        pass
    server.kill()
    sending.stdin.write(batches[9])
    sending.stdin.flush()
    said = sending.stderr.readline()
    assert "nothing is lost" in said, said
    server.start()
    out, err = sending.communicate("".join(batches[10:]), timeout=40)
    assert sending.returncode == 0, err
    summary = json.loads(out)
    # What was in the air when the server died may have been counted before.
    assert summary["accepted_count"] + summary["duplicate_count"] == 9_000
    assert terminal.json("usage", "query", "survivors")["rows"][0]["value"] == "9000"


def test_a_check_exits_with_0_for_yes_and_3_for_no(terminal: Terminal, tmp_path: Path) -> None:
    plan = {
        "plan_key": "basic",
        "rate_cards": [{"rate_card_key": "chat", "feature_key": "chat", "entitlement": {"boolean": {}}}],
    }
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    terminal.run("feature", "create", "chat")
    terminal.run("plan", "create", str(file))
    terminal.run("customer", "create", "acme", "--subject", "acme-1")
    assert terminal.json("check", "acme", "chat", code=3)["access"]["reason"] == "ACCESS_REASON_NOT_ENTITLED"
    subscription = terminal.json("subscribe", "acme", "basic", "--from", "2d")
    assert terminal.json("check", "acme-1", "chat", "--subject")["access"]["access"] is True
    terminal.run("cancel", subscription["subscription_id"])
    assert terminal.run("check", "acme", "chat", code=3).stdout.startswith("no: ")


def test_a_refusal_names_every_field_at_fault(terminal: Terminal) -> None:
    refused = terminal.run("customer", "create", "x", "--time-zone", "Mars/One", "--currency", "XXXX", code=1)
    assert refused.stdout == ""
    assert "customer.time_zone: " in refused.stderr
    assert "customer.currency: " in refused.stderr


def test_what_protobuf_would_not_take_of_a_line_is_a_sentence(terminal: Terminal) -> None:
    for args, said in (
        (("subscription", "quantity", "sub_x", "9" * 20), "is too great a number"),
        (("plan", "get", "\udcff"), "is not UTF-8"),
    ):
        stderr = terminal.run(*args, code=1).stderr
        assert said in stderr
        assert "Traceback" not in stderr


def test_no_server_is_said_with_its_address_and_what_to_do() -> None:
    failed = Terminal("127.0.0.1:1").run("meter", "list", code=1)
    assert "127.0.0.1:1" in failed.stderr
    assert "ammeter serve" in failed.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("no-such-verb",),
        ("check", "acme"),
        ("usage", "query", "m", "--from", "soonish"),
        ("meter", "update", "calls"),
    ],
)
def test_wrong_usage_exits_with_2(terminal: Terminal, args: tuple[str, ...]) -> None:
    assert terminal.run(*args, code=2).stdout == ""


def test_global_options_may_stand_anywhere(server: ServerProcess) -> None:
    elsewhere = Terminal("127.0.0.1:1")
    answer = elsewhere.run("customer", "list", "--json", "--address", server.address).stdout
    assert "customers" in json.loads(answer)


def test_a_key_opens_what_its_scopes_say(terminal: Terminal) -> None:
    made = terminal.json("key", "create", "gateway", "--scope", "ingest")
    recorded = terminal.json(
        "usage", "record", "-", "--key", made["secret"], stdin=lines([event(9, source="keyed")])
    )
    assert recorded["accepted_count"] == 1
    assert "read" in terminal.run("meter", "list", "--key", made["secret"], code=1).stderr
    terminal.run("key", "revoke", made["key"]["key_id"])
    assert made["secret"] not in terminal.run("key", "list").stdout


def test_ctrl_c_ends_a_recording_without_noise(terminal: Terminal) -> None:
    sending = terminal.popen("usage", "record", "-")
    assert sending.stdin is not None
    sending.stdin.write(lines(event(n, source="stopped") for n in range(600)))
    sending.stdin.flush()
    while not terminal.run("events", "--source", "stopped", "--limit", "1", "--json").stdout:
        pass
    sending.send_signal(signal.SIGINT)
    _, err = sending.communicate(timeout=20)
    assert sending.returncode == 130
    assert "Traceback" not in err
    assert "run the same again" in err


def test_doctor_finds_a_healthy_server(server: ServerProcess) -> None:
    examined = Terminal(server.address, AMMETER_LISTEN=server.address).json("doctor")
    assert {each["state"] for each in examined["findings"]} == {"ok"}
    assert any("healthy" in each["text"] for each in examined["findings"])


def test_a_plan_file_takes_every_kind_of_price_and_the_card_says_what_they_are(
    terminal: Terminal, tmp_path: Path
) -> None:
    tiers = [{"up_to": "1000", "unit_amount": "0"}, {"unit_amount": "0.01", "flat_amount": "5"}]
    cards = {
        "graduated": {"tiers": tiers},
        "package": {"package_size": "1000", "package_amount": "2"},
        "percentage": {"percentage": "2.9", "event_amount": "0.3"},
        "matrix": {"dimensions": ["model"], "cells": [], "default_unit_amount": "1"},
    }
    terminal.run(
        "meter",
        "create",
        "spent",
        "--type",
        "use",
        "--aggregation",
        "sum",
        "--value",
        "n",
        "--dimension",
        "model",
    )
    for kind in cards:
        terminal.run("feature", "create", f"spent_{kind}", "--meter", "spent")
    plan = {
        "plan_key": "priced",
        "minimum_amount": "100",
        "rate_cards": [
            {
                "rate_card_key": kind,
                "feature_key": f"spent_{kind}",
                "price": {kind: price},
                "unit_conversion": {"divide_by": "1000", "rounding": "ROUNDING_CEILING"},
                "discounts": {"percentage": "10"},
                "commitments": {"maximum_amount": "50"},
            }
            for kind, price in cards.items()
        ],
    }
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    shown = " ".join(terminal.run("plan", "create", str(file)).stdout.split())
    assert "0.3 an event" in shown
    assert terminal.json("plan", "get", "priced")["minimum_amount"] == "100"
    terminal.run("customer", "create", "priced", "--subject", "priced-1")
    terminal.run("subscribe", "priced", "priced", "--from", "2d")
    preview = terminal.run("invoice", "preview", "priced").stdout
    assert "charged in the period" in preview
    assert "10 percent discount" in preview
