"""With this folder first on PYTHONPATH, psycopg 3 cannot be imported, so Django takes psycopg2."""

# What a missing package raises; some peers catch nothing else.
raise ModuleNotFoundError("psycopg 3 is hidden: this run is for psycopg2", name="psycopg")
