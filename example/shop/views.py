"""The shop's pages: each is what a shop's page usually costs, two to six queries."""

from typing import Any

from django.core.paginator import Paginator
from django.db.models import Avg, Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from example.shop import carrier
from example.shop.forms import OrderForm
from example.shop.models import Category, Customer, Order, Product
from example.shop.ordering import OutOfStock, place_order
from example.shop.sending import cancel_order, send_order

PER_PAGE = 12
BASKET_MAX = 10
SEARCHABLE = ("color", "material", "size")


def _rated_products() -> QuerySet[Product]:
    rated = Product.objects.annotate(stars=Avg("reviews__stars"), reviewed=Count("reviews"))
    return rated.select_related("category").order_by("name", "pk")


@require_safe
def product_list(request: HttpRequest) -> HttpResponse:
    products = _rated_products()
    category = request.GET.get("category", "")
    if category.isdecimal():
        products = products.filter(category=int(category))
    context = {
        "page": Paginator(products, PER_PAGE).get_page(request.GET.get("page")),
        "categories": Category.objects.annotate(size=Count("products")),
        "category": category,
    }
    return render(request, "shop/product_list.html", context)


@require_safe
def product_detail(request: HttpRequest, pk: int) -> HttpResponse:
    product = get_object_or_404(_rated_products(), pk=pk)
    buyers = Order.objects.filter(lines__product=product)
    also_bought = (
        Product.objects.filter(lines__order__in=buyers)
        .exclude(pk=pk)
        .annotate(times=Count("lines"))
        .order_by("-times", "pk")
    )
    context = {
        "product": product,
        "reviews": product.reviews.select_related("customer")[:5],
        "also_bought": also_bought[:4],
    }
    return render(request, "shop/product_detail.html", context)


@require_safe
def delivery(request: HttpRequest, pk: int) -> HttpResponse:
    """Asks the carrier between two queries; what the connection does meanwhile is the backend's."""
    product = get_object_or_404(Product.objects.select_related("category"), pk=pk)
    quote = carrier.quote(product.attributes.get("weight_g", 0))
    sent = Order.objects.filter(lines__product=product, status=Order.Status.SENT).count()
    context = {"product": product, "quote": quote, "sent": sent}
    return render(request, "shop/delivery.html", context)


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """Products by their JSON attributes: /search/?color=red&material=oak."""
    wanted = {key: request.GET[key] for key in SEARCHABLE if request.GET.get(key)}
    found = Product.objects.filter(attributes__contains=wanted)
    facets = found.values("attributes__color").annotate(size=Count("pk"))
    context = {
        "wanted": wanted,
        "products": found.select_related("category")[:PER_PAGE],
        "facets": facets.order_by("-size"),
    }
    return render(request, "shop/search.html", context)


@require_safe
def customer_orders(request: HttpRequest, pk: int) -> HttpResponse:
    customer = get_object_or_404(Customer, pk=pk)
    orders = customer.orders.prefetch_related("lines__product")
    context = {"customer": customer, "orders": orders[:20]}
    return render(request, "shop/customer_orders.html", context)


@require_safe
def order_detail(request: HttpRequest, pk: int) -> HttpResponse:
    order = get_object_or_404(Order.objects.select_related("customer"), pk=pk)
    lines = order.lines.select_related("product__category")
    return render(request, "shop/order_detail.html", {"order": order, "lines": lines})


def new_order(request: HttpRequest) -> HttpResponse:
    """GET or POST /orders/new/?product=3&product=17: the basket is in the address."""
    form = OrderForm(_basket_products(request), request.POST or None)
    if request.method == "POST" and form.is_valid():
        customer = Customer.objects.get(email=form.cleaned_data["email"])
        try:
            return redirect(place_order(customer, form.basket))
        except OutOfStock as error:
            form.add_error(None, str(error))
    return render(request, "shop/new_order.html", {"form": form}, status=_status(form))


@require_POST
def send(request: HttpRequest, pk: int) -> HttpResponse:
    """Slow, and holds up who wants this order: see sending.py."""
    try:
        send_order(pk)
    except Order.DoesNotExist:
        raise Http404("no such order is left to send") from None
    return redirect("order", pk)


@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    cancel_order(pk)
    return redirect("order", pk)


def _basket_products(request: HttpRequest) -> list[Product]:
    ids = [int(pk) for pk in request.GET.getlist("product") if pk.isdecimal()]
    return list(Product.objects.filter(Q(pk__in=ids[:BASKET_MAX]), stock__gt=0))


def _status(form: Any) -> int:
    return 422 if form.is_bound and form.errors else 200
