# `make help` is the manual. Everything a developer or CI runs is a target here, so that both run the same thing.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export TIMEFORMAT := took %0lR

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# The tools have a module file of their own: what they depend on is nothing the product depends on.
TOOL := go tool -modfile=$(CURDIR)/.ci/tools.mod
# Modules of their own, for what only tests need: the product's go.mod does not know the SDKs.
SUBMODULES := $(patsubst %/go.mod,%,$(wildcard test/*/go.mod))
FUZZTIME ?= 15s
SOAKTIME ?= 30m

.PHONY: help build images generate check test bench picture demo demo-gateway demo-down soak fuzz clean drift node

help: ## Show this table
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## Build bin/webhook, bin/sidecar, bin/redirect and bin/kubectl-remora, static binaries
	@mkdir -p bin; CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./webhook ./sidecar ./sidecar/redirect ./webhook/kubectl-remora
	@ln -sf kubectl-remora bin/kubectl_complete-remora # by which kubectl completes `kubectl remora`

images: build ## Pack them into container images, bin/*.tar, without a container engine
	@go run ./test/images bin

demo: ## See it work, step by step, on a Kubernetes of its own; CLUSTER=current: where kubectl points
	@.ci/prerequisites $(if $(CLUSTER),current,demo)
	@go run ./test/demo $(if $(CLUSTER),-cluster=$(CLUSTER))

demo-gateway: ## See the gateway balance servers by Istio's resources, on a Kubernetes of its own
	@.ci/prerequisites demo
	@go run ./test/demo -gateway

demo-down: ## End the demo's Kubernetes
	@go run ./test/demo -down

# -count=1: several tests build and run the programs, which the test cache knows nothing of. Packages begin in the order given:
# those that take longest first, so that none of them is left over at the end. The node has the machine to itself: beside other tests, its
# containers would wait for minutes. Check has vetted.
LONG := ./test/integration ./webhook ./test/soak ./test/demo ./test/dockerfile ./test/bench/pods ./sidecar/watch ./sidecar/proxy
GOTEST := go test -race -vet=off -shuffle=on -count=1 -timeout 30m
test: ## Check, then run every test with the race detector; installs what it needs (Debian, as root)
	@.ci/prerequisites test
	@$(MAKE) check
	@echo '== Kubernetes'; time go run ./test/cluster assets
	@echo '== go test, on a node'; time $(GOTEST) ./test/e2e
	@echo '== go test'; time $(GOTEST) -p 2 $(LONG) $$(go list ./... | grep -v /test/e2e$$)
	@$(MAKE) node
	@for module in $(SUBMODULES); do echo "== go test, in $$module"; (cd "$$module"; time go test -race -shuffle=on -count=1 ./...); done

check: ## Generate, gofmt, go vet, lint; fails where a generated file was out of date
	@echo '== generated files'; time $(MAKE) generate drift
	@echo '== gofmt'; unformatted=$$(git ls-files --cached --others --exclude-standard '*.go' | while read -r f; do [ ! -e "$$f" ] || echo "$$f"; done | xargs -r gofmt -l); \
	  [ -z "$$unformatted" ] || { printf 'not formatted:\n%s\nRemedy: gofmt -w, on each of these.\n' "$$unformatted" >&2; exit 1; }
	@for module in . $(SUBMODULES); do echo "== go vet, lint: $$module"; (cd "$$module"; time { go vet ./... && $(TOOL) golangci-lint run ./...; }); done

generate: ## Write the deep copies of apis/ and the CRDs of config/crd from the Go types
	@new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	  $(TOOL) controller-gen object crd paths=./apis/v1beta1/... output:crd:dir="$$new"; \
	  for old in config/crd/*_*.yaml; do [ -e "$$new/$${old##*/}" ] || rm -f "$$old"; done; \
	  for f in "$$new"/*; do cmp -s "$$f" config/crd/$${f##*/} || install -m 644 "$$f" config/crd/; done

bench: build ## Measure: sidecar and gateway beside a bare fasthttp proxy, nginx and haproxy; telemetry; simulated models; in Kubernetes; injection
	@.ci/prerequisites bench
	@go run ./test/bench
	@go run ./test/bench/gateway
	@go run ./test/bench/telemetry
	@mkdir -p docs; go run ./test/bench/models -docs docs
	@go run ./test/bench/cluster
	@go run ./test/bench/pods

picture: ## Draw docs/overview.svg, the overview dashboard, from what a real Prometheus reads of sidecars under load
	@go run ./test/cluster assets
	@go test -vet=off -count=1 -timeout 10m ./test/monitoring -run EachQuery -picture $(CURDIR)/docs/overview.svg

soak: build ## Mixed load, faults and aborts for a long time (SOAKTIME=30m), then look for what has leaked
	@go run ./test/soak -for $(SOAKTIME) -sidecar bin/sidecar

fuzz: ## Run each fuzz test for a short while (FUZZTIME=15s)
	@grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | while IFS=: read -r file name; do \
	  echo "== $${name#func } ($${file%/*})"; \
	  go test -run '^$$' -fuzz "^$${name#func }\$$" -fuzztime $(FUZZTIME) "$${file%/*}" </dev/null; \
	done

clean: ## Remove what was built or installed in this folder
	@rm -rf bin test/*/node/node_modules

# What generate writes must be what is in git's index. Compared after generating, so the remedy is already done but for the commit.
drift:
	@.ci/drift 'apis/**/zz_generated.*.go' 'config/crd/*_*.yaml'

# npm leaves node_modules/.package-lock.json behind; where that is newer than the lock file, there is nothing to install.
node: $(patsubst %/package-lock.json,%/node_modules/.package-lock.json,$(wildcard test/*/node/package-lock.json))

%/node_modules/.package-lock.json: %/package-lock.json
	@echo '== npm ci, in $*'; cd $*; time npm ci --no-audit --no-fund --loglevel=error >/dev/null; touch node_modules/.package-lock.json
