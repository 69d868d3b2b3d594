"""A ledger by what names it, as the programs that tests kill open one: a file or a database."""

from engine.ledger.address import PostgresAddress, address_of
from engine.ledger.sqlite import SqliteLedger


def open_named(named, clock, **options):
    """Open the ledger at a path or a URL."""
    address = address_of(named)
    if isinstance(address, PostgresAddress):
        from engine.ledger.postgres import PostgresLedger  # noqa: PLC0415 - an extra

        return PostgresLedger.open(address, clock, **options)
    return SqliteLedger.open(address, clock, **options)
