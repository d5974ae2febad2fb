"""Sending and cancelling orders. Sending is wrong on purpose, as it often is in real shops."""

from django.db import transaction

from example.shop import carrier
from example.shop.models import Order, OrderLine


def send_order(pk: int) -> None:
    """Have the carrier fetch a placed order, and mark it as sent; raises Order.DoesNotExist.

    Wrong: the carrier is asked within the transaction. Until it answers the order's row is locked,
    a connection is taken, and the server cannot clean up what has been deleted meanwhile. To find
    such lines: docs/how-to.md, "Find out who holds the database".
    """
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=pk, status=Order.Status.PLACED)
        carrier.quote(_weight_g(order))
        order.status = Order.Status.SENT
        order.save(update_fields=["status"])


def cancel_order(pk: int) -> bool:
    """Cancel an order that was not sent yet; False if it is too late."""
    placed = Order.objects.filter(pk=pk, status=Order.Status.PLACED)
    return bool(placed.update(status=Order.Status.CANCELLED))


def _weight_g(order: Order) -> int:
    lines = OrderLine.objects.filter(order=order).select_related("product")
    return sum(line.quantity * line.product.attributes.get("weight_g", 0) for line in lines)
