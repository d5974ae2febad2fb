"""Comments that tell the server's log whose a statement is, as sqlcommenter writes them.

Source: the format is sqlcommenter's (https://google.github.io/sqlcommenter/spec/): keys in order,
values URL-encoded and in quotes, at the end of the statement. Only tags with few values: one that
is different for each request, such as a trace id, would make each statement another text.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from django_psycopg_pooled.tracking.labels import current

DRIVER = "django_psycopg_pooled"


class Commenter:
    """Writes the comments of one pool's statements; lives as long as it. Any thread.

    framework   "django:5.2", or whatever sends the statements
    """

    def __init__(self, framework: str) -> None:
        self._framework = framework
        self._comment = lru_cache(1000)(self._written)

    def commented(self, query: Any, params: Any) -> Any:
        """*query* with the comment of what this thread works on; as it is if it is no string."""
        if type(query) is not str:
            return query
        work = current()
        comment = self._comment(None if work is None else work.text)
        # With parameters the driver takes a % for the beginning of a placeholder.
        return query + (comment if params is None else comment.replace("%", "%%"))

    def before(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """*plain*, a cursor's execute(query, params), given commented statements."""
        return lambda query, params=None: plain(self.commented(query, params), params)

    def _written(self, work: str | None) -> str:
        tags = {"db_driver": DRIVER, "framework": self._framework, **_tags_of(work)}
        pairs = (f"{key}='{quote(value, safe='')}'" for key, value in sorted(tags.items()))
        return f" /*{','.join(pairs)}*/"


def _tags_of(work: str | None) -> dict[str, str]:
    if not work:
        return {}
    method, _, route = work.partition(" ")
    if method.isupper():
        return {"route": route} if route else {}  # not resolved yet
    return {"action": work}
