"""One visitor of the shop: a browser session over one kept-alive connection after another."""

import http.client
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlencode

from example.demo.facts import Load

HOST = "127.0.0.1"
TIMEOUT_S = 20.0
# A browser does not come for ever: new connections also spread over the worker processes.
PAGES_PER_CONNECTION = 25
COLORS = ("black", "blue", "green", "grey", "red", "white", "yellow")


@dataclass(frozen=True)
class Shop:
    """Where the shop is and how much there is in it: ids count from 1."""

    port: int
    products: int
    customers: int


@dataclass
class Visitor:
    """Thread-bound: nothing in here is shared before the thread has ended."""

    shop: Shop
    chance: random.Random
    measured_from: float = 0.0
    until: float = 0.0
    load: Load = field(default_factory=Load)
    csrf: str = ""

    def run(self) -> None:
        """Look around until the time is over. Never raises: what goes wrong is counted."""
        while time.monotonic() < self.until:
            self.connection = http.client.HTTPConnection(HOST, self.shop.port, timeout=TIMEOUT_S)
            try:
                self._session()
            except (OSError, http.client.HTTPException) as error:
                self.load.errors[f"{type(error).__name__}: {error}"] += 1
            finally:
                self.connection.close()

    def _session(self) -> None:
        for _ in range(PAGES_PER_CONNECTION):
            if time.monotonic() >= self.until:
                break
            [act] = self.chance.choices(ACTS, WEIGHTS)
            act(self)

    def front_page(self) -> None:
        self._get(f"/?page={self.chance.randint(1, 12)}")

    def product(self) -> None:
        self._get(f"/products/{self._product_id()}/")

    def search(self) -> None:
        self._get(f"/search/?color={self.chance.choice(COLORS)}")

    def customer(self) -> None:
        self._get(f"/customers/{self._customer_id()}/")

    def delivery(self) -> None:
        self._get(f"/products/{self._product_id()}/delivery/")

    def order(self) -> None:
        """The form, the order, and the page that a browser is sent to after it."""
        products = {self._product_id() for _ in range(self.chance.randint(1, 3))}
        page = "/orders/new/?" + urlencode([("product", pk) for pk in products])
        self._get(page)
        fields = {f"quantity_{pk}": self.chance.randint(1, 3) for pk in products}
        email = f"customer{self._customer_id()}@example.com"
        body = urlencode({"csrfmiddlewaretoken": self.csrf, "email": email, **fields})
        where = self._ask("POST", page, HTTPStatus.FOUND, body)
        if where:
            self.load.orders.append(int(where.strip("/").rpartition("/")[2]))
            self._get(where)

    def _product_id(self) -> int:
        """Some products are bought far more than others: their orders meet in the database."""
        return 1 + int(self.shop.products * self.chance.random() ** 3)

    def _customer_id(self) -> int:
        return self.chance.randint(1, self.shop.customers)

    def _get(self, path: str) -> None:
        self._ask("GET", path, HTTPStatus.OK)

    def _ask(self, method: str, path: str, expected: HTTPStatus, body: str | None = None) -> str:
        """One request and its whole answer; the address of a redirect."""
        started = time.monotonic()
        self.connection.request(method, path, body, self._headers(body))
        response = self.connection.getresponse()
        content = response.read()
        self._note(started, time.monotonic())
        if response.status != expected:
            self.load.errors[f"{method} {path.partition('?')[0]}: {response.status}"] += 1
            return ""
        if expected is HTTPStatus.OK and not content.rstrip().endswith(b"</html>"):
            self.load.errors[f"{method} {path.partition('?')[0]}: half a page"] += 1
        self._keep_cookie(response.getheader("Set-Cookie", ""))
        return response.getheader("Location", "")

    def _note(self, started: float, ended: float) -> None:
        self.load.answers += 1
        if self.measured_from <= ended < self.until:
            self.load.latencies_ms.append(round((ended - started) * 1000, 2))

    def _headers(self, body: str | None) -> dict[str, str]:
        headers = {"Cookie": f"csrftoken={self.csrf}"} if self.csrf else {}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return headers

    def _keep_cookie(self, cookie: str) -> None:
        if cookie.startswith("csrftoken="):
            self.csrf = cookie.removeprefix("csrftoken=").partition(";")[0]


# What visitors do, and how often: about one request in eight is an order or its page.
MIX: tuple[tuple[Callable[[Visitor], None], int], ...] = (
    (Visitor.front_page, 28),
    (Visitor.product, 38),
    (Visitor.search, 12),
    (Visitor.customer, 12),
    (Visitor.delivery, 2),
    (Visitor.order, 8),
)
ACTS = [act for act, _ in MIX]
WEIGHTS = [weight for _, weight in MIX]
