"""The options of a limit and a rate, and the key by which a job is counted."""

import math
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, Limit, Oban, Rate, Worker, job
from oban_sqla.clock import client_now
from oban_sqla.models.references import reference_to
from oban_sqla.models.unique import Unique
from oban_sqla.runtime.cron import job_of_tick
from tests.databases import User

Sessions = async_sessionmaker[AsyncSession]


class Sync(Worker, name="declarations.sync", queue="limits", limit=Limit(2, by="account")):
    def process(self, job: Job) -> None: ...


class Deep(Worker, queue="limits", limit=Limit(2, by="order.customer.id", name="deep")):
    def process(self, job: Job) -> None: ...


class ByFunction(Worker, queue="limits", limit=Limit(2, by=lambda job: job.args["n"] % 2)):
    def process(self, job: Job) -> None: ...


class Both(
    Worker, name="both", queue="limits", limit=Limit(1), rate=Rate(3, per=60, by="to", weight=2)
):
    def process(self, job: Job) -> None: ...


@job(
    name="declarations.send",
    queue="limits",
    rate=Rate(14, per=timedelta(seconds=1), name="postmark", burst=6),
)
def send(to: str) -> None: ...


def key(job: Job) -> str:
    return job.meta["partition_key"]


class TestKeys:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [(42, "42"), ("42", '"42"'), (None, "null"), (True, "true"), (1.5, "1.5")],
    )
    def test_are_the_values_of_an_argument(self, value: object, shown: str) -> None:
        assert key(Sync.new({"account": value})) == f"declarations.sync={shown}"

    def test_a_job_without_the_argument_has_the_key_none(self) -> None:
        assert key(Sync.new()) == key(Sync.new({"account": None}))

    def test_may_be_a_value_inside_an_argument(self) -> None:
        assert key(Deep.new({"order": {"customer": {"id": 7}}})) == "deep=7"
        for args in ({}, {"order": 5}, {"order": {"customer": None}}):
            assert key(Deep.new(args)) == "deep=null"

    def test_a_function_declares_a_key(self) -> None:
        assert key(ByFunction.new({"n": 3})).endswith("ByFunction=1")

    def test_a_limit_and_a_rate_have_keys(self) -> None:
        made = Both.new({"to": "x"})
        assert key(made) == 'both both="x"'
        assert made.meta["oban_sqla_limits"] == {
            "limit": {"id": "both", "allowed": 1},
            "rate": {
                "id": 'both="x"',
                "by": "to",
                "key": '"x"',
                "allowed": 3,
                "period": 60.0,
                "burst": 0,
                "weight": 2,
            },
        }

    def test_a_long_key_is_cut_but_stays_its_own(self) -> None:
        long = [key(Sync.new({"account": "x" * 5000 + end})) for end in "ab"]
        assert long[0] != long[1]
        assert max(map(len, long)) < 250

    @pytest.mark.parametrize("value", [[1], {"a": 1}])
    def test_a_value_that_is_no_scalar_is_refused(self, value: object) -> None:
        with pytest.raises(TypeError, match=r"the argument 'account' is a .* no key to count by"):
            Sync.new({"account": value})

    def test_a_copied_meta_brings_no_key_along(self) -> None:
        other = Sync.new({"account": 1})
        assert key(Sync.new({"account": 2}, meta=other.meta)) == "declarations.sync=2"

        class Unlimited(Worker):
            def process(self, job: Job) -> None: ...

        assert Unlimited.new(meta=other.meta).meta == {}

    def test_a_job_without_limits_has_an_empty_meta(self) -> None:
        @job(name="declarations.plain")
        def plain() -> None: ...

        assert plain.new().meta == {}


class TestRows:
    """A mapped instance stands for its primary key."""

    async def test_a_stored_row_gives_its_key(self, sessions: Sessions) -> None:
        async with sessions.begin() as session:
            session.add(user := User(name="x"))
            await session.flush()
            assert key(Sync.new({"account": user})) == f"declarations.sync={user.id}"

    async def test_a_row_of_the_same_flush_gives_its_key(self, sessions: Sessions) -> None:
        async with sessions.begin() as session:
            user = User(name="x")
            session.add_all([user, made := Sync.new({"account": user})])
            assert "partition_key" not in made.meta
        assert key(made) == f"declarations.sync={user.id}"
        async with sessions() as session:
            (stored,) = await session.scalars(select(Job))
            assert key(stored) == f"declarations.sync={user.id}"
            assert stored.meta["oban_sqla_limits"]["limit"]["allowed"] == 2

    async def test_a_unique_job_gets_the_key_of_a_row_of_the_same_flush(
        self, sessions: Sessions
    ) -> None:
        async with sessions.begin() as session:
            user = User(name="x")
            session.add_all([user, Sync.new({"account": user}, unique=Unique(fields=["meta"]))])
        async with sessions() as session:
            (stored,) = await session.scalars(select(Job))
            assert key(stored) == f"declarations.sync={user.id}"

    async def test_a_job_with_values_of_its_own_gets_the_key_of_its_row(
        self, sessions: Sessions
    ) -> None:
        """The job has values that no new job has, so the flush inserts it itself."""
        async with sessions.begin() as session:
            user = User(name="x")
            made = Sync.new({"account": user}, meta={"own": 1})
            made.attempted_by = ["somebody"]
            session.add_all([user, made])
        async with sessions() as session:
            (stored,) = await session.scalars(select(Job))
            assert key(stored) == f"declarations.sync={user.id}"
            assert stored.meta["own"] == 1

    async def test_a_row_flushed_after_new_gives_its_key(
        self, sessions: Sessions, engine: AsyncEngine
    ) -> None:
        async with sessions() as session:
            session.add(user := User(name="x"))
            made = Sync.new({"account": user})
            await session.commit()
        async with engine.begin() as connection:
            await Oban(engine).enqueue(made, conn=connection)
        assert key(made) == f"declarations.sync={user.id}"

    async def test_an_attribute_of_a_row_gives_the_key(self) -> None:
        class ByName(Worker, queue="limits", limit=Limit(1, by="user.name", name="by name")):
            def process(self, job: Job) -> None: ...

        assert key(ByName.new({"user": User(name="x")})) == 'by name="x"'

        class Wrong(Worker, queue="limits", limit=Limit(1, by="user.nope")):
            def process(self, job: Job) -> None: ...

        with pytest.raises(ValueError, match="'nope', but User has no such attribute"):
            Wrong.new({"user": User(name="x")})

    def test_a_reference_has_only_the_primary_key(self) -> None:
        class ByEmail(Worker, queue="limits", limit=Limit(1, by="user.email", name="email")):
            def process(self, job: Job) -> None: ...

        class ById(Worker, queue="limits", limit=Limit(1, by="user.id", name="by id")):
            def process(self, job: Job) -> None: ...

        args = {"user": reference_to(User, (7,))}
        assert key(ById.new(args)) == "by id=7"
        with pytest.raises(ValueError, match="by names 'email' of a row of which the job has only"):
            ByEmail.new(args)

    def test_a_function_may_not_return_a_row_without_a_key(self) -> None:
        class Returning(Worker, queue="limits", limit=Limit(1, by=lambda job: User(name="x"))):
            def process(self, job: Job) -> None: ...

        with pytest.raises(ValueError, match="no key yet: flush it first"):
            Returning.new()


class TestWaysIn:
    def test_options_and_cron_entries_make_limited_jobs(self) -> None:
        @job(name="declarations.ticking", queue="limits", cron="@daily", limit=Limit(1))
        def ticking() -> None: ...

        tick = job_of_tick(ticking.__oban__, ticking.__oban__.cron, client_now(), "UTC")
        assert key(tick) == "declarations.ticking"
        assert key(send.options(priority=3).new("x")) == "rate postmark"

    async def test_enqueue_many_and_connections_keep_the_key(
        self, engine: AsyncEngine, sessions: Sessions
    ) -> None:
        oban = Oban(engine)
        await oban.enqueue_many(Sync.new({"account": n}) for n in range(3))
        async with engine.begin() as connection:
            await Sync.enqueue({"account": 3}, conn=connection)
        async with sessions() as session:
            stored = await session.scalars(select(Job).order_by(Job.id))
            assert [key(one) for one in stored] == [f"declarations.sync={n}" for n in range(4)]

    async def test_an_update_of_the_meta_keeps_the_key(
        self, engine: AsyncEngine, sessions: Sessions
    ) -> None:
        oban = Oban(engine)
        made = await oban.enqueue(Sync.new({"account": 1}))
        updated = await oban.update_job(made, {"meta": {"own": 1}})
        assert (key(updated), updated.meta["own"]) == ("declarations.sync=1", 1)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Limit(0), "allowed must be an integer from 1"),
            (lambda: Limit(True), "allowed must be an integer, 1 or more"),
            (lambda: Limit(1.5), "allowed must be an integer"),  # type: ignore[arg-type]
            (lambda: Limit(1, by=5), "by must name an argument"),  # type: ignore[arg-type]
            (lambda: Limit(1, by="a..b"), "by must name an argument"),
            (lambda: Limit(1, name=" "), "name must be a string that is not blank"),
            (lambda: Limit(1, burst=2), "burst of a Limit must be True or False"),  # type: ignore[arg-type]
            (lambda: Rate(0, per=1), "allowed must be an integer from 1"),
            (lambda: Rate(1, per=0), "per must be seconds from 0.001"),
            (lambda: Rate(1, per="1s"), "per must be seconds or a timedelta"),  # type: ignore[arg-type]
            (lambda: Rate(1, per=math.inf), "per must be seconds from"),
            (lambda: Rate(1, per=math.nan), "per must be seconds from"),
            (lambda: Rate(1, per=1, burst=-1), "burst must be an integer from 0"),
            (lambda: Rate(2, per=1, burst=1, weight=4), "at most allowed \\+ burst, 3"),
        ],
    )
    def test_an_invalid_definition_is_refused(self, make: Any, message: str) -> None:
        with pytest.raises((TypeError, ValueError), match=message):
            make()

    def test_a_rate_without_a_period_is_refused(self) -> None:
        with pytest.raises(TypeError, match="per"):
            Rate(1)  # type: ignore[call-arg]

    def test_another_type_of_option_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"limit must be a Limit, like Limit\(2, by="):
            job(limit=5)(lambda: None)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="rate must be a Rate"):
            job(rate=5)(lambda: None)  # type: ignore[call-overload]

    def test_a_key_by_an_unknown_argument_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"counts by 'nope', .* there are to"):

            @job(name="declarations.nope", queue="limits", limit=Limit(1, by="nope"))
            def wrong(to: str) -> None: ...

    def test_two_definitions_of_one_name_are_refused(self) -> None:
        with pytest.raises(ValueError, match="'postmark' can't have two definitions"):

            @job(name="declarations.other", queue="limits", rate=Rate(15, per=1, name="postmark"))
            def other(to: str) -> None: ...

    def test_two_limits_of_one_name_are_refused(self) -> None:
        with pytest.raises(ValueError, match="'deep' can't have two definitions"):

            @job(name="declarations.shallow", queue="limits", limit=Limit(3, name="deep"))
            def shallow() -> None: ...

    def test_the_same_definition_may_be_repeated(self) -> None:
        @job(
            name="declarations.same",
            queue="limits",
            rate=Rate(14, per=1, name="postmark", burst=6, by="to"),
        )
        def same(to: str) -> None: ...

        assert key(same.new("x")) == 'rate postmark="x"'

    def test_a_limit_of_a_key_below_one_is_refused(self) -> None:
        class Broken(Worker, name="broken", queue="limits", limit=Limit(lambda key: 0, by="k")):
            def process(self, job: Job) -> None: ...

        with pytest.raises(ValueError, match="the limit of broken for the key 'x' must be"):
            Broken.new({"k": "x"})

    def test_a_weight_above_the_rate_is_refused(self) -> None:
        @job(
            name="declarations.heavy",
            queue="limits",
            rate=Rate(2, per=1, weight=lambda job: job.args["n"]),
        )
        def heavy(n: int) -> None: ...

        assert heavy.new(2).meta["oban_sqla_limits"]["rate"]["weight"] == 2
        with pytest.raises(ValueError, match="weight must be at most allowed"):
            heavy.new(3)


def test_limits_and_rates_have_a_repr() -> None:
    assert repr(Limit(2, by="account", burst=True)) == "Limit(2, burst=True, by='account')"
    assert repr(Rate(14, per=1, name="postmark")) == "Rate(14, per=1.0, name='postmark')"
