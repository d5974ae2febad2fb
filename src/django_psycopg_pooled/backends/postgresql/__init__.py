"""ENGINE = "django_psycopg_pooled.backends.postgresql"."""
