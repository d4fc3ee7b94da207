GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: test torture planted fuzz lint bench compare quickstart

SEED ?= 1
MINUTES ?= 2
RUNS ?= 1
FUZZTIME ?= 30s

test:
	script/setup
	$(GO) test -race -timeout 30m -p 1 ./... # one package at a time: some tests watch the CPU's load

torture: # what goes wrong is chosen by SEED, and does for MINUTES; RUNS with the seeds that follow
	script/setup
	$(GO) run ./internal/torture -seed $(SEED) -minutes $(MINUTES) -runs $(RUNS)

fuzz: # each target for FUZZTIME
	script/setup
	@set -e; for package in . ./redisstore; do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep ^Fuzz); do \
			$(GO) test $$package -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x -parallel 1; \
		done; \
	done

planted: # bugs that the torture must catch
	script/setup
	$(GO) run ./internal/planted

lint:
	@unformatted=$$(gofmt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	cd bench && $(GO) vet ./... && $(GO) build -o /dev/null . # a module of its own

bench:
	script/setup
	$(GO) run ./cmd/dianemo bench --rounds 3

compare:
	script/setup
	cd bench && $(GO) run .

quickstart:
	$(GO) run ./examples/quickstart
