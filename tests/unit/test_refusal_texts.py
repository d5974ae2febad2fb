"""What a failed connect's words tell; libpq gives no code."""

import pytest

from django_psycopg_pooled.drivers.refusals import is_refusal, is_wrong_password


@pytest.mark.parametrize(
    ("words", "permanent", "password"),
    [
        ('password authentication failed for user "clerk"', True, True),
        ("SASL authentication failed", True, True),
        ("no such user: clerk", True, False),
        ("no such database: shop", True, False),
        ("server login has been failing, try again later (server_login_retry)", False, False),
        ("the database system is starting up", False, False),
    ],
)
def test_the_words_of_servers_and_poolers_are_told_apart(
    words: str, permanent: bool, password: bool
) -> None:
    error = Exception(f"connection to server failed: FATAL:  {words}")
    assert (is_refusal(error), is_wrong_password(error)) == (permanent, password)
