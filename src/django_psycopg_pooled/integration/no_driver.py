"""What is said where no driver is installed; it can be imported there."""

# Begins with what the stock backend says.
NO_DRIVER = "Error loading psycopg2 or psycopg module: this backend needs one of them."
INSTALL = (
    'Run pip install "django-psycopg-pooled[psycopg]" for psycopg 3, which is the recommended one,'
    " or [psycopg2] for psycopg2."
)
