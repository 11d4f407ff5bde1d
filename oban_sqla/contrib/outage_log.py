"""Log services that fail. An outage of the database is one line, however many services fail."""

import asyncio
import logging
from typing import Any

from ..errors import sqlstate
from ..events import NotifierLost, NotifierRestored, ServiceFailed, ServiceRestored
from ..oban import Oban
from .facts import Facts, cause
from .listeners import Listener
from .outages import Outage, Outages, is_outage

logger = logging.getLogger("oban_sqla")

NOTIFIER = "notifier"
# Seconds until a lost connection for notifications counts as an outage.
PATIENCE = 1.0

_outages = Outages()

# SQLSTATEs: a prepared statement does not exist, or exists already.
_STATEMENT_IS_ELSEWHERE = ("26000", "42P05")


def _service_failed(oban: Oban, failed: ServiceFailed) -> None:
    service, error = failed.service, failed.error
    if is_outage(error):
        _log_details(oban, service, error, failed)
        _tell(oban, _outages.join(oban, service), service, error, failed)
        return
    logger.error(
        "%s: %s failed, trying again until it succeeds: %s%s",
        oban.name,
        service,
        cause(error),
        _remedy(error),
        exc_info=_traceback(error),
        extra=Facts(oban, failed),
    )


def _service_restored(oban: Oban, restored: ServiceRestored) -> None:
    if _outages.of(oban, restored.service) is None:
        logger.info("%s: %s works again", oban.name, restored.service, extra=Facts(oban, restored))
    else:
        _leave(oban, restored.service, restored)


def _tell_if_it_lasts(oban: Oban, outage: Outage, error: BaseException, data: Any) -> None:
    if NOTIFIER in outage.services:
        _tell(oban, outage, NOTIFIER, error, data)


def _tell(oban: Oban, outage: Outage, service: str, error: BaseException, data: Any) -> None:
    """Log an outage, once."""
    if not outage.told:
        outage.told = True
        logger.error(
            "%s: node %s can't use the database, trying again until it succeeds: %s: %s",
            oban.name,
            oban.node,
            service,
            cause(error),
            extra=Facts(oban, data),
        )


def _leave(oban: Oban, service: str, data: Any) -> None:
    outage = _outages.leave(oban, service)
    logger.debug("%s: %s works again", oban.name, service)
    if outage is not None and outage.told:
        logger.info(
            "%s: node %s uses the database again, after %.0f s",
            oban.name,
            oban.node,
            outage.duration,
            extra=Facts(oban, data),
        )


def _log_details(oban: Oban, service: str, error: BaseException, data: Any) -> None:
    logger.debug(
        "%s: %s failed", oban.name, service, exc_info=_traceback(error), extra=Facts(oban, data)
    )


def _traceback(error: BaseException) -> Any:
    """The traceback for a record, at the level DEBUG only."""
    if not logger.isEnabledFor(logging.DEBUG):
        return None
    return type(error), error, error.__traceback__


def _notifier_lost(oban: Oban, lost: NotifierLost) -> None:
    error = lost.error
    if error is None or lost.direct or not is_outage(error):
        logger.warning(
            "%s: notifications are lost, polling instead: %s",
            oban.name,
            lost.reason,
            extra=Facts(oban, lost),
        )
        return
    _log_details(oban, NOTIFIER, error, lost)
    outage = _outages.join(oban, NOTIFIER)
    try:
        # A cut connection that is soon replaced is no outage.
        loop = asyncio.get_running_loop()
        loop.call_later(PATIENCE, _tell_if_it_lasts, oban, outage, error, lost)
    except RuntimeError:
        _tell(oban, outage, NOTIFIER, error, lost)


def _notifier_restored(oban: Oban, restored: NotifierRestored) -> None:
    if _outages.of(oban, NOTIFIER) is None:
        logger.info("%s: notifications are back", oban.name, extra=Facts(oban, restored))
    else:
        _leave(oban, NOTIFIER, restored)


def _remedy(error: BaseException) -> str:
    """The remedy for an error whose message does not name one."""
    if sqlstate(error) not in _STATEMENT_IS_ELSEWHERE:
        return ""
    if "asyncpg" in type(getattr(error, "orig", error)).__module__:
        return (
            "; behind a transaction pooler asyncpg must not use a prepared statement twice: make"
            ' the engine with connect_args={"statement_cache_size": 0,'
            ' "prepared_statement_cache_size": 0,'
            ' "prepared_statement_name_func": lambda: f"__{uuid4()}__"}'
        )
    return (
        "; behind a transaction pooler psycopg must not prepare statements: make the engine with"
        ' connect_args={"prepare_threshold": None}, or end the URL with ?prepare_threshold=none'
    )


LISTENERS: tuple[Listener, ...] = (
    (Oban, "service_failed", _service_failed),
    (Oban, "service_restored", _service_restored),
    (Oban, "notifier_lost", _notifier_lost),
    (Oban, "notifier_restored", _notifier_restored),
)
