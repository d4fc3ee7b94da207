package operating_test

import (
	"os"
	"testing"

	"github.com/dianemo/dianemo/internal/suite"
)

func TestMain(m *testing.M) { os.Exit(suite.Main(m)) }
