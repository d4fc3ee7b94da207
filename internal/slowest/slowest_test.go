package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestARunIsPrintedInShort(t *testing.T) {
	t.Parallel()
	const good = `{"Action":"start","Package":"good"}
{"Action":"run","Package":"good","Test":"TestA"}
{"Action":"output","Package":"good","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"good","Test":"TestA","Output":"not shown\n"}
{"Action":"run","Package":"good","Test":"TestA/sub"}
{"Action":"pass","Package":"good","Test":"TestA/sub","Elapsed":1}
{"Action":"pass","Package":"good","Test":"TestA","Elapsed":1}
{"Action":"output","Package":"good","Output":"PASS\n"}
{"Action":"output","Package":"good","Output":"ok  \tgood\t1.2s\n"}
{"Action":"pass","Package":"good","Elapsed":1.23}
`
	const goodLine = "ok    good 1.2s\n"
	for _, row := range []struct {
		name, stream, printed string
		ok                    bool
	}{
		{"all passed", good, goodLine + "2 passed, 0 failed\n", true},
		{"one is skipped", good + `{"Action":"run","Package":"b","Test":"TestB"}
{"Action":"output","Package":"b","Test":"TestB","Output":"why\n"}
{"Action":"skip","Package":"b","Test":"TestB"}
{"Action":"pass","Package":"b"}
{"Action":"skip","Package":"c"}
`, goodLine + "ok    b 0.0s\n?     c has no tests\n2 passed, 0 failed, 1 skipped\n", true},
		{"one fails, among others", `{"Action":"run","Package":"b","Test":"TestB"}
{"Action":"output","Package":"b","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"b","Test":"TestB","Output":"one\n"}
{"Action":"run","Package":"b","Test":"TestB/sub"}
{"Action":"run","Package":"b","Test":"TestB/other"}
{"Action":"output","Package":"b","Test":"TestB/other","Output":"not shown\n"}
{"Action":"output","Package":"b","Test":"TestB/sub","Output":"    two\n"}
` + good + `{"Action":"pass","Package":"b","Test":"TestB/other"}
{"Action":"fail","Package":"b","Test":"TestB/sub"}
{"Action":"output","Package":"b","Test":"TestB","Output":"=== NAME  TestB\n"}
{"Action":"output","Package":"b","Test":"TestB","Output":"three"}
{"Action":"fail","Package":"b","Test":"TestB"}
{"Action":"output","Package":"b","Output":"FAIL\n"}
{"Action":"output","Package":"b","Output":"-test.shuffle 7\n"}
{"Action":"output","Package":"b","Output":"FAIL\tb\t2.0s\n"}
{"Action":"fail","Package":"b","Elapsed":2}
`, goodLine + "    two\none\nthree\n-test.shuffle 7\nFAIL  b 2.0s\n3 passed, 2 failed\n", false},
		{"one is not built", `{"ImportPath":"b [b.test]","Action":"build-output","Output":"# b [b.test]\n"}
{"ImportPath":"b [b.test]","Action":"build-output","Output":"b_test.go:3:27: undefined: x\n"}
{"ImportPath":"b [b.test]","Action":"build-fail"}
{"Action":"start","Package":"b"}
{"Action":"output","Package":"b","Output":"FAIL\tb [build failed]\n"}
{"Action":"fail","Package":"b","Elapsed":0,"FailedBuild":"b [b.test]"}
` + good, "# b [b.test]\nb_test.go:3:27: undefined: x\nFAIL\tb [build failed]\nFAIL  b 0.0s\n" + goodLine + "2 passed, 1 failed\n", false},
		{"its process fails behind its tests", strings.ReplaceAll(good, `{"Action":"pass","Package":"good","Elapsed":1.23}`,
			`{"Action":"output","Package":"good","Output":"leaked\n"}`+"\n"+`{"Action":"fail","Package":"good","Elapsed":1.23}`),
			"PASS\nok  \tgood\t1.2s\nleaked\nFAIL  good 1.2s\n2 passed, 1 failed\n", false},
		{"a test does not end", `{"Action":"run","Package":"b","Test":"TestB"}
{"Action":"output","Package":"b","Test":"TestB","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"b","Elapsed":5}
`, "TestB of b has no result\npanic: test timed out\nFAIL  b 5.0s\n0 passed, 1 failed\n", false},
		{"it is cut short", good + `{"Action":"run","Package":"b","Test":"TestB"}
{"Action":"output","Package":"b","Test":"TestB","Output":"so far\n"}
{"Action":"out`, goodLine + "{\"Action\":\"out\nb has no result\nTestB of b has no result\nso far\nFAIL  b 0.0s\n2 passed, 1 failed\n", false},
		{"a package begins, and no more", good + `{"Action":"start","Package":"b"}
`, goodLine + "b has no result\nFAIL  b 0.0s\n2 passed, 1 failed\n", false},
		{"no test runs", `{"Action":"output","Package":"b","Output":"testing: warning: no tests to run\n"}
{"Action":"pass","Package":"b"}
`, "ok    b 0.0s\nno test ran\n0 passed, 0 failed\n", false},
		{"nothing", "", "no test ran\n0 passed, 0 failed\n", false},
		{"no event", "go: no such thing\n\n" + good, "go: no such thing\n" + goodLine + "2 passed, 0 failed\n", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var printed strings.Builder
			f := newFilter(&printed)
			require.NoError(t, each(strings.NewReader(row.stream), f.take))
			require.Equal(t, row.ok, f.end())
			require.Equal(t, row.printed, printed.String())
		})
	}
}

func TestTheSlowestTestsAreListedAndEachPackage(t *testing.T) {
	t.Parallel()
	var all times
	for _, stream := range []string{`{"Action":"run","Package":"a","Test":"TestQuick"}
{"Action":"pass","Package":"a","Test":"TestQuick","Elapsed":0.01}
{"Action":"pass","Package":"a","Test":"TestSlow/sub","Elapsed":9}
{"Action":"fail","Package":"a","Test":"TestSlow","Elapsed":9.5}
{"Action":"output","Package":"a","Output":"x"}
{"Action":"fail","Package":"a","Elapsed":10}
no event
`, `{"Action":"skip","Package":"b","Test":"TestMiddle","Elapsed":1}
{"Action":"pass","Package":"b","Elapsed":12}
{"Action":"pass","Package":"a","Test":"TestAlone","Elapsed":1}
{"Action":"pass","Package":"b","Test":"TestSide/by/side","Elapsed":2}
{"Action":"pass","Package":"b","Test":"TestSide/by","Elapsed":0}
{"Action":"pass","Package":"b","Test":"TestSide","Elapsed":0}
{"Action":"pass","Package":"a","Elapsed":3}
`} {
		require.NoError(t, each(strings.NewReader(stream), func(e event, _ []byte) { all.take(e) }))
	}
	var printed strings.Builder
	all.print(&printed, 3)
	require.Equal(t, `    9.50  a  TestSlow
    2.00  b  TestSide/by/side
    1.00  a  TestAlone

   13.00  a
   12.00  b
`, printed.String())
}
