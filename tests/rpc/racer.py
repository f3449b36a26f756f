"""One of many processes that want the same balance; prints how much it used, and how often it asked.

python -m tests.rpc.racer ADDRESS CUSTOMER FEATURE SUBJECT lease|reservation|takes [HOW OFTEN]
"""

import sys
import time

from ammeter.client import Client, new_request_id
from ammeter.client.leases import Leases
from ammeter.v1 import reservation_pb2 as pb
from ammeter.v1.usage_pb2 import UsageEvent

_PATIENCE_SECONDS = 1.0


def _event(subject: str, used: int) -> UsageEvent:
    event = UsageEvent(id=new_request_id(), source="racer", type="race.used", subject=subject)
    event.properties["tokens"] = str(used)
    return event


def by_lease(client: Client, customer: str, feature: str, subject: str) -> tuple[int, int]:
    """Take one at a time from a lease of three, until there was nothing for a while."""
    used, asked, last = 0, 0, time.monotonic()
    with Leases(client, amount=3, lifetime_seconds=2, say_no_seconds=0.05) as leases:
        lease = leases.of(customer, feature)
        while time.monotonic() < last + _PATIENCE_SECONDS:
            take = lease.take(1)
            asked += 1
            if not take.allowed:
                time.sleep(0.02)
                continue
            used, last = used + 1, time.monotonic()
            lease.done(take, events=[_event(subject, 1)])
    return used, asked


def by_takes(client: Client, customer: str, feature: str, subject: str, count: int) -> tuple[int, int]:
    """Take one so many times from a lease of 500."""
    used = 0
    with Leases(client, amount=500, lifetime_seconds=20, wait_seconds=10, say_no_seconds=0.05) as leases:
        lease = leases.of(customer, feature)
        for _ in range(count):
            take = lease.take(1)
            if take.allowed:
                used += 1
                lease.done(take, events=[_event(subject, 1)])
            else:
                time.sleep(0.0001)
    return used, count


def by_reservation(client: Client, customer: str, feature: str, subject: str) -> tuple[int, int]:
    """Reserve up to two at a time, and use one or two of them."""
    used, asked, last = 0, 0, time.monotonic()
    while time.monotonic() < last + _PATIENCE_SECONDS:
        request = pb.ReserveRequest(
            customer_key=customer,
            feature_key=feature,
            amount="2",
            minimum_amount="1",
            request_id=new_request_id(),
        )
        answer = client.reservations.Reserve(request)
        asked += 1
        if not answer.HasField("reservation"):
            time.sleep(0.02)
            continue
        now = max(1, int(answer.reservation.granted_amount) - used % 2)
        client.reservations.SettleReservation(
            pb.SettleReservationRequest(
                reservation_id=answer.reservation.reservation_id,
                amount=str(now),
                events=[_event(subject, now)],
                request_id=new_request_id(),
            )
        )
        used, last = used + now, time.monotonic()
    return used, asked


if __name__ == "__main__":
    address, customer, feature, subject, kind, *count = sys.argv[1:]
    with Client(address) as client:
        if kind == "takes":
            found = by_takes(client, customer, feature, subject, int(count[0]))
        else:
            race = by_lease if kind == "lease" else by_reservation
            found = race(client, customer, feature, subject)
        print(*found)  # noqa: T201 - its product
