"""The carrier's API, pretended: a slow call to another server in the middle of a request."""

import time
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings

BASE_CENTS = 390
CENTS_PER_KG = 45


@dataclass(frozen=True)
class Quote:
    """What it costs to send a parcel, and how long it takes."""

    cents: int
    within: timedelta

    @property
    def price(self) -> str:
        return f"{self.cents / 100:.2f}"


def quote(weight_g: int) -> Quote:
    """Ask the carrier; blocks for SHOP_CARRIER_MS, as a real one would."""
    time.sleep(settings.SHOP_CARRIER_MS / 1000)
    kilograms = weight_g // 1000 + 1
    return Quote(BASE_CENTS + CENTS_PER_KG * kilograms, timedelta(days=2 + kilograms // 10))
