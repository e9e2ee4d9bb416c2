# SPDX-License-Identifier: Apache-2.0
# Targets are short; what they do is in .ci/.

FUZZTIME ?= 10s
ONCE ?=
DIR ?=
SIZES ?=
SEEDS ?=
ARGS ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/flotilla, bin/flotilla-agent and bin/flotilla-demo, static (GOOS and GOARCH as you set them)
	@.ci/build

.PHONY: check
check: ## all day: vet and unit tests; no clusters, no race detector
	@go vet ./...
	@go test -vet=off ./...

.PHONY: check-deep
check-deep: ## the rules in models that take minutes, every state of them
	@FLOTILLA_CHECK=deep go test -vet=off -count=1 -timeout 30m -v -run '^TestRulesHoldInDepth$$' ./cmd/internal/checker

.PHONY: test
test: ## everything, as CI runs it: generated files, lint, race detector, real API servers
	@.ci/test

.PHONY: demo
demo: build ## a fleet of four clusters on this machine, and a rollout through it (ONCE=1 ends by itself)
	@FLOTILLA_DEVFLEET="$$(.ci/devfleet)" bin/flotilla-demo $(if $(ONCE),--once)

.PHONY: bench
bench: ## benchmarks
	@go test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-fleet
bench-fleet: ## a fleet on this machine, measured: commit to ready beside kubectl, idle agents
	@.ci/bench-fleet

.PHONY: sim-mesh
sim-mesh: ## the mesh on a simulated network in virtual time, measured (SIZES=100,300,1000 hosts; SEEDS=20)
	@.ci/sim-mesh "$(SIZES)" "$(SEEDS)"

.PHONY: bench-state
bench-state: ## the fleet's state beside etcd and go-ds-crdt, about ten minutes (ARGS=-short: fewer of everything)
	@.ci/bench-state $(ARGS)

.PHONY: generate
generate: ## what is generated from api/v1alpha1: deep copies and CRDs
	@.ci/generate

.PHONY: verify
verify: ## generates, and fails if that changed anything
	@.ci/verify

.PHONY: lint
lint: ## golangci-lint, by .golangci.yml
	@.ci/lint

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10s)
	@.ci/fuzz $(FUZZTIME)

.PHONY: soak
soak: ## the long tests: 2,000 kills, 10,000 damaged files, floods, partitions; half an hour and more
	@.ci/soak

.PHONY: sim-night
sim-night: ## simulated fleets for MINUTES (10), from the seed where the last time ended
	@.ci/sim-night $(or $(MINUTES),10)

.PHONY: compat
compat: ## payloads here and in kustomize and Helm, compared (DIR=folder; default: the project's own)
	@.ci/compat "$(DIR)"

.PHONY: cross
cross: ## compiles the CLI for the other platforms that people run it on
	@.ci/cross

.PHONY: vuln
vuln: ## known weaknesses in what is linked (asks the internet)
	@go run golang.org/x/vuln/cmd/govulncheck@v1.1.4 ./...
