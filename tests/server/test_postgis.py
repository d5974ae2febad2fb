"""GeoDjango on the pooled PostGIS backend."""

import ctypes.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.postgres import PostgresServer
from tests.server.databases import Databases, looked_after
from tests.server.support import DEBIAN_BIN, require, run_python

POSTGIS = Path("/usr/share/postgresql/15/extension/postgis.control")
INSTALL = "'apt-get install --no-install-recommends postgresql-15-postgis-3' brings it."

# In a process of its own: GeoDjango loads GDAL and GEOS, and its models need an installed app.
STORY = """
import json, os, django
from django.conf import settings
settings.configure(
    DATABASES=json.loads(os.environ["TEST_DATABASES"]), USE_TZ=True, SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.gis"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from django.contrib.gis.db import models
from django.contrib.gis.geos import Point, Polygon
from django.db import connection
from django_psycopg_pooled.integration.driver import DRIVER

class Shop(models.Model):
    name = models.TextField()
    place = models.PointField()
    class Meta:
        app_label = "shops"

with connection.schema_editor() as editor:
    editor.create_model(Shop)
pids = set()
try:
    for number in range(2):
        connection.ensure_connection()
        pids.add(DRIVER.server_pid(connection.connection))
        Shop.objects.create(name=f"shop {number}", place=Point(5 + number, 23))
        shop = Shop.objects.get(name=f"shop {number}")
        assert isinstance(shop.place, Point), shop.place
        assert (shop.place.x, shop.place.y, shop.place.srid) == (5 + number, 23, 4326)
        square = Polygon.from_bbox((0, 0, 5.5, 30))
        assert [s.name for s in Shop.objects.filter(place__within=square)] == ["shop 0"]
        connection.close()
    assert len(pids) == 1, pids
    assert connection.pool.get_stats()["connections_num"] == 1
finally:
    with connection.schema_editor() as editor:
        editor.delete_model(Shop)
print("done")
"""


@pytest.fixture
def postgis(debian_server: PostgresServer) -> Iterator[Databases]:
    """Debian's server with the extension in a database `gis`."""
    require(DEBIAN_BIN.is_dir() and POSTGIS.exists(), f"PostGIS is missing: {INSTALL}")
    require(ctypes.util.find_library("gdal"), f"GDAL is missing: {INSTALL}")
    debian_server.create_database("gis")
    debian_server.psql("CREATE EXTENSION postgis", "gis")
    yield from looked_after(Databases(debian_server))
    debian_server.psql('DROP DATABASE "gis"')


@pytest.mark.parametrize("pool", [{"max_size": 1}, {"max_size": 1, "num_workers": 0}], ids=str)
def test_geometries_go_round_over_two_loans_of_one_connection(
    postgis: Databases, pool: dict[str, int]
) -> None:
    engine = "django_psycopg_pooled.backends.postgis"
    settings = {"default": postgis.settings(pool, ENGINE=engine, NAME="gis")}
    done = run_python(
        "-W", "error", "-c", STORY, environ={"TEST_DATABASES": json.dumps(settings)}
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
