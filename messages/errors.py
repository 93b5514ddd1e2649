"""Every error Shoal raises on purpose, and what to do about it.

ShoalError
├── UsageError      you asked for something that cannot be: correct the input the text names (exit 2)
│   └── ConfigError a settings or plant file is wrong: the text names file, key and cure
├── BadMessage      bytes that break a contract: dead-letter, count and acknowledge them
├── BusLost         no connection to the broker now: wait, the caller keeps what it wanted to send
    │   └── BusRefused  the broker said no (rights, quota): as above, but a person must look at its rules
├── StoreError      the store refused or is unreachable
│   ├── StoreDown   try again later, for ever
│   │   └── StoreRefused  the store said no (rights, no such database): as above, but a person must look at it
│   └── BadRows     these rows will never fit: quarantine them
└── BrokenInvariant a promise does not hold: end the process non-zero; the message comes again
"""

from __future__ import annotations


class ShoalError(Exception):
    """Root of all deliberate errors; the text tells the operator the cure."""


class UsageError(ShoalError):
    """The user asked for something impossible; the command ends with exit code 2."""


class ConfigError(UsageError):
    """A settings or plant file is wrong."""


class BadMessage(ShoalError):
    """Bytes or a topic that break a contract."""


class BusLost(ShoalError):
    """The broker is not connected, or the connection went before it answered."""


class BusRefused(BusLost):
    """The broker answered no: credentials, access rules or a quota; the text says which."""


class StoreError(ShoalError):
    """The store did not take the rows."""


class StoreDown(StoreError):
    """The store cannot be reached or is busy; nothing was decided, try again."""

    def __init__(self, text: str, *, again_in_s: float = 0.0) -> None:
        """`again_in_s`: the store asked not to be asked sooner."""
        super().__init__(text)
        self.again_in_s = again_in_s


class StoreRefused(StoreDown):
    """The store answered no: credentials, rights or a database that is not there; the text says which."""


class BadRows(StoreError):
    """The store will never take these rows."""


class BrokenInvariant(ShoalError):
    """A promise of this program does not hold; stop rather than go on."""
