"""A process answers questions about its pools on a unix socket: one line of JSON in, one out."""
