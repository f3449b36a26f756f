"""Every command of the README works as it stands, on the server that it says to start."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
ADDRESS = "127.0.0.1:7117"
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
MAKE = [block for block in BLOCKS if block.startswith("make ")]
TALK = [block for block in BLOCKS if not block.startswith("make ")]

# A demo starts Postgres, records 50,000 events and bills a month: seconds, but not on a busy machine.
pytestmark = pytest.mark.timeout(180)


@dataclass
class Demo:
    """A `make run` that stays, on ports and a directory of its own."""

    process: "subprocess.Popen[str]"
    environment: Mapping[str, str]
    shown: str


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def environment(open_directory: Path) -> Mapping[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AMMETER_")}
    address = free_address()
    return {
        **clean,
        "AMMETER_ADDRESS": address,
        "AMMETER_LISTEN": address,
        "AMMETER_METRICS_LISTEN": free_address(),
        "AMMETER_DATA_DIR": str(open_directory / "readme"),
        "PATH": os.pathsep.join([*tool_folders(), os.environ["PATH"]]),
    }


def tool_folders() -> list[str]:
    """Where grpcurl may have been installed to."""
    folders = [str(ROOT / ".tools" / "bin")]
    if go := shutil.which("go"):
        path = subprocess.check_output([go, "env", "GOPATH"], text=True).strip()
        folders.append(str(Path(path) / "bin"))
    return folders


@pytest.fixture(scope="module")
def demo(environment: Mapping[str, str]) -> Iterator[Demo]:
    with run_demo(environment, "--stay") as process:
        assert process.stdout is not None
        shown = ""
        for line in process.stdout:
            shown += line
            if "until Ctrl-C" in line:
                break
        yield Demo(process, environment, shown)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def run_demo(environment: Mapping[str, str], *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "ammeter.cli", "demo", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def planned(target: str) -> str:
    command = ["make", "--dry-run", "--no-print-directory", target]
    return subprocess.check_output(command, cwd=ROOT, text=True).rstrip()


def test_the_make_commands_do_what_the_readme_says() -> None:
    assert MAKE == ["make run\n", "make test\n"]
    assert planned("run").endswith("ammeter demo --stay")
    assert "cargo test" in planned("test")
    assert planned("test").endswith("pytest")


def test_the_demo_shows_usage_a_yes_a_no_and_an_invoice(demo: Demo) -> None:
    for part in (
        "Acme Search",
        "mistral-small",
        "yes: allowed",
        "no: limit reached",
        "Platform fee",
        "issued",
        "Requests",
        "tier 1, from 0 to 1000000",
    ):
        assert part in demo.shown, demo.shown
    (paper,) = Path(demo.environment["AMMETER_DATA_DIR"]).glob("invoice-DEMO-*.pdf")
    assert paper.read_bytes().startswith(b"%PDF-")
    assert str(paper) in demo.shown
    commands = [line for line in demo.shown.splitlines() if line.startswith("grpcurl ")]
    assert len(commands) == 3
    for command in commands:
        run(command, demo)


@pytest.mark.parametrize("block", TALK)
def test_the_command_works(block: str, demo: Demo) -> None:
    run(block.replace(ADDRESS, demo.environment["AMMETER_ADDRESS"]), demo)


def run(block: str, demo: Demo) -> None:
    if "grpcurl" in block and not shutil.which("grpcurl", path=demo.environment["PATH"]):
        if os.environ.get("CI"):
            pytest.fail("grpcurl is missing, and in CI the README's commands must run")
        pytest.skip("grpcurl is missing: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=ROOT,
        env=demo.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert done.stdout, block


def test_the_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_ctrl_c_ends_the_demo_and_its_server_in_order_and_the_next_run_goes_on(demo: Demo) -> None:
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0
    data = Path(demo.environment["AMMETER_DATA_DIR"])
    assert '"stopped"' in (data / "demo.log").read_text().splitlines()[-1]
    assert not list(data.glob("postgres/cluster/postmaster.pid"))
    with run_demo(demo.environment) as again:
        shown, _ = again.communicate(timeout=90)
    assert again.returncode == 0, shown
    assert "counted by an earlier run and not again" in shown
    assert "(0 new invoices issued" in shown
