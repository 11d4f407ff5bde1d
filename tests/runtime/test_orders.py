"""Orders that reach a node in different ways."""

from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Oban
from tests.conftest import StartOban
from tests.listening import hear
from tests.proxy import Proxy
from tests.runtime.conftest import until
from tests.services import services


async def test_an_order_given_while_its_wire_is_cut(
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
