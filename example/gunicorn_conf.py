"""How gunicorn serves the shop: two processes with four threads each."""

import os
import secrets

# Before the workers are forked, so that they share it.
os.environ.setdefault("SHOP_SECRET_KEY", secrets.token_urlsafe(50))

workers = 2
threads = 4
worker_class = "gthread"
keepalive = 30
graceful_timeout = 5
# Newer gunicorns would open a socket for commands in a place that all servers share.
control_socket_disable = True
