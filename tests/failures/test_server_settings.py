"""Settings of the role that end statements, transactions and connections early."""

import psycopg
import pytest

from tests.failures.bank import Bank
from tests.failures.conftest import Runs, Spawn

pytestmark = pytest.mark.torture


@pytest.mark.parametrize(
    "setting",
    [
        "statement_timeout=200",
        "lock_timeout=20",
        "idle_in_transaction_session_timeout=200",
        "idle_session_timeout=200",
        "transaction_timeout=500",
    ],
)
async def test_money_is_moved_once_although_the_server_gives_up_early(
    runs: Runs, spawn: Spawn, setting: str
) -> None:
    with psycopg.connect(runs.dsn) as connection:
        if connection.info.server_version < 170000 and setting.startswith("transaction_timeout"):
            pytest.skip("PostgreSQL has the setting since version 17")
    bank = Bank(runs, notes=200, transfers=200)
    await bank.close(await bank.open(spawn, connect_args={"options": f"-c {setting}"}))
