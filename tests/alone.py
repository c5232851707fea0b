"""Git and DVC in tests: nothing of the machine that the tests run on takes part, no settings and no credentials."""

import os
import subprocess
from pathlib import Path

GIT = dict.fromkeys(("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"), os.devnull)
GIT |= {f"GIT_{who}_{what}": "team@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
GIT |= {"GIT_EDITOR": "true"}
ALONE = GIT | {
    "HOME": "/nowhere",
    "AWS_EC2_METADATA_DISABLED": "true",
    "DVC_GLOBAL_CONFIG_DIR": "/nowhere",
    "DVC_SYSTEM_CONFIG_DIR": "/nowhere",
}


def git(*words: str, cwd: Path | None = None, fails: bool = False) -> str:
    """What Git prints, and where it fails its errors as well."""
    done = subprocess.run(["git", *words], cwd=cwd, env=os.environ | ALONE, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return (done.stdout + done.stderr if fails else done.stdout).rstrip()
