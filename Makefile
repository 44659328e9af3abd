# Needs git, make and Python 3.10 or newer. Go comes from PyPI where it is missing or too old; what is made goes into
# .cache/ and bin/, nothing into your home folder.

PYTHON ?= python3

.PHONY: run build test venvs test-go test-python test-e2e test-autobahn test-sid sid fuzz siege test-sanitizers lint check-builds bench clean

run: build ## build, and serve the examples on http://localhost:9080
	@$(PYTHON) tools/run_examples.py

build: ## build bin/caddy
	@$(PYTHON) tools/build.py

test: test-go fuzz test-python test-e2e test-autobahn ## install and run all tests

venvs: ## make the virtual environments that the tests need, which they do by themselves
	@$(PYTHON) tools/pythons.py

test-go:
	@$(PYTHON) tools/test_go.py

fuzz:
	@$(PYTHON) tools/fuzz.py

test-python:
	@$(PYTHON) tools/test_python.py

test-e2e: build
	@$(PYTHON) tools/test_e2e.py

test-autobahn: build ## run some of Autobahn's WebSocket cases, where there is a Python 2.7
	@$(PYTHON) tools/test_autobahn.py

test-sid: build ## run a part of the end-to-end tests on Python 3.14 and 3.15, from Debian sid; needs root and debootstrap
	@$(PYTHON) tools/test_sid.py

sid: ## make the Debian sid that test-sid needs
	@$(PYTHON) tools/test_sid.py --make

siege: export CADDYSNAKE_SIEGE = 1
siege: test-go fuzz test-python test-e2e test-autobahn test-sanitizers ## run the long tests whole, and all on each Python; `make test` runs a tenth

test-sanitizers: ## run the end-to-end tests with threads under ASan, UBSan and the race detector
	@$(PYTHON) tools/test_sanitizers.py

lint: ## check format, types and common mistakes
	@$(PYTHON) tools/lint.py

check-builds: ## build without cgo, with xcaddy, and for Windows
	@$(PYTHON) tools/check_builds.py

bench: build ## measure against other servers
	@$(PYTHON) tools/bench.py

clean: ## remove all that was made
	rm -rf .cache bin
