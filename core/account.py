"""The user of this process, where the system has no account of that number: pods run under numbers of their own."""

import os
import pwd
import tempfile
from pathlib import Path


def name_user() -> None:
    """Set USER and a HOME that can be written, where there is no account: `getpass.getuser` fails otherwise, on which
    torch, DVC and MLflow rely.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", "sluice")
        if not os.access(Path(os.environ.get("HOME") or "/"), os.W_OK):
            os.environ["HOME"] = tempfile.gettempdir()
