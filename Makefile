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

# What tests more of processes and programs than of a driver, and takes long: with psycopg 3 only.
DRIVERLESS := asgi autoreload benchmarks celery control_socket demo exit faults multiprocessing overload pools_command runners
# What measures time, and so wants the machine for itself. All else runs in two processes, each with
# a server of its own.
ALONE := tests/server/test_overload.py tests/server/test_exit.py
PYTEST := $(BIN)/python -m pytest -q
# Not in the order that xdist would make: files with few tests, which take longest, would come last.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

# Everything, with this interpreter and both drivers. The last line is pytest's.
.PHONY: test
test: lint $(VENV)/.ready-demo $(VENV)/.ready-bench
	$(PYTEST) $(ALONE)
	PYTHONPATH=$(CURDIR)/devtools/without_psycopg $(PYTEST) $(TWO) tests/contract tests/server tests/stress/test_killed_server.py \
		$(DRIVERLESS:%=--ignore tests/server/test_%.py)
	$(PYTEST) $(TWO) tests $(ALONE:%=--ignore %)

.PHONY: lint
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: demo
demo: $(VENV)/.ready-demo
	@$(BIN)/python -m example.demo $(if $(SERVE),--serve) $(if $(PORT),--port=$(PORT)) $(DEMO)

$(VENV)/.ready-demo: $(READY)
	$(BIN)/python -m pip install -q --group demo
	touch $@

# Django's own tests with our backend, by PYTHON; failures that stock Django has too do not count.
# LABELS is ci (default), core, all or labels of Django's runtests.py; see also --help.
#   make django-tests LABELS='backends schema' DJANGO_VERSION=5.2.19 DRIVER=psycopg2
# PREPARE=all has every statement prepared from its first execution on.
LABELS ?= ci
DRIVER ?= psycopg
.PHONY: django-tests
django-tests:
	@$(PYTHON) -m devtools.django_suite --labels '$(LABELS)' --driver '$(DRIVER)' --django '$(DJANGO_VERSION)' --options '$(OPTIONS)' --prepare '$(PREPARE)' $(if $(STOCK),--stock)

# All benchmarks, or one: make bench BENCH=cycle ARGS=--quick
.PHONY: bench
bench: $(VENV)/.ready-bench
	@$(BIN)/python -m benchmarks$(if $(BENCH),.$(BENCH)) $(ARGS)

$(VENV)/.ready-bench: $(READY)
	$(BIN)/python -m pip install -q --group bench
	touch $@
