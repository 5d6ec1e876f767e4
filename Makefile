# Everything here needs Go and make; `make race` needs a C compiler too, and
# `make lint` fetches its tool through the module proxy on first use.

# Without cgo every machine builds the same program.
export CGO_ENABLED ?= 0

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
PACKAGES    ?= ./...
TIMEOUT     ?= 10m
# Tests with real nodes wait most of the time, whatever the number of cores.
PARALLEL    ?= 4
FUZZTIME    ?= 10s
HAMMER      ?=
CHAOS       ?= --for 10m
SIM         ?=
SPLITS      ?= -splits 40
# The least share of the error paths that tests must run.
ERRORS_LEAST ?= 85
# The protocol's core and the least share of its statements that its goldens
# and tables run.
CORE        := ./partition ./partition/replica
CORE_LEAST  := 95

.PHONY: all help format vet lint tidy test race build demo fuzz hammer chaos sim bench-log bench-split cover errpaths mutants

all: format vet lint tidy test ## format check, vet, staticcheck, layers and sizes, tests

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

format: ## fail if a file is not formatted
	@files="$$(gofmt -l .)"; \
	if [ -n "$$files" ]; then echo "not formatted, run gofmt -w on:"; echo "$$files"; exit 1; fi
	@if command -v gofumpt >/dev/null; then gofumpt -l .; fi

vet: ## go vet
	$(GO) vet $(PACKAGES)

lint: ## staticcheck
	$(GO) run $(STATICCHECK) $(PACKAGES)

tidy: ## layer table, purity, file and function sizes, no package state
	$(GO) test ./internal/tidy

test: ## all tests
	$(GO) test -timeout $(TIMEOUT) -parallel $(PARALLEL) $(PACKAGES)

race: export CGO_ENABLED = 1
race: ## all tests under the race detector; needs a C compiler
	@command -v $${CC:-gcc} >/dev/null || { echo "make race needs a C compiler: install gcc or set CC"; exit 1; }
	$(GO) test -race -timeout 30m $(PACKAGES)

build: ## bin/pando, the same bytes on every machine
	$(GO) build -trimpath -buildvcs=false -ldflags=-buildid= -o bin/pando ./cmd/pando

demo: ## three nodes and a small load in one process; Ctrl-C ends it
	$(GO) run ./cmd/pando demo

mutants: ## plant every known mistake and require that the simulator finds it
	$(GO) test -count=1 -timeout 3h -run TestMutants ./sim -sim.mutants=all -v

fuzz: ## every fuzz target for FUZZTIME each
	@set -e; \
	$(GO) list -f '{{$$d := .Dir}}{{range .TestGoFiles}}{{$$d}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$$d}}/{{.}}{{"\n"}}{{end}}' $(PACKAGES) | \
	while read -r file; do \
		[ -n "$$file" ] || continue; \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "$$name in $$(dirname "$$file")"; \
			(cd "$$(dirname "$$file")" && $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) .) || exit 1; \
		done; \
	done

hammer: ## kill and pause real processes under load; HAMMER=... are its flags
	$(GO) run ./internal/hammer $(HAMMER)

chaos: ## five real nodes through every kind of fault, 10 minutes; wants root; CHAOS=... are its flags
	$(GO) run ./internal/hammer chaos $(CHAOS)

sim: ## 10,000 simulated clusters under faults; SIM=... are flags of pando sim
	$(GO) run ./cmd/pando sim $(if $(SIM),$(SIM),--seeds 10000)

bench-log: ## the log against others, in one run
	cd bench/rivals && $(GO) run .

bench-split: ## the pause of a split, phase by phase, about a minute; SPLITS=... are its flags
	$(GO) run ./bench/splits pause $(SPLITS)

cover: ## the core's goldens and tables; fails below CORE_LEAST percent
	$(GO) test -short -count=1 -coverprofile=cover.out \
		-coverpkg=$$(echo $(CORE) | tr ' ' ',') $(CORE)
	@$(GO) tool cover -func=cover.out | awk -v least=$(CORE_LEAST) ' \
		/^total:/ { share = $$3 + 0; seen = 1 } \
		END { if (!seen) { print "no coverage was recorded"; exit 1 } \
		      printf "core: %.1f %% of statements, at least %d wanted\n", share, least; \
		      exit share < least }'

errpaths: export PANDO_CONTROL_FAULTS = 1
errpaths: export PANDO_LINK_HOSTILE = table
errpaths: export PANDO_FAULTS ?= 5
errpaths: ## the error paths no test runs; fails below ERRORS_LEAST percent
	$(GO) test -count=1 -timeout $(TIMEOUT) -coverpkg=./... -coverprofile=cover.all.out \
		$$($(GO) list ./... | grep -v -e /internal/hammer -e /internal/errpaths)
	$(GO) run ./internal/errpaths -profile cover.all.out -least $(ERRORS_LEAST)
