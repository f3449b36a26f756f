"""MeterService: definitions of meters."""

from datetime import datetime

from ammeter.domain.meter import AGGREGATIONS, Meter, PropertyFilter
from ammeter.rpc.convert import to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.rpc.paging import decode_token, encode_token, fingerprint, page_size
from ammeter.store import meters
from ammeter.store.db import Tx
from ammeter.usecases.meters import MeterShop
from ammeter.v1 import meter_pb2

_OPERATORS = ("", "EQUALS", "NOT_EQUALS", "IN", "EXISTS")
_UNKNOWN = "UNKNOWN"


def to_message(meter: Meter) -> meter_pb2.Meter:
    """Write a meter as a message."""
    state = meter_pb2.Meter.STATE_ACTIVE if meter.active else meter_pb2.Meter.STATE_BUILDING
    message = meter_pb2.Meter(
        meter_key=meter.meter_key,
        name=meter.name,
        description=meter.description,
        event_type=meter.event_type,
        aggregation=meter_pb2.Aggregation.Value(f"AGGREGATION_{meter.aggregation}"),
        value_property=meter.value_property,
        dimensions=meter.dimensions,
        state=state,
        skipped_count=meter.skipped_count,
        skipped_events=meter.skipped_events,
        create_time=to_timestamp(meter.create_time),
        update_time=to_timestamp(meter.update_time),
        etag=meter.etag,
    )
    for condition in meter.filters:
        operator = meter_pb2.PropertyFilter.Operator.Value(f"OPERATOR_{condition.operator}")
        message.filters.add(property=condition.property, operator=operator, values=condition.values)
    if meter.build is not None:
        message.build_done = meter.build.done
        message.build_total = meter.build.total
    return message


def from_message(message: meter_pb2.Meter) -> Meter:
    """Read a meter's definition; rules are checked by the domain."""
    known = 0 < message.aggregation <= len(AGGREGATIONS)
    return Meter(
        meter_key=message.meter_key,
        name=message.name,
        description=message.description,
        event_type=message.event_type,
        aggregation=AGGREGATIONS[message.aggregation - 1] if known else _UNKNOWN,
        value_property=message.value_property,
        dimensions=tuple(message.dimensions),
        filters=tuple(
            PropertyFilter(
                f.property,
                _OPERATORS[f.operator] if 0 <= f.operator < len(_OPERATORS) else _UNKNOWN,
                tuple(f.values),
            )
            for f in message.filters
        ),
    )


class MeterRpc:
    """Messages to and from the meters."""

    service = "ammeter.v1.MeterService"

    def __init__(self, shop: MeterShop) -> None:
        """Take where meters are changed."""
        self._shop = shop

    def methods(self) -> list[Method]:
        """Every method of the service."""
        return [
            Method.write("CreateMeter", ADMIN, self.create),
            Method.read("GetMeter", READ, self.get),
            Method.read("ListMeters", READ, self.list),
            Method.write("UpdateMeter", ADMIN, self.update),
            Method.write("DeleteMeter", ADMIN, self.delete),
        ]

    def create(
        self, tx: Tx, request: meter_pb2.CreateMeterRequest, now: datetime
    ) -> meter_pb2.CreateMeterResponse:
        """Create a meter."""
        meter = self._shop.create(tx, from_message(request.meter), now)
        return meter_pb2.CreateMeterResponse(meter=to_message(meter))

    def get(self, tx: Tx, request: meter_pb2.GetMeterRequest, _now: datetime) -> meter_pb2.GetMeterResponse:
        """Answer a meter."""
        return meter_pb2.GetMeterResponse(meter=to_message(meters.get_meter(tx, request.meter_key)))

    def list(
        self, tx: Tx, request: meter_pb2.ListMetersRequest, _now: datetime
    ) -> meter_pb2.ListMetersResponse:
        """List meters by key."""
        mark = fingerprint(request)
        size = page_size(request.page_size)
        token = decode_token(request.page_token, mark)
        found = meters.page(tx, str(token[0]) if token else "", size + 1)
        response = meter_pb2.ListMetersResponse(meters=[to_message(meter) for meter in found[:size]])
        if len(found) > size:
            response.next_page_token = encode_token(mark, (found[size - 1].meter_key,))
        return response

    def update(
        self, tx: Tx, request: meter_pb2.UpdateMeterRequest, now: datetime
    ) -> meter_pb2.UpdateMeterResponse:
        """Change what the mask names."""
        changed = from_message(request.meter)
        meter = self._shop.update(tx, changed, request.meter.etag, list(request.update_mask.paths), now)
        return meter_pb2.UpdateMeterResponse(meter=to_message(meter))

    def delete(
        self, tx: Tx, request: meter_pb2.DeleteMeterRequest, _now: datetime
    ) -> meter_pb2.DeleteMeterResponse:
        """Delete a meter that no feature uses."""
        self._shop.delete(tx, request.meter_key, request.etag)
        return meter_pb2.DeleteMeterResponse()
