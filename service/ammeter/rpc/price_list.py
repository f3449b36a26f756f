"""PriceListService: messages to values and back."""

from datetime import datetime

from ammeter.domain.minute import minute_of, time_of
from ammeter.domain.price_import import Change, EntryDraft
from ammeter.domain.price_list import Entry, Layer, PriceList
from ammeter.errors import InvalidInputError, Violation
from ammeter.rpc.convert import from_timestamp, to_decimal_text, to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.rpc.paging import decode_token, encode_token, fingerprint, page_size
from ammeter.store import price_lists as store
from ammeter.store.db import Tx
from ammeter.usecases import price_lists
from ammeter.v1 import price_list_pb2 as pb

_MAX_SHOWN = 1000
_DEFAULT_CURRENCY = "USD"
_LAYERS = {Layer.LIST: pb.PriceEntry.LAYER_LIST, Layer.OVERRIDE: pb.PriceEntry.LAYER_OVERRIDE}


class PriceListRpc:
    """The service's methods."""

    service = "ammeter.v1.PriceListService"

    def methods(self) -> list[Method]:
        """Every RPC of the service."""
        return [
            Method.write("CreatePriceList", ADMIN, self.create),
            Method.read("GetPriceList", READ, self.get),
            Method.read("ListPriceLists", READ, self.list),
            Method.write("ImportPrices", ADMIN, self.import_prices),
            Method.read("ListPrices", READ, self.prices),
        ]

    def create(self, tx: Tx, request: pb.CreatePriceListRequest, now: datetime) -> pb.CreatePriceListResponse:
        """Add a price list."""
        sent = request.price_list
        draft = PriceList(sent.price_list_key, sent.name, sent.currency or _DEFAULT_CURRENCY)
        return pb.CreatePriceListResponse(price_list=_list(price_lists.create_price_list(tx, draft, now)))

    def get(self, tx: Tx, request: pb.GetPriceListRequest, _now: datetime) -> pb.GetPriceListResponse:
        """Answer one price list."""
        return pb.GetPriceListResponse(
            price_list=_list(price_lists.get_price_list(tx, request.price_list_key))
        )

    def list(self, tx: Tx, request: pb.ListPriceListsRequest, _now: datetime) -> pb.ListPriceListsResponse:
        """Answer a page of price lists, by key."""
        query, size = fingerprint(request), page_size(request.page_size)
        after = decode_token(request.page_token, query) or ("",)
        found = store.page(tx, str(after[0]), size + 1)
        token = encode_token(query, (found[size - 1].price_list_key,)) if len(found) > size else ""
        return pb.ListPriceListsResponse(price_lists=map(_list, found[:size]), next_page_token=token)

    def import_prices(
        self, tx: Tx, request: pb.ImportPricesRequest, now: datetime
    ) -> pb.ImportPricesResponse:
        """Take prices in, or say what that would change."""
        time = from_timestamp(
            request.effective_time, "effective_time", present=request.HasField("effective_time")
        )
        sent = price_lists.PriceImport(
            request.price_list_key,
            _drafts(request),
            time or now,
            request.withdraw_missing,
            Layer.OVERRIDE if request.override else Layer.LIST,
            request.dry_run,
            request.etag,
        )
        done = price_lists.import_prices(tx, sent, now)
        return pb.ImportPricesResponse(
            changes=[_change(change, now) for change in done.changes[:_MAX_SHOWN]],
            change_count=len(done.changes),
            unchanged_count=done.unchanged_count,
            price_list=_list(done.price_list),
        )

    def prices(self, tx: Tx, request: pb.ListPricesRequest, _now: datetime) -> pb.ListPricesResponse:
        """Answer a page of entries: all there are, or those that hold at a time."""
        query, size = fingerprint(request), page_size(request.page_size)
        after = decode_token(request.page_token, query)
        time = from_timestamp(request.at_time, "at_time", present=request.HasField("at_time"))
        if time is None:
            there = price_lists.get_price_list(tx, request.price_list_key)
            found = store.page_entries(tx, there.price_list_id, request.model, after, size + 1)
        else:
            holding = price_lists.prices_at(tx, request.price_list_key, request.model, time)
            found = [entry for entry in holding if not after or entry[:2] > after[:2]][: size + 1]
        token = ""
        if len(found) > size:
            model, token_type, minute, _, layer = found[size - 1]
            token = encode_token(query, (model, token_type, minute, layer.value))
        return pb.ListPricesResponse(entries=map(_entry, found[:size]), next_page_token=token)


def _drafts(request: pb.ImportPricesRequest) -> list[EntryDraft]:
    drafts = []
    faults: list[Violation] = []
    for index, sent in enumerate(request.entries):
        minute = None
        try:
            time = from_timestamp(
                sent.effective_time,
                f"entries[{index}].effective_time",
                present=sent.HasField("effective_time"),
            )
            minute = None if time is None else minute_of(time)
        except InvalidInputError as error:
            faults += error.violations
        drafts.append(EntryDraft(sent.model, sent.token_type, sent.unit_amount, minute))
    if faults:
        raise InvalidInputError(faults)
    return drafts


def _list(found: PriceList) -> pb.PriceList:
    return pb.PriceList(
        price_list_key=found.price_list_key,
        name=found.name,
        currency=found.currency,
        create_time=to_timestamp(found.create_time),
        update_time=to_timestamp(found.update_time),
        etag=str(found.version),
    )


def _entry(entry: Entry) -> pb.PriceEntry:
    return pb.PriceEntry(
        model=entry.model,
        token_type=entry.token_type,
        unit_amount="" if entry.unit_amount is None else to_decimal_text(entry.unit_amount),
        effective_time=to_timestamp(time_of(entry.effective_minute)),
        layer=_LAYERS[entry.layer],
    )


def _change(change: Change, now: datetime) -> pb.PriceChange:
    before, after = change.before, change.entry.unit_amount
    if after is None:
        kind = pb.PriceChange.KIND_WITHDRAWN
    elif before is None:
        kind = pb.PriceChange.KIND_ADDED
    else:
        kind = pb.PriceChange.KIND_RAISED if after > before else pb.PriceChange.KIND_LOWERED
    return pb.PriceChange(
        kind=kind,
        entry=_entry(change.entry),
        before_unit_amount="" if before is None else to_decimal_text(before),
        until_time=to_timestamp(time_of(change.until)),
        in_past=change.entry.effective_minute < minute_of(now),
    )
