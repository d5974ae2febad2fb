"""The shop's staff pages."""

from django.contrib import admin

from example.shop.models import Category, Customer, Order, OrderLine, Product, Review

admin.site.register(Category)


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ("name", "category", "price", "stock")
    list_filter = ("category",)
    list_select_related = ("category",)
    search_fields = ("name",)


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    list_display = ("name", "email", "city")
    search_fields = ("name", "email")


class OrderLineInline(admin.TabularInline):
    model = OrderLine
    autocomplete_fields = ("product",)
    extra = 0


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ("__str__", "customer", "status", "placed_at", "total")
    list_filter = ("status",)
    list_select_related = ("customer",)
    autocomplete_fields = ("customer",)
    inlines = (OrderLineInline,)


@admin.register(Review)
class ReviewAdmin(admin.ModelAdmin):
    list_display = ("product", "stars", "customer", "written_at")
    list_select_related = ("product", "customer")
    autocomplete_fields = ("product", "customer")
