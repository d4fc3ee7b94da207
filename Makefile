GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: test lint bench compare quickstart

test:
	script/setup
	$(GO) test -race -timeout 20m -p 1 ./... # one package at a time: some tests watch the CPU's load

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
