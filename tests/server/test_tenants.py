"""Many tenants on one pool, as docs/how-to.md says. PAINS 26, 27."""

import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from django.db import DatabaseError, connections, transaction
from django.http import HttpRequest, HttpResponse

from devtools.postgres import PostgresServer
from django_psycopg_pooled.integration.driver import DRIVER
from django_psycopg_pooled.integration.wrapper import PooledWrapper
from tests.server.databases import Databases
from tests.server.support import DATABASE, ROOT, Call, pool_of, run_python, value, wrapper

# ---- django-tenants

SHOP = """\
import json, os, random, sys, threading
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": json.loads(os.environ["TEST_DATABASE"])},
    ORIGINAL_BACKEND="django_psycopg_pooled.backends.postgresql",
    DATABASE_ROUTERS=["django_tenants.routers.TenantSyncRouter"],
    SHARED_APPS=["django_tenants", "django.contrib.contenttypes"], TENANT_APPS=["shop"],
    INSTALLED_APPS=["django_tenants", "django.contrib.contenttypes"],
    TENANT_MODEL="shop.Client", TENANT_DOMAIN_MODEL="shop.Domain",
    TENANT_LIMIT_SET_CALLS=os.environ["TEST_LIMIT_SET_CALLS"] == "1",
    SECRET_KEY="x", USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
seen = []
def look(raw):
    with raw.cursor() as cursor:
        cursor.execute("SHOW search_path")
        seen.append(cursor.fetchone()[0])
settings.DATABASES["default"]["OPTIONS"]["pool"]["on_checkout"] = look
django.setup()
from django.db import connection, models, transaction
from django_tenants.utils import schema_context
from django_psycopg_pooled import pools

class Note(models.Model):
    tenant = models.TextField()
    class Meta:
        app_label = "shop"
        db_table = "note"

def request(tenant, dice):
    with schema_context(tenant):
        if dice.random() < 0.3:
            try:
                with transaction.atomic():
                    Note.objects.create(tenant=tenant)
                    if dice.random() < 0.5:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
        if dice.random() < 0.3:
            with transaction.atomic():
                Note.objects.create(tenant=tenant)
        if dice.random() < 0.3:
            found = [note.tenant for note in Note.objects.iterator(chunk_size=2)]
        else:
            found = list(Note.objects.values_list("tenant", flat=True))
        return [other for other in found if other != tenant], len(found)

wrong, rows, errors = [], [], []
def work(seed):
    dice = random.Random(seed)
    try:
        for _ in range(60):
            others, count = request(dice.choice(["one", "two"]), dice)
            wrong.extend(others)
            rows.append(count)
            if dice.random() < 0.8:
                connection.close()  # as at the end of a request
    except BaseException as error:
        errors.append(repr(error))
    finally:
        connection.close()

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
[pool] = pools.all()
print(json.dumps({
    "wrong": wrong, "rows": sum(rows), "errors": errors, "paths": sorted(set(seen)),
    "loans": len(seen), "connects": pool.get_stats()["connections_num"],
    "size": pool.snapshot().size,
}))
"""


@pytest.fixture
def schemas(server: PostgresServer) -> Iterator[None]:
    """Two tenants, each with a table of that name; a third one in `public` must stay empty."""
    names = ("one", "two", "public")
    server.psql(
        "CREATE SCHEMA one; CREATE SCHEMA two;"
        + "".join(f"CREATE TABLE {name}.note (id bigserial, tenant text);" for name in names),
        DATABASE,
    )
    yield
    left = server.psql("SELECT count(*) FROM public.note", DATABASE)
    server.psql("DROP SCHEMA one, two CASCADE; DROP TABLE public.note", DATABASE)
    assert left == ["0"]


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(
    ("max_size", "limit_set_calls", "release"),
    [(1, "0", "request"), (2, "1", "request"), (2, "1", "transaction")],
)
def test_no_tenant_of_django_tenants_sees_the_rows_of_another(
    databases: Databases, max_size: int, limit_set_calls: str, release: str
) -> None:
    pool = {"min_size": 0, "max_size": max_size, "timeout": 30, "release": release}
    entry = databases.settings(pool, ENGINE="django_tenants.postgresql_backend")
    environ = {"TEST_DATABASE": json.dumps(entry), "TEST_LIMIT_SET_CALLS": limit_set_calls}
    done = run_python("-c", SHOP, environ=environ, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["errors"] == []
    assert report["wrong"] == []
    assert report["rows"] > 100
    assert report["paths"] == ['"$user", public'], "the next borrower found a tenant's search_path"
    assert report["loans"] > 100
    assert report["connects"] == report["size"] == max_size, "a change of tenant cost a connect"


# ---- row-level security


def as_tenant(
    alias: str, get_response: Callable[[HttpRequest], HttpResponse]
) -> Callable[[HttpRequest], HttpResponse]:
    """The middleware of docs/how-to.md, for this alias."""

    def middleware(request: HttpRequest) -> HttpResponse:
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            tenant = str(request.META["tenant"])
            cursor.execute("SELECT set_config('shop.tenant', %s, true)", [tenant])
            return get_response(request)

    return middleware


@pytest.fixture
def orders(databases: Databases) -> Iterator[PooledWrapper]:
    """An alias on one connection, whose role sees its tenant's orders only."""
    databases.server.psql(
        "CREATE ROLE shop;"
        " CREATE TABLE orders (tenant int, thing text); ALTER TABLE orders OWNER TO shop;"
        " ALTER TABLE orders ENABLE ROW LEVEL SECURITY;"
        " ALTER TABLE orders FORCE ROW LEVEL SECURITY;"
        " CREATE POLICY own ON orders"
        " USING (tenant = nullif(current_setting('shop.tenant', true), '')::int);"
        " INSERT INTO orders VALUES (1, 'one'), (2, 'two')",
        DATABASE,
    )
    connection = databases.add({"max_size": 1}, options={"assume_role": "shop"})
    try:
        yield connection
    finally:
        connection.close()
        pool_of(connection).close()
        databases.server.psql("DROP TABLE orders; DROP ROLE shop", DATABASE)


def request_of(tenant: int) -> HttpRequest:
    request = HttpRequest()
    request.META["tenant"] = tenant
    return request


def things(alias: str) -> str:
    return str(value(wrapper(alias), "SELECT coalesce(string_agg(thing, ' '), '') FROM orders"))


def test_a_request_sees_the_rows_of_its_own_tenant_only(
    orders: PooledWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[object] = []
    monkeypatch.setattr(DRIVER, "reset", lambda *sent: resets.append(sent), raising=False)
    alias = orders.alias
    serve = as_tenant(alias, lambda _: HttpResponse(things(alias)))

    def work(tenant: int) -> set[bytes]:
        seen = set()
        for _ in range(50):
            seen.add(serve(request_of(tenant)).content)
            connections[alias].close()
        return seen

    calls = [Call(partial(work, tenant)) for tenant in (1, 2, 1, 2)]
    assert [call.outcome() for call in calls] == [{b"one"}, {b"two"}] * 2
    assert resets == [], "what ends with its transaction costs no reset"
    assert pool_of(orders).get_stats()["connections_num"] == 1


def test_without_a_tenant_no_row_is_seen(orders: PooledWrapper) -> None:
    """Fail closed: before a request, after it, outside its transaction, and after a failure."""
    alias = orders.alias

    def fail(_: HttpRequest) -> HttpResponse:
        raise ZeroDivisionError

    assert things(alias) == ""
    assert as_tenant(alias, lambda _: HttpResponse(things(alias)))(request_of(1)).content == b"one"
    assert things(alias) == ""
    with pytest.raises(ZeroDivisionError):
        as_tenant(alias, fail)(request_of(1))
    assert things(alias) == ""
    value(orders, "SELECT set_config('shop.tenant', '1', true)")
    assert things(alias) == "", "a local setting outside a transaction is gone at once"
    with pytest.raises(DatabaseError, match="row-level security"):
        value(orders, "INSERT INTO orders VALUES (1, 'x') RETURNING 1")


def test_a_tenant_that_was_set_for_the_session_by_mistake_does_not_reach_the_next_request(
    orders: PooledWrapper,
) -> None:
    value(orders, "SELECT set_config('shop.tenant', '1', false)")
    assert things(orders.alias) == "one"
    orders.close()
    assert things(orders.alias) == ""
