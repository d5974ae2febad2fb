"""fill_shop: a shop with some history, the same for the same seed; one or two seconds."""

import random
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from example.shop.models import Category, Customer, Order, OrderLine, Product, Review

OPENED = datetime(2025, 1, 1, 9, tzinfo=UTC)
KINDS = ("Bags", "Bowls", "Chairs", "Cups", "Desks", "Lamps", "Rugs", "Shelves", "Sofas", "Vases")
COLORS = ("black", "blue", "green", "grey", "red", "white", "yellow")
MATERIALS = ("cotton", "glass", "leather", "oak", "steel", "stone")
SIZES = ("S", "M", "L", "XL")
STYLES = ("Classic", "Country", "Garden", "Modern", "Nordic", "Urban")
FIRST_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Greta", "Hugo", "Ida", "Jon")
LAST_NAMES = ("Abel", "Berg", "Costa", "Diaz", "Egger", "Frost", "Gold", "Holm", "Ivers", "Jansen")
CITIES = ("Aarhus", "Bergen", "Bologna", "Ghent", "Graz", "Lyon", "Porto", "Turku", "Utrecht")
OPINIONS = (
    "Just what I was looking for.",
    "Good value.",
    "It arrived late.",
    "Smaller than it looks.",
    "I would buy it again.",
    "The colour is not the one in the picture.",
)
# Enough that nothing sells out while the demo runs.
DELIVERED_UNITS = 100_000


class Command(BaseCommand):
    help = "Fill an empty shop with customers, products, orders and reviews."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--customers", type=int, default=500)
        parser.add_argument("--products", type=int, default=600)
        parser.add_argument("--orders", type=int, default=1500)
        parser.add_argument("--reviews", type=int, default=1500)
        parser.add_argument("--seed", type=int, default=1)

    @transaction.atomic
    def handle(self, **options: Any) -> None:
        if Product.objects.exists():
            raise CommandError("The shop is not empty; 'manage.py flush' empties it.")
        shop = Filler(random.Random(options["seed"]))
        shop.add_products(options["products"])
        shop.add_customers(options["customers"])
        shop.add_orders(options["orders"])
        shop.add_reviews(options["reviews"])
        self.stdout.write(
            f"{options['products']} products, {options['customers']} customers, "
            f"{options['orders']} orders, {options['reviews']} reviews."
        )


class Filler:
    """The rows made so far, and the random numbers they are made from; lives for one command."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.products: list[Product] = []
        self.customers: list[Customer] = []

    def add_products(self, count: int) -> None:
        categories = Category.objects.bulk_create(Category(name=kind) for kind in KINDS)
        rows = [self._product(self.chance.choice(categories), n) for n in range(1, count + 1)]
        self.products = Product.objects.bulk_create(rows)

    def _product(self, category: Category, number: int) -> Product:
        color, style = self.chance.choice(COLORS), self.chance.choice(STYLES)
        return Product(
            category=category,
            name=f"{style} {category.name.lower()}, {color}, no. {number}",
            price=Decimal(self.chance.randrange(500, 50_000)) / 100,
            received=DELIVERED_UNITS,
            stock=DELIVERED_UNITS,
            attributes={
                "color": color,
                "material": self.chance.choice(MATERIALS),
                "size": self.chance.choice(SIZES),
                "weight_g": self.chance.randrange(100, 20_000),
            },
        )

    def add_customers(self, count: int) -> None:
        self.customers = Customer.objects.bulk_create(
            Customer(
                name=f"{self.chance.choice(FIRST_NAMES)} {self.chance.choice(LAST_NAMES)}",
                email=f"customer{number}@example.com",
                city=self.chance.choice(CITIES),
                joined_at=OPENED,
            )
            for number in range(1, count + 1)
        )

    def add_orders(self, count: int) -> None:
        baskets = [self._basket() for _ in range(count)]
        orders = Order.objects.bulk_create(
            Order(
                customer=self.chance.choice(self.customers),
                status=self.chance.choice((Order.Status.PLACED, Order.Status.SENT)),
                placed_at=OPENED + timedelta(minutes=7 * number),
                total=sum(product.price * quantity for product, quantity in basket.items()),
            )
            for number, basket in enumerate(baskets)
        )
        lines = OrderLine.objects.bulk_create(self._lines(orders, baskets))
        self._take_from_stock(lines)

    def _basket(self) -> dict[Product, int]:
        products = self.chance.sample(self.products, self.chance.randint(1, 4))
        return {product: self.chance.randint(1, 3) for product in products}

    def _lines(self, orders: list[Order], baskets: list[dict[Product, int]]) -> Iterator[OrderLine]:
        for order, basket in zip(orders, baskets, strict=True):
            for product, quantity in basket.items():
                yield OrderLine(
                    order=order, product=product, quantity=quantity, unit_price=product.price
                )

    def _take_from_stock(self, lines: list[OrderLine]) -> None:
        sold: Counter[Product] = Counter()
        for line in lines:
            sold[line.product] += line.quantity
        for product, quantity in sold.items():
            product.stock -= quantity
        Product.objects.bulk_update(sold, ["stock"], batch_size=200)

    def add_reviews(self, count: int) -> None:
        Review.objects.bulk_create(
            Review(
                product=self.chance.choice(self.products),
                customer=self.chance.choice(self.customers),
                stars=self.chance.choice((2, 3, 4, 4, 5, 5)),
                text=self.chance.choice(OPINIONS),
                written_at=OPENED + timedelta(minutes=11 * number),
            )
            for number in range(count)
        )
