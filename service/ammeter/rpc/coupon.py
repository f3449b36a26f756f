"""CouponService: messages to values and back."""

from datetime import datetime

from ammeter.domain.coupon import AttachedCoupon, Coupon, CouponDraft
from ammeter.rpc.convert import from_timestamp, to_decimal_text, to_timestamp
from ammeter.rpc.method import ADMIN, READ, Method
from ammeter.rpc.paging import decode_token, encode_token, fingerprint, page_size
from ammeter.store import coupons as store
from ammeter.store.db import Tx
from ammeter.usecases import coupons
from ammeter.usecases.customers import get_customer
from ammeter.v1 import coupon_pb2 as pb


class CouponRpc:
    """The service's methods."""

    service = "ammeter.v1.CouponService"

    def methods(self) -> list[Method]:
        """Every RPC of the service."""
        return [
            Method.write("CreateCoupon", ADMIN, self.create),
            Method.read("GetCoupon", READ, self.get),
            Method.read("ListCoupons", READ, self.list),
            Method.write("ArchiveCoupon", ADMIN, self.archive),
            Method.write("AttachCoupon", ADMIN, self.attach),
            Method.write("DetachCoupon", ADMIN, self.detach),
            Method.read("ListAttachedCoupons", READ, self.list_attached),
        ]

    def create(self, tx: Tx, request: pb.CreateCouponRequest, now: datetime) -> pb.CreateCouponResponse:
        """Add a coupon."""
        sent = request.coupon
        draft = CouponDraft(
            sent.coupon_key, sent.name, sent.percentage, sent.amount, sent.currency, sent.period_count
        )
        return pb.CreateCouponResponse(coupon=_coupon(coupons.create_coupon(tx, draft, now)))

    def get(self, tx: Tx, request: pb.GetCouponRequest, _now: datetime) -> pb.GetCouponResponse:
        """Answer one coupon."""
        return pb.GetCouponResponse(coupon=_coupon(coupons.get_coupon(tx, request.coupon_key)))

    def list(self, tx: Tx, request: pb.ListCouponsRequest, _now: datetime) -> pb.ListCouponsResponse:
        """Answer a page of coupons, by key."""
        query, size = fingerprint(request), page_size(request.page_size)
        after = decode_token(request.page_token, query) or ("",)
        found = store.page(tx, str(after[0]), size + 1)
        token = encode_token(query, (found[size - 1].coupon_key,)) if len(found) > size else ""
        return pb.ListCouponsResponse(coupons=map(_coupon, found[:size]), next_page_token=token)

    def archive(self, tx: Tx, request: pb.ArchiveCouponRequest, now: datetime) -> pb.ArchiveCouponResponse:
        """Close a coupon."""
        return pb.ArchiveCouponResponse(coupon=_coupon(coupons.archive_coupon(tx, request.coupon_key, now)))

    def attach(self, tx: Tx, request: pb.AttachCouponRequest, now: datetime) -> pb.AttachCouponResponse:
        """Attach a coupon."""
        time = from_timestamp(request.from_time, "from_time", present=request.HasField("from_time"))
        attached = coupons.attach_coupon(
            tx, request.coupon_key, request.customer_key, request.subscription_id, time or now, now
        )
        return pb.AttachCouponResponse(attached_coupon=_attached(attached))

    def detach(self, tx: Tx, request: pb.DetachCouponRequest, now: datetime) -> pb.DetachCouponResponse:
        """End an attachment."""
        time = from_timestamp(request.to_time, "to_time", present=request.HasField("to_time"))
        ended = coupons.detach_coupon(tx, request.attached_coupon_id, time or now, now)
        return pb.DetachCouponResponse(attached_coupon=_attached(ended))

    def list_attached(
        self, tx: Tx, request: pb.ListAttachedCouponsRequest, _now: datetime
    ) -> pb.ListAttachedCouponsResponse:
        """Answer a page of attachments, by creation."""
        query, size = fingerprint(request), page_size(request.page_size)
        after = decode_token(request.page_token, query) or ("",)
        customer_id = get_customer(tx, request.customer_key).customer_id if request.customer_key else None
        found = store.page_attached(tx, customer_id, str(after[0]), size + 1)
        token = encode_token(query, (found[size - 1].attached_coupon_id,)) if len(found) > size else ""
        return pb.ListAttachedCouponsResponse(
            attached_coupons=map(_attached, found[:size]), next_page_token=token
        )


def _coupon(coupon: Coupon) -> pb.Coupon:
    message = pb.Coupon(
        coupon_key=coupon.coupon_key,
        name=coupon.name,
        currency=coupon.currency,
        period_count=coupon.period_count,
        create_time=to_timestamp(coupon.create_time),
        archive_time=to_timestamp(coupon.archive_time),
    )
    if coupon.percentage is not None:
        message.percentage = to_decimal_text(coupon.percentage)
    if coupon.amount is not None:
        message.amount = to_decimal_text(coupon.amount)
    return message


def _attached(attached: AttachedCoupon) -> pb.AttachedCoupon:
    return pb.AttachedCoupon(
        attached_coupon_id=attached.attached_coupon_id,
        coupon_key=attached.coupon.coupon_key,
        customer_key=attached.customer_key,
        subscription_id=attached.subscription_id,
        from_time=to_timestamp(attached.from_time),
        to_time=to_timestamp(attached.to_time),
        create_time=to_timestamp(attached.create_time),
    )
