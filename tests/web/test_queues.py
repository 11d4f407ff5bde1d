"""Queues, and orders to them."""

import asyncio

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, Limit, Oban, Rate, Worker
from oban_sqla.models import QueueOrder
from tests.conftest import Add, StartOban
from tests.factories import JobFactory
from tests.listening import hear
from tests.runtime.conftest import until
from tests.web.conftest import Open
from tests.web.site import Site

SCALE = ("action", "scale")


async def test_a_page_without_queues_says_so(site: Site) -> None:
    assert "No queue runs" in (await site.read("queues")).text


async def test_a_queue_that_no_node_runs_is_marked(site: Site, add: Add) -> None:
    await add(JobFactory(queue="lost"))
    assert "no node runs it" in (await site.read("queues")).text


async def test_a_queue_is_paused_resumed_and_scaled(site: Site, start: StartOban) -> None:
    node = await start(queues={"mail/ers": 3}, node="n1")
    page = await site.read("queues")
    assert "mail/ers" in page.text
    assert "n1" in page.text
    with hear(Oban, "dashboard_action") as actions, hear(node, "queue_paused") as paused:
        await site.send(page, ("action", "pause"))
        await paused.wait()
    token = await site.token()
    with hear(node, "queue_resumed") as resumed:
        resume = [("action", "resume"), ("queue", "mail/ers"), ("node", "n1")]
        await site.post("/queues/order", [*resume, token])
        await resumed.wait()
    scale = [("action", "scale"), ("queue", "mail/ers"), ("limit", "7"), token]
    with hear(Oban, "dashboard_action") as scaled:
        await site.post("/queues/order", scale)
    assert [one.action for one in actions.events] == ["pause_queue"]
    assert [one.action for one in scaled.events] == ["scale_queue"]


async def test_limits_over_all_nodes_are_set_and_removed(open_site: Open, start: StartOban) -> None:
    node = await start(queues={"mail": {"limit": 3, "global_limit": 5}})
    site = open_site(oban=node)

    async def send(**fields: str) -> None:
        """Change the limits in the form of the queue."""
        shown = await site.read("queues")
        given = {
            str(one["name"]): one.get("value") or ""
            for tag, one in shown.elements
            if tag == "input" and one.get("name") in ("global_limit", "starts", "period", "burst")
        }
        form = next(one for one in shown.forms if "rate_was" in dict(one.fields))
        await site.post(form.action, [*form.fields, *(given | fields).items(), SCALE])

    async def shows(words: str) -> None:
        async def found() -> bool:
            site.look_again()
            return words in (await site.read("queues")).text

        await until(found)

    await shows("5 at once on all nodes")
    await send(starts="14", period="1.5", burst="6")
    await shows("5 at once on all nodes 14 starts in 1.5 s, and a burst of 6")
    await send(global_limit="8")
    await shows("8 at once on all nodes 14 starts in 1.5 s, and a burst of 6")
    await send(starts="", period="", burst="", global_limit="")
    await shows("Limits over all nodes: none")
    assert node.check_one_queue("mail").meta.keys().isdisjoint({"global_limit", "rate_limit"})


async def test_only_a_changed_limit_is_ordered(
    open_site: Open, start: StartOban, sessions: async_sessionmaker[AsyncSession]
) -> None:
    node = await start(queues={"mail": {"limit": 3, "rate_limit": Rate(5, per=60)}})
    site = open_site(oban=node)
    fields = [("queue", "mail"), ("rate_was", "5/60/"), SCALE, await site.token()]
    fields += [("starts", "5"), ("period", "60"), ("limit", "4")]
    await site.post("/queues/order", fields)
    assert node.check_one_queue("mail").limit == 4
    async with sessions() as session:
        assert (await session.scalars(select(QueueOrder.setting))).all() == ["limit"]


async def test_a_viewer_without_the_right_only_sees_the_limits(
    open_site: Open, start: StartOban
) -> None:
    await start(queues={"mail": {"limit": 3, "global_limit": 5}})
    page = await open_site(authorize=lambda request: "read").read("queues")
    assert "5 at once on all nodes" in page.text
    assert page.forms == []


INVALID: list[list[tuple[str, str]]] = [
    [SCALE, ("queue", "a"), ("starts", "5")],
    [SCALE, ("queue", "a"), ("period", "5")],
    [SCALE, ("queue", "a"), ("starts", "0"), ("period", "60")],
    [SCALE, ("queue", "a"), ("starts", "5"), ("period", "1e9")],
    [SCALE, ("queue", "a"), ("starts", "5"), ("period", "999999999")],
    [SCALE, ("queue", "a"), ("starts", "5"), ("period", "60"), ("burst", "-1")],
    [SCALE, ("queue", "a"), ("global_limit", "5"), ("global_keys", "{")],
    [SCALE, ("queue", "a"), ("global_limit", "5"), ("global_keys", '{"partition": 7}')],
    [SCALE, ("queue", "a"), ("global_limit", "5"), ("global_keys", '{"partition": {"a": 1}}')],
    [SCALE, ("queue", "a"), ("global_limit", "5"), ("global_keys", '{"burst": "x"}')],
    [SCALE, ("queue", "a"), ("global_limit", "0")],
    [SCALE, ("queue", "a"), ("global_limit", "5"), ("node", "n1")],
    [("action", "stop"), ("queue", "a")],
    [("action", "pause"), ("queue", "")],
    [("action", "scale"), ("queue", "a"), ("limit", "0")],
    [("action", "scale"), ("queue", "a"), ("limit", "many")],
    [("action", "scale"), ("queue", "*"), ("limit", "1")],
]


async def test_an_invalid_order_is_refused(site: Site) -> None:
    token = await site.token()
    for fields in INVALID:
        await site.post("/queues/order", [*fields, token], 400)


async def test_limits_of_queues_and_keys_are_shown(
    open_site: Open, start: StartOban, oban: Oban, site: Site
) -> None:
    class Sync(Worker, name="web.sync", queue="sync", limit=Limit(2, by="account.id")):
        async def process(self, job: Job) -> None: ...

    await start(queues={"sync": {"limit": 5, "global_limit": 7, "paused": True}})
    await oban.enqueue_many(Sync.new({"account": {"id": n % 3}}) for n in range(8))
    page = await site.read("queues")
    assert "7 at once on all nodes" in page.text
    assert "account.id 0 3 , 0 of 2 executing" in page.text
    assert "account.id 2 2 , 0 of 2 executing" in page.text
    assert "Queue sync is paused" in (await site.read("jobs/1")).text
    reader = open_site(authorize=lambda request: "read")
    assert "account.id" not in (await reader.read("queues")).text
    covered = open_site(mask=lambda field, value, worker: {"account": "***"})
    text = (await covered.read("queues")).text
    assert "account.id" not in text
    assert "(masked) 3" in text


async def test_the_key_of_a_full_limit_is_hidden(open_site: Open, start: StartOban) -> None:
    released = asyncio.Event()

    class Charge(Worker, name="web.charge", queue="charges", limit=Limit(1, by="card")):
        async def process(self, job: Job) -> None:
            await released.wait()

    node = await start(queues={"charges": 5})
    with hear(node, "job_start") as started, hear(node, "job_stop") as stopped:
        jobs = await node.enqueue_many(Charge.new({"card": "visa-5105"}) for _ in range(2))
        [first] = await started.wait()
        [waits] = {job.id for job in jobs} - {first.job.id}
        path = f"jobs/{waits}"
        text = (await open_site().read(path)).text
        assert '1 of 1 executing for card "visa-5105"' in text
        mask = {"mask": lambda field, value, worker: "***" if field == "args" else value}
        for options in (mask, {"authorize": lambda request: "read"}):
            text = (await open_site(**options).read(path)).text
            assert "1 of 1 executing for card …" in text
            assert "5105" not in text
        released.set()
        await stopped.wait(2)


async def test_the_keys_of_a_queue_are_shown(open_site: Open, start: StartOban) -> None:
    released = asyncio.Event()

    class Pay(Worker, name="web.pay", queue="payments"):
        async def process(self, job: Job) -> None:
            await released.wait()

    partition = {"fields": ["args"], "keys": ["card", "shop"]}
    limit = {"allowed": 1, "partition": partition}
    node = await start(queues={"payments": {"limit": 5, "global_limit": limit}})
    with hear(node, "job_start") as started, hear(node, "job_stop") as stopped:
        args = {"card": "visa-5105", "shop": 3}
        jobs = await node.enqueue_many(Pay.new(args) for _ in range(2))
        [first] = await started.wait()
        [waits] = {job.id for job in jobs} - {first.job.id}
        text = (await open_site().read("queues")).text
        assert "1 at once on all nodes for each card, shop" in text
        assert 'card, shop "visa-5105", 3 1 , 1 executing' in text
        text = (await open_site().read(f"jobs/{waits}")).text
        assert '1 of 1 executing for card, shop "visa-5105", 3 in queue payments' in text
        covered = open_site(mask=lambda field, value, worker: {**value, "card": "***"})
        for path in ("queues", f"jobs/{waits}"):
            assert "5105" not in (await covered.read(path)).text
        released.set()
        await stopped.wait(2)


async def test_a_change_of_a_limit_keeps_its_keys(open_site: Open, start: StartOban) -> None:
    partition = {"fields": ["args"], "keys": ["card's"]}
    one = {"allowed": 1, "burst": True}
    rate = {"allowed": 5, "period": 60}
    limits = {"global_limit": one, "rate_limit": rate, "partition": partition}
    node = await start(queues={"payments": {"limit": 5, **limits}})
    site = open_site(oban=node)
    form = next(f for f in (await site.read("queues")).forms if "rate_was" in dict(f.fields))
    fields = {**dict(form.fields), "global_limit": "3", "starts": "7", "period": "60"}
    await site.post(form.action, [*fields.items(), SCALE])

    def changed() -> bool:
        meta = node.check_one_queue("payments").meta
        return meta["global_limit"]["allowed"] == 3 and meta["rate_limit"]["allowed"] == 7

    await until(changed)
    meta = node.check_one_queue("payments").meta
    assert meta["global_limit"] == {"allowed": 3, "burst": True, "partition": partition}
    assert meta["rate_limit"]["partition"] == partition
    for keys in ("[]", '{"allowed": 9}', "x"):
        wrong = {**fields, "global_was": "2", "global_keys": keys}
        await site.post(form.action, [*wrong.items(), SCALE], 400)
