"""A PostgreSQL server for the tests that need one: its own, in a temporary folder, reached by a socket only.

Test modules ask for it by `pytest_plugins`, and mark what needs it with `postgres`.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_DEBIAN = Path("/usr/lib/postgresql")  # initdb and pg_ctl are not on the path there


def programs() -> Path | None:
    """Folder of initdb and pg_ctl; None where PostgreSQL is not installed."""
    found = shutil.which("pg_ctl")
    folders = sorted(_DEBIAN.glob("*/bin")) if found is None else [Path(found).resolve().parent]
    return folders[-1] if folders else None


def lacks() -> str:
    """What is missing, with the remedy; "" when nothing."""
    return "" if programs() else "PostgreSQL is not installed: make postgres"


def _run(name: str, *words: str) -> None:
    """Run a program of PostgreSQL, which refuses to run as root."""
    folder = programs()
    assert folder is not None  # tests that need it are left out otherwise
    line = [*(("runuser", "-u", "nobody", "--") if os.geteuid() == 0 else ()), str(folder / name), *words]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="session")
def postgres():
    """URL of an empty database."""
    with tempfile.TemporaryDirectory(prefix="phonefit-pg-", dir="/tmp") as name:  # a socket's path has 107 characters
        if os.geteuid() == 0:
            shutil.chown(name, "nobody")
        data = f"{name}/data"
        _run("initdb", "--pgdata", data, "--username", "phonefit", "--auth", "trust", "--no-sync")
        options = f"-k {name} -c listen_addresses= -c fsync=off"
        _run("pg_ctl", "--pgdata", data, "--options", options, "--log", f"{name}/log", "--wait", "start")
        try:
            yield f"postgresql://phonefit@/postgres?host={name}"
        finally:
            _run("pg_ctl", "--pgdata", data, "--mode", "immediate", "--wait", "stop")
