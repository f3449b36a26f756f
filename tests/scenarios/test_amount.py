"""The page on how an amount comes about says what comes about."""

from collections.abc import Callable
from decimal import Decimal

from tests.scenarios.amount import LATE, PAGE, USED, page, play
from tests.usecases.world import World


def test_the_page_says_what_comes_about(new_database: Callable[[], str]) -> None:
    world = World(new_database(), "2025-03-01T00:00")
    played = play(world)
    world.close()
    assert played.metered == sum(Decimal(tokens) for _, tokens in USED)
    assert played.late.quantity == Decimal(LATE[1])
    assert page(played) == PAGE.read_text(), "write it anew: python -m tests.scenarios.amount"
