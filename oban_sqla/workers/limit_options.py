"""The checks of the options `limit` and `rate` of a worker."""

from ..limiting import Limit, Rate
from ..models import validation


def limit_option(value: object) -> Limit:
    """The check of the option `limit`."""
    if not isinstance(value, Limit):
        raise TypeError(
            f"limit must be a Limit, like Limit(2, by='account_id'), not {validation.show(value)}"
        )
    return value


def rate_option(value: object) -> Rate:
    """The check of the option `rate`."""
    if not isinstance(value, Rate):
        raise TypeError(f"rate must be a Rate, like Rate(14, per=1), not {validation.show(value)}")
    return value
