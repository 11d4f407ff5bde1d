"""Words of the dashboard for values."""

from datetime import UTC, datetime, timedelta

import pytest

from oban_sqla.web.show import when

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
TIMES = {
    0.4: "0 seconds ago",
    1.2: "1 second ago",
    2.3: "2 seconds ago",
    119.6: "2 minutes ago",
    7300: "2 hours ago",
    -3.2: "in 3 seconds",
}


@pytest.mark.parametrize(("passed", "text"), TIMES.items())
def test_a_time_has_no_fraction_of_a_second(passed: float, text: str) -> None:
    assert f">{text}<" in when(NOW - timedelta(seconds=passed), NOW)
