"""Orders that reach a node in different ways."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Oban
from tests.conftest import StartOban
from tests.listening import hear
from tests.proxy import Proxy
from tests.runtime.conftest import until
from tests.services import services


async def test_an_order_given_while_the_node_is_disconnected_is_followed(
    proxy: Proxy,
    engine: AsyncEngine,
    start: StartOban,
    prefix: str,
    quick: None,
    expect_errors: None,
) -> None:
    """Nobody sends the order again: the node reads it when it listens again."""
    node = await start(proxy.dsn, prefix=prefix, queues={"alpha": 1})
    await until(lambda: services(node).notifier.listening)
    with hear(node, "notifier_lost") as lost, hear(node, "queue_paused") as paused:
        await proxy.refuse()
        proxy.cut()
        await lost.wait()
        await Oban(engine, prefix=prefix).pause_queue("alpha")
        await proxy.allow()
        await paused.wait()


async def test_an_invalid_stored_order_does_not_stop_the_start(
    engine: AsyncEngine, start: StartOban, prefix: str
) -> None:
    """Other programs may have written any JSON."""
    insert = text(
        f'INSERT INTO "{prefix}".oban_sqla_controls (name, node, queue, setting, value, changed_at)'
        " VALUES ('Oban', '*', :queue, 'paused', CAST(:value AS jsonb), now())"
    )
    async with engine.begin() as connection:
        for number, value in enumerate(("[]", "null", "{}", '"pause"')):
            await connection.execute(insert, {"queue": f"q{number}", "value": value})
    oban = await start(queues={"alpha": 1})
    assert not oban.check_one_queue("alpha").paused


async def test_an_order_with_a_bool_as_limit_is_ignored(start: StartOban) -> None:
    oban = await start(queues={"alpha": 2})
    orders = services(oban).orders
    orders.hear({"action": "scale", "queue": "alpha", "limit": True, "ident": "any"})
    await orders.run_once()
    assert oban.check_one_queue("alpha").limit == 2
