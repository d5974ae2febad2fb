"""The shop, the admin and the admin's files."""

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

urlpatterns = [
    path("", include("example.shop.urls")),
    path("admin/", admin.site.urls),
    # Django serves files itself only under DEBUG; an example needs no second web server for them.
    path("static/<path:path>", serve, {"insecure": True}),
]
