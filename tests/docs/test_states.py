"""The picture of a job's life shows exactly the legal moves."""

from itertools import product
from xml.etree import ElementTree

from oban_sqla.models.state import LEGAL_MOVES
from tests.docs.page import DOCS


def test_the_picture_has_each_state_and_each_move() -> None:
    picture = ElementTree.parse(DOCS / "images" / "states.svg")
    states = {box.get("data-state") for box in picture.iter() if box.get("data-state")}
    moves = {
        move
        for path in picture.iter()
        if (before := path.get("data-from")) and (after := path.get("data-to"))
        for move in product(before.split(), after.split())
    }
    assert states == {state.value for state in LEGAL_MOVES}
    assert moves == {
        (before.value, after.value) for before, afters in LEGAL_MOVES.items() for after in afters
    }
