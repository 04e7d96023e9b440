"""What git knows of the folder that phonefit runs in."""

import datetime
import os
import shutil
import subprocess


def commit_id() -> str:
    """The commit that is checked out here; "" outside a repository or without git."""
    return os.environ.get("GITHUB_SHA") or _git("rev-parse", "HEAD")


def tag_day(name: str) -> datetime.date | None:
    """The day of the commit that a tag names; None where there is no such tag."""
    found = _git("log", "-1", "--format=%cs", f"refs/tags/{name}", "--")
    return datetime.date.fromisoformat(found) if found else None


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run([git, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
