"""Placing an order: all of it or nothing, and never more than there is."""

from collections.abc import Iterable, Mapping

from django.db import transaction
from django.db.models import F

from example.shop.models import Customer, Order, OrderLine, Product


class OutOfStock(Exception):
    """Some of these products has less left than was asked for; nothing was ordered."""

    def __init__(self, products: Iterable[Product]) -> None:
        self.products = list(products)
        names = ", ".join(f"{p.name} ({p.stock} left)" for p in self.products)
        super().__init__(f"Not enough in stock: {names}.")


@transaction.atomic
def place_order(customer: Customer, basket: Mapping[int, int]) -> Order:
    """Order basket[product id] units of each product; raises OutOfStock.

    Locks the products in the order of their ids: two orders of the same products
    wait for each other, they cannot deadlock.
    """
    products = list(Product.objects.select_for_update().filter(pk__in=basket).order_by("pk"))
    missing = [product for product in products if product.stock < basket[product.pk]]
    if missing:
        raise OutOfStock(missing)
    total = sum(product.price * basket[product.pk] for product in products)
    order = Order.objects.create(customer=customer, total=total)
    for product in products:
        quantity = basket[product.pk]
        Product.objects.filter(pk=product.pk).update(stock=F("stock") - quantity)
        OrderLine.objects.create(
            order=order, product=product, quantity=quantity, unit_price=product.price
        )
    return order
