# make demo, make test: each does all the set-up it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Django is the newest that the interpreter can run, unless DJANGO names a dependency group.
DJANGO ?= $(shell $(PYTHON) -c "import sys; print('django61' if sys.version_info >= (3, 12) else 'django52')")
READY := $(VENV)/.ready-$(DJANGO)

.PHONY: venv
venv: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv --upgrade-deps $(VENV)
	$(BIN)/python -m pip install -q -e . --group test --group lint --group $(DJANGO) 'psycopg[binary]' psycopg2-binary
	touch $@

.PHONY: demo
demo: $(VENV)/.ready-demo
	@$(BIN)/python -m example.demo $(if $(SERVE),--serve) $(if $(PORT),--port=$(PORT)) $(DEMO)

$(VENV)/.ready-demo: $(READY)
	$(BIN)/python -m pip install -q --group demo
	touch $@
