GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: test check long slowest torture planted fuzz lint tidy bench compare quickstart

SEED ?= 1
MINUTES ?= 2
RUNS ?= 1
FUZZTIME ?= 30s

test: # for people: all packages, the long tests in their short form
	script/setup
	script/test

check: lint tidy test long torture # everything, at full length

long: # what make test does not run whole
	script/setup
	script/test long

slowest: # of the last make test and make long
	@$(GO) run ./internal/slowest

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

lint: # users develop on macOS and Windows, too
	@unformatted=$$(gofmt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	GOOS=darwin CGO_ENABLED=0 $(GO) vet ./...
	GOOS=windows CGO_ENABLED=0 $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	cd bench && $(GO) vet ./... && $(GO) build -o /dev/null . # a module of its own

tidy:
	$(GO) mod tidy -diff
	cd bench && $(GO) mod tidy -diff

bench:
	script/setup
	$(GO) run ./cmd/dianemo bench --rounds 3

compare:
	script/setup
	cd bench && $(GO) run .

quickstart:
	$(GO) run ./examples/quickstart
