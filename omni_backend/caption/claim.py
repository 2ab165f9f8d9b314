"""One process at a time works on a folder of jobs."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from omni_backend.catalogue import Phrase
from omni_backend.errors import BackendUnavailable

logger = logging.getLogger(__name__)


def claim(folder: Path, taken: Phrase) -> sqlite3.Connection:
    """What keeps other processes from `folder` until it is closed or the process ends.

    Raises BackendUnavailable, which says `taken`, when another has it: both would caption the same files.
    """
    connection = sqlite3.connect(folder / "server.sqlite", check_same_thread=False, isolation_level=None, timeout=0)
    try:
        connection.execute("BEGIN EXCLUSIVE")  # the one lock that every system knows
    except sqlite3.Error as error:
        if sqlite_code(error) == sqlite3.SQLITE_BUSY:
            connection.close()
            raise BackendUnavailable(taken) from error
        logger.warning("nothing keeps other processes from %s: %s", folder, error)  # a disk without locks
    return connection


def sqlite_code(error: sqlite3.Error) -> int:
    """SQLite's own code of an error; SQLITE_ERROR where there is none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
