"""ENGINE = "django_psycopg_pooled.backends.postgis"."""
