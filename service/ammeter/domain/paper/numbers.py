"""Numbers, money and times as people of a place write them. Exact: nothing is rounded that is not money."""

import copy
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, localcontext
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime
from babel.numbers import NumberPattern, format_decimal, format_percent

from ammeter.domain.money import currency_exponent
from ammeter.domain.paper.words import LANGUAGES
from ammeter.errors import InvalidInputError, invalid

# Babel computes in the present context, whose default would cut numbers of more than 28 digits.
_EXACT = Context(prec=200)
_TAG = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}", re.ASCII)
_SHOWN = 40
# Where a currency has no sign of its own, patterns leave nothing between its code and the number.
_CODE_BEFORE_NUMBER = re.compile(r"([A-Z])(?=[-\d])")
_INSTANT = timedelta(microseconds=1)
_DASH = "\N{EN DASH}"


def parse_locale(text: str) -> Locale:
    """Read a language tag such as de, de-CH or pt-BR; empty is English.

    Raises InvalidInputError for `locale`.
    """
    tag = text or "en"
    if _TAG.fullmatch(tag) is None:
        raise _unknown(text)
    try:
        locale = Locale.parse(tag.replace("_", "-"), sep="-")
    except (ValueError, TypeError, UnknownLocaleError) as error:
        raise _unknown(text) from error
    if locale.language not in LANGUAGES:
        raise _unknown(text)
    return locale


def _unknown(text: str) -> InvalidInputError:
    return invalid(
        "locale", f"{text[:_SHOWN]!r} is no language that papers have: {', '.join(LANGUAGES)}, or de-CH"
    )


@dataclass(frozen=True)
class Numbers:
    """Writes for one locale, one currency and one time zone."""

    locale: Locale
    currency: str
    time_zone: str

    def money(self, amount: Decimal) -> str:
        """Write money with the digits of ISO 4217, whatever is usual, and the currency."""
        exponent = currency_exponent(self.currency)
        pattern: NumberPattern = copy.copy(self.locale.currency_formats["standard"])
        pattern.frac_prec = (exponent, exponent)
        with localcontext(_EXACT):
            text: str = pattern.apply(amount, self.locale, currency=self.currency, currency_digits=False)
        return _CODE_BEFORE_NUMBER.sub("\\1\N{NO-BREAK SPACE}", text)

    def unit_price(self, amount: Decimal) -> str:
        """Write a price with all the digits that it has."""
        return self.number(amount)

    def number(self, value: Decimal) -> str:
        """Write a quantity with all the digits that it needs."""
        with localcontext(_EXACT):
            plain = value.normalize() if value else Decimal(0)
            return format_decimal(plain, locale=self.locale, decimal_quantization=False)

    def percent(self, value: Decimal) -> str:
        """Write a percentage; 19 is 19 percent."""
        with localcontext(_EXACT):
            return format_percent(value.scaleb(-2), locale=self.locale, decimal_quantization=False)

    def day(self, time: datetime) -> str:
        """Write the day of an instant, where the customer is."""
        return format_date(time.astimezone(ZoneInfo(self.time_zone)).date(), "medium", locale=self.locale)

    def span(self, start: datetime, end: datetime) -> str:
        """Write [start, end): by its first and last day where it is cut at midnights, else by the minute."""
        zone = ZoneInfo(self.time_zone)
        first, last = start.astimezone(zone), end.astimezone(zone)
        if _is_midnight(first) and _is_midnight(last) and first < last:
            return f"{self.day(start)} {_DASH} {self.day((last.astimezone(UTC)) - _INSTANT)}"
        return f"{self._minute(first)} {_DASH} {self._minute(last)}"

    def _minute(self, local: datetime) -> str:
        return format_datetime(local, "short", tzinfo=local.tzinfo, locale=self.locale)


def _is_midnight(local: datetime) -> bool:
    return (local.hour, local.minute, local.second) == (0, 0, 0)
