"""The command line as a person or a script runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


class Terminal:
    """Runs `ammeter` against one server."""

    def __init__(self, address: str, **variables: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AMMETER_")}
        self.environment: Mapping[str, str] = {**clean, "AMMETER_ADDRESS": address, **variables}

    def popen(self, *args: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            # env: a shell that runs us in the background makes its children deaf to Ctrl-C
            ["env", "--default-signal=INT", sys.executable, "-m", "ammeter.cli", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def run(self, *args: str, code: int = 0, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run to the end; the exit code must be as said, and nothing may look like a defect."""
        child = self.popen(*args)
        out, err = child.communicate(stdin, timeout=40)
        assert "Traceback" not in err, err
        assert child.returncode == code, f"{args}: exit {child.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(args, child.returncode, out, err)

    def json(self, *args: str, code: int = 0, stdin: str = "") -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.run(*args, "--json", code=code, stdin=stdin).stdout)
