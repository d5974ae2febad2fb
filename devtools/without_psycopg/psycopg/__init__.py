"""With this folder first on PYTHONPATH, psycopg 3 cannot be imported, so Django takes psycopg2."""

raise ImportError("psycopg 3 is hidden: this run is for psycopg2")
