# make samsum: the bundled sweep. make test: ruff, mypy and all tests.
# make fast: the tests that start neither Ray nor a sweep and take seconds, with fewer examples.
# make test-gpu: the tests that need a GPU.
# make test-kernels: the kernels' tests on a CPU, by Triton's interpreter, which it downloads.
# make test-lab: a sweep in a real Slurm on this machine, by root (apt-get install slurm-wlm munge),
# and launch files as SkyPilot and Kubernetes read them.
# make lock: requirements.lock from what .venv has. make audit: its known vulnerabilities.
# Each sets up .venv first, if it is not there.
PYTHON ?= python3
# The exact version comes first, so that an index with CPU builds gives one where there is no GPU.
TORCH ?= torch==2.13.0

BIN := .venv/bin
# Bytecode is kept: to rewrite the tests' asserts takes seconds, in each worker.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest
INSTALLED := .venv/installed-$(TORCH)

.PHONY: samsum test fast test-gpu test-kernels test-lab check lock audit setup clean

samsum: setup
	$(BIN)/python -m sweeps.run samsum --tiny

test: setup check
	$(PYTEST) -n 2

fast: setup
	$(PYTEST) -n 2 --hypothesis-profile=fast -m "not ray and not sweep and not slow and not lab"

test-gpu: setup
	$(BIN)/python -m pytest -m gpu

# Beside .venv's own packages: where Triton is installed, every process that loads torch loads it.
# The interpreter of 3.9 refuses a mask that was joined with a condition.
test-kernels: setup
	$(BIN)/python -m pip install --quiet --upgrade --target .venv/triton "triton<3.9"
	PYTHONPATH=.venv/triton $(BIN)/python -m pytest tests/trainables/packing/compute/kernels

# In environments of their own: SkyPilot brings a hundred packages, and what Ray's jobs need would
# start in every local Ray. That of the jobs finds all else in .venv.
test-lab: setup
	test -d .venv/lab || $(PYTHON) -m venv .venv/lab
	.venv/lab/bin/python -m pip install --quiet "skypilot>=0.14,<0.15" kubernetes-validate
	test -d .venv/jobs || $(PYTHON) -m venv .venv/jobs
	ls -d $(CURDIR)/.venv/lib/python3*/site-packages >$$(echo .venv/jobs/lib/python3*/site-packages)/main.pth
	.venv/jobs/bin/python -m pip install --quiet "ray[default]"
	$(PYTEST) -m lab tests/cluster/lab

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

# Of every platform's files; torch and what it brings differ by machine.
lock: setup
	test -d .venv/uv || $(PYTHON) -m venv .venv/uv
	.venv/uv/bin/python -m pip install --quiet uv
	{ $(BIN)/python -m pip freeze --exclude-editable | grep -vE "^(torch|triton|nvidia-|cuda-)"; \
	  echo "setuptools>=77,<82"; } | .venv/uv/bin/uv pip compile --quiet --no-deps --no-annotate \
	  --generate-hashes --python-version 3.11 --custom-compile-command "make lock" \
	  --output-file requirements.lock -

audit: setup
	test -d .venv/audit || $(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	rm -f .venv/installed-*
	touch $(INSTALLED)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
