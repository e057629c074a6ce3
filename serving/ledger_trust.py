"""Trust in a ledger, kept outside of its database: the key of its hashes, the newest entry seen, and a checkpoint.

Somebody who can write the database alone can then neither forge an entry nor cut the chain at its end unseen.
"""

import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sluice.core.canonical import canonical_json
from sluice.core.files import create_private, read_private, write_json

KEY_VARIABLE = "SLUICE_LEDGER_KEY"
"""Environment variable with the key, for processes that share a database but no folder."""
KEY_FILE = "hmac.key"
MIN_KEY_LENGTH = 32


@dataclass(frozen=True)
class Head:
    """The newest entry of a chain."""

    sequence: int
    hash: str


class LedgerTrust:
    """Key and anchors in `folder`. The anchor of a chain is the newest entry that a process of this folder has seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def key_file(self) -> Path:
        return self.folder / KEY_FILE

    def key(self) -> bytes | None:
        """Return `SLUICE_LEDGER_KEY`, else the key in the folder; None if there is none.

        Raises ValueError for a key that is too short.
        """
        if given := os.environ.get(KEY_VARIABLE):
            key, place = given.encode(), KEY_VARIABLE
        elif self.key_file.is_file():
            key, place = read_private(self.key_file), str(self.key_file)
        else:
            return None
        key = key.strip()  # of a file's last newline, which secrets are often made with
        if len(key) < MIN_KEY_LENGTH:
            raise ValueError(
                f"{place} has {len(key)} characters, but a key of the ledger has {MIN_KEY_LENGTH} or more: put back "
                "the key with which the ledger was written; if it is lost, take this one away, and `sluice history` "
                "shows how to repair the ledger"
            )
        return key

    def make_key(self) -> bytes:
        """Make the key in the folder, readable by its owner alone, unless there is one; return the one in force."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_private(self.key_file, secrets.token_hex(MIN_KEY_LENGTH).encode())
        key = self.key()
        assert key is not None
        return key

    def anchor_file(self, chain: str) -> Path:
        return self.folder / f"{chain}.json"

    def anchor(self, chain: str) -> Head | None:
        """Return the newest entry that was noted. Raises ValueError if the note cannot be read."""
        path = self.anchor_file(chain)
        try:
            return Head(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise ValueError(f"{path} cannot be read") from None

    def note(self, chain: str, head: Head) -> None:
        """Note a verified entry that is newer than the anchor, or the end of a chain that was repaired."""
        write_json(self.anchor_file(chain), asdict(head))

    def checkpoint_file(self, chain: str) -> Path:
        return self.folder / f"{chain}.checkpoint"

    def checkpoint(self, chain: str) -> dict[str, Any] | None:
        """Return the checkpoint of the chain as it was noted; None where there is none, or it is not by the key."""
        try:
            noted = json.loads(self.checkpoint_file(chain).read_text())
            content, mac = noted["content"], noted["hmac"]
            key = self.key()
            if key is not None and hmac.compare_digest(_checkpoint_hmac(chain, content, key), mac):
                return dict(content)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        return None

    def note_checkpoint(self, chain: str, content: Mapping[str, Any]) -> None:
        """Note `content` (plain JSON), from which a new process of this folder may go on without the entries before."""
        if (key := self.key()) is not None:
            noted = {"content": dict(content), "hmac": _checkpoint_hmac(chain, content, key)}
            write_json(self.checkpoint_file(chain), noted)


def _checkpoint_hmac(chain: str, content: Mapping[str, Any], key: bytes) -> str:
    # Begins unlike the JSON of an entry, so that the hash of neither passes for one of the other.
    return hmac.digest(key, b"checkpoint" + canonical_json({"chain": chain, "content": content}), "sha256").hex()
