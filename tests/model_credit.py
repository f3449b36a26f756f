"""Prepaid credits as one would do it by hand: coin by coin."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tests.model import half_away


@dataclass
class Coins:
    """A lot, in whole coins; `features` None for every line."""

    name: str
    coins: int
    order: tuple[object, ...]
    features: frozenset[str] | None


def line_coins(amounts: Sequence[int], taxes: Sequence[tuple[Fraction, Sequence[int]]]) -> list[int]:
    """Add each tax to the lines that it covers, given by place: the tax on all up to here, less what was."""
    gross = list(amounts)
    for share, places in taxes:
        for count, place in enumerate(places):
            upto = sum(amounts[one] for one in places[: count + 1]) * share
            before = sum(amounts[one] for one in places[:count]) * share
            gross[place] += int(half_away(Fraction(upto), 0) - half_away(Fraction(before), 0))
    return gross


def pay(lots: Sequence[Coins], lines: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Pay lines of (feature, coins): what is below zero cancels coins of others, lots give coin by coin."""
    left = [max(coins, 0) for _, coins in lines]
    for feature, coins in lines:
        for _ in range(-coins):
            mine = [place for place, (other, _) in enumerate(lines) if other == feature and left[place]]
            others = [place for place, (other, _) in enumerate(lines) if other != feature and left[place]]
            if mine or others:
                left[(mine or others)[0]] -= 1
    paid: dict[tuple[str, int], int] = {}
    for lot in sorted(lots, key=lambda one: one.order):
        for _ in range(lot.coins):
            for place, (feature, _) in enumerate(lines):
                if left[place] and (lot.features is None or feature in lot.features):
                    left[place] -= 1
                    paid[lot.name, place] = paid.get((lot.name, place), 0) + 1
                    break
    return paid
