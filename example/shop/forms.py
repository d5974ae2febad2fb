"""The order form: who orders, and how much of each product."""

from collections.abc import Sequence
from typing import Any

from django import forms

from example.shop.models import Customer, Product

PREFIX = "quantity_"


class OrderForm(forms.Form):
    """One quantity field per product of the basket."""

    email = forms.EmailField(label="Your e-mail address")

    def __init__(self, products: Sequence[Product], data: Any = None) -> None:
        super().__init__(data)
        for product in products:
            self.fields[f"{PREFIX}{product.pk}"] = forms.IntegerField(
                label=f"{product.name} ({product.price} each, {product.stock} in stock)",
                min_value=0,
                max_value=99,
                initial=1,
            )

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"].lower()
        if not Customer.objects.filter(email=email).exists():
            raise forms.ValidationError("No customer has this address.")
        return email

    def clean(self) -> dict[str, Any]:
        if not self.errors and not self.basket:
            raise forms.ValidationError("Nothing was ordered.")
        return self.cleaned_data

    @property
    def basket(self) -> dict[int, int]:
        """Product ids and their quantities, without the zeros."""
        return {
            int(name.removeprefix(PREFIX)): quantity
            for name, quantity in self.cleaned_data.items()
            if name.startswith(PREFIX) and quantity
        }
