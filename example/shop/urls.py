"""The shop's pages."""

from django.urls import path

from example.shop import views

urlpatterns = [
    path("", views.product_list, name="products"),
    path("search/", views.search, name="search"),
    path("products/<int:pk>/", views.product_detail, name="product"),
    path("products/<int:pk>/delivery/", views.delivery, name="delivery"),
    path("customers/<int:pk>/", views.customer_orders, name="customer-orders"),
    path("orders/new/", views.new_order, name="new-order"),
    path("orders/<int:pk>/", views.order_detail, name="order"),
    path("orders/<int:pk>/send/", views.send, name="send-order"),
    path("orders/<int:pk>/cancel/", views.cancel, name="cancel-order"),
]
