# Tongs: `make help` lists what there is. The two that matter: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/tongs-dev/tongs.Version=$(VERSION)
export CGO_ENABLED ?= 0
# The race detector needs a C compiler; without one the tests run without it, and say so.
RACE := $(shell command -v gcc >/dev/null 2>&1 && echo -race)
TESTENV := $(if $(RACE),CGO_ENABLED=1,)
TIMEOUT ?= 20m
FUZZTIME ?= 2m

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/tongs and bin/tongs-guest (static, no cgo)
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/tongs ./cmd/tongs-guest

.PHONY: release
release: ## Build bin/release/tongs: one file, the guest inside it
	@mkdir -p bin/release
	$(GO) build -trimpath -ldflags '-s -w' -o internal/driver/tongs-guest ./cmd/tongs-guest
	$(GO) build -trimpath -tags embedguest -ldflags '$(LDFLAGS)' -o bin/release/tongs ./cmd/tongs

.PHONY: demo
demo: build ## Fetch OpenCode, start everything, let the scripted model do one task in a sandbox
	bin/tongs demo

.PHONY: test
test: lint ## Run the linters and every test (race detector on where a C compiler is)
	@if [ -z "$(RACE)" ]; then echo "no gcc: testing without the race detector"; fi
	$(TESTENV) $(GO) test $(RACE) -count=1 -timeout $(TIMEOUT) ./... # programs are built by tests, which the cache cannot see

.PHONY: test-long
test-long: ## Also what takes minutes: thousands of rounds, two minutes of each fuzz target
	TONGS_TEST_LONG=1 $(TESTENV) $(GO) test $(RACE) -timeout 85m ./...
	$(MAKE) fuzz

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (2m)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg 2>/dev/null | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s $$pkg; \
	  done; done

.PHONY: bench
bench: build ## Print the measurements of docs/performance.md, each beside a baseline in the same run
	$(GO) test -run '^$$' -bench . -benchtime 1s -timeout 60m ./...

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
