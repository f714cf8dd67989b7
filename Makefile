# Everything a newcomer and CI run. `make demo` in a fresh clone installs what it needs and shows the whole system.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo up test check format pins
.DEFAULT_GOAL := install

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt sdk/pyproject.toml infra/system-libraries.sh
	infra/system-libraries.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[api,worker,safety,embedded,dev]' -e sdk
	touch $@

# Train a concept from pictures and render it, through every part of the system.
demo: install
	@exec $(BIN)/lockstepd demo

# Run the system on this machine until Ctrl-C.
up: install
	@exec $(BIN)/lockstepd up

test: install
	@infra/browser.sh
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pin the versions that are installed now, once the tests have passed with them.
pins: install
	$(BIN)/python -m infra.pin
