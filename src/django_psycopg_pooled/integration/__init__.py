"""Django's side of the pool: what a DatabaseWrapper needs to lend its connection from a Pool."""
