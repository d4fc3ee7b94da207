//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/measure"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/internal/sample"
)

var server *redistest.Server // shared: each bench has a namespace of its own

// TestMain makes this binary dianemo itself when bench, or a test, starts it so.
func TestMain(m *testing.M) {
	if os.Getenv(runsMain) != "" {
		main()
	}
	redis.SetLogger(silent{})
	os.Setenv(runsMain, "1") // for what is started from here
	os.Exit(redistest.Main(m, func(s *redistest.Server) { server = s }))
}

const runsMain = "DIANEMO_TEST_RUNS_MAIN"

// tiny makes a bench short.
var tiny = []string{"bench", "--jobs=300", "--batch=70", "--callers=3", "--samples=20", "--rate=200", "--idle=1s", "--tokens=16"}

// try runs the tool in this process.
func try(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return tryUntil(t.Context(), args...)
}

func tryUntil(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	status = program{ctx, strings.NewReader(""), &out, &err}.run(args)
	return status, out.String(), err.String()
}

// stores are the flags for each Redis that there may be.
func stores(server *redistest.Server) map[string][]string {
	return map[string][]string{"given": {"--redis", server.Addr()}, "own": nil, "embedded": {"--embedded"}}
}

// guarded is a server of the test's own that has keys of others, some with names like
// those of a bench. It makes sure that at the end these are all there is.
func guarded(t *testing.T) (*redistest.Server, *redis.Client) {
	t.Helper()
	server := redistest.Start(t)
	rdb := server.Client(t)
	ctx := t.Context()
	others := []string{"other", "{dianemo}:layout", "dianemo-bench-abc", "{dianemo-bench-}:x", "{dianemo-bench-0:0}:spec"}
	for _, key := range others {
		require.NoError(t, rdb.Set(ctx, key, "kept", 0).Err())
	}
	t.Cleanup(func() {
		ctx := context.Background()
		require.ElementsMatch(t, others, rdb.Keys(ctx, "*").Val())
		for _, key := range others {
			require.Equal(t, "kept", rdb.Get(ctx, key).Val())
		}
	})
	return server, rdb
}

// quick spares what only makes figures steady, in the short form.
func quick(t *testing.T) []string {
	if sample.Long(t) {
		return nil
	}
	return []string{"--look-around=50ms"}
}

func TestTheTableHasEachFigureOfEachRedis_Long(t *testing.T) {
	t.Parallel()
	server, _ := guarded(t)
	for name, flags := range stores(server) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := try(t, slices.Concat(tiny, quick(t), flags)...)
			require.Zero(t, status, stderr)
			require.Empty(t, stderr, "there is no terminal to draw a bar on")
			for _, says := range []string{
				map[string]string{"given": " at " + server.Addr() + ", namespace dianemo-bench-", "own": "of its own", "embedded": "the embedded Redis (asked for)"}[name],
				"300 jobs, 100 bytes each", "\nEnqueue one by one, 3 callers\n", "\nEnqueue in bulk, 70 a call\n", "\nDrain of no-op jobs\n",
				"\nPick-up, 200 jobs a second", "\nSchedule: ", "\nIdle, for 1s", "up to ", "\nMeasured in ",
			} {
				require.Contains(t, stdout, says)
			}
			require.Equal(t, name == "embedded", !strings.Contains(stdout, "memory of Redis per waiting job"), stdout)
			require.Equal(t, name == "embedded", strings.Contains(stdout, "How long scripts held Redis is not known"), stdout)
		})
	}
}

// decoded is a report of which every field is known.
func decoded(t *testing.T, stdout string) measure.Report {
	t.Helper()
	var r measure.Report
	in := json.NewDecoder(strings.NewReader(stdout))
	in.DisallowUnknownFields()
	require.NoError(t, in.Decode(&r), stdout)
	require.False(t, in.More(), "one object")
	return r
}

func TestTheJSONIsOneObjectWithEachFigureOfEachRedis_Long(t *testing.T) {
	t.Parallel()
	server, _ := guarded(t)
	for name, flags := range stores(server) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rounds := sample.Part(t, 2, 2)
			status, stdout, stderr := try(t, slices.Concat(tiny, quick(t), flags, []string{"--json", fmt.Sprint("--rounds=", rounds), "--takes=1ms", "--kinds=3", "--weights=1,5",
				"--partitions=2", "--keep=none", "--peers=2"})...)
			require.Zero(t, status, stderr)
			r := decoded(t, stdout)
			require.Equal(t, name, r.Redis.Kind)
			require.Regexp(t, "^dianemo-bench-[a-z0-9]+$", r.Redis.Namespace)
			require.Equal(t, 300, r.Settings.Jobs)
			require.Equal(t, []int{1, 5}, r.Settings.Weights)
			require.Positive(t, r.Seconds)
			for _, f := range measure.Fields {
				v, ok := r.Figures[f.Figure][f.Name]
				if name == "embedded" && strings.HasPrefix(f.Name, "redis_") {
					require.False(t, ok, "%s of %s", f.Name, f.Figure)
					continue
				}
				require.True(t, ok, "%s of %s", f.Name, f.Figure)
				require.LessOrEqual(t, v.Least, v.Median)
				require.LessOrEqual(t, v.Median, v.Most)
				// 300 jobs may be too few for its clock, and a second too short for an idle peer to say anything.
				if f.Name != measure.RedisCPUPerJob && f.Name != "commands_per_second" {
					require.Positive(t, v.Most, "%s of %s", f.Name, f.Figure)
				}
			}
			require.Less(t, r.Figures[measure.Drain]["efficiency"].Most, 1.0, "no more than the tokens allow")
			for _, figure := range []string{measure.PickUp, measure.Schedule} {
				var samples uint64
				for _, b := range r.Histograms[figure] {
					samples += b.Count
				}
				require.EqualValues(t, 20*rounds, samples, "of all rounds")
			}
			require.Equal(t, name != "embedded", r.Scripts.Known)
		})
	}
}

func TestOnlyTheFiguresThatWereAskedForAreTaken(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := try(t, append(tiny, "--json", "--figures=drain", "--redis", server.Addr())...)
	require.Zero(t, status, stderr)
	r := decoded(t, stdout)
	require.Len(t, r.Figures, 1)
	require.Contains(t, r.Figures[measure.Drain], measure.JobsPerSecond)
	require.NotContains(t, r.Figures[measure.Drain], "efficiency", "jobs that take no time can't be more efficient")
}

func TestThePickUpOfUrgentJobsIsTimedWhileOthersWait(t *testing.T) {
	t.Parallel()
	server, _ := guarded(t)
	status, stdout, stderr := try(t, append(tiny, "--figures=pickup", "--waiting=2000", "--takes=50ms", "--redis", server.Addr())...)
	require.Zero(t, status, stderr)
	require.Contains(t, stdout, "Pick-up of priority 1 while 2000 of priority 2 wait")
	require.NotContains(t, stdout, "claims per job")
}

func TestWithoutARedisServerItIsTheEmbeddedOneAndSaysSo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	status, stdout, stderr := try(t, append(tiny, "--figures=bulk")...)
	require.Zero(t, status, stderr)
	require.Contains(t, stdout, "the embedded Redis (no redis-server on PATH)")
}

func TestLongScriptCallsAreShownAndTheSlowlogIsAsItWas(t *testing.T) {
	t.Parallel()
	server, rdb := guarded(t)
	ctx := t.Context()
	require.NoError(t, rdb.ConfigSet(ctx, "slowlog-log-slower-than", "7000").Err())
	had := rdb.ConfigGet(ctx, "slowlog-*").Val()

	run := func(more ...string) string {
		status, stdout, stderr := try(t, slices.Concat(tiny, []string{"--figures=bulk,drain", "--redis", server.Addr()}, more)...)
		require.Zero(t, status, stderr)
		require.Equal(t, had, rdb.ConfigGet(ctx, "slowlog-*").Val())
		return stdout
	}
	require.Contains(t, run(), "held Redis for 7 ms or longer")
	require.Contains(t, run("--slowlog"), "held Redis for 1 ms or longer")

	require.NoError(t, rdb.ConfigSet(ctx, "slowlog-log-slower-than", "0").Err())
	had["slowlog-log-slower-than"] = "0"
	stdout := run()
	for _, script := range []string{"enqueue", "claim", "settle"} {
		require.Regexp(t, `(?m)^  `+script+` +longest +[0-9.]+ ms, of [1-9]`, stdout)
	}
	require.NotContains(t, stdout, "another script")
}

func TestScriptCallsAbove5msAreTooLong(t *testing.T) {
	t.Parallel()
	text := scripts(measure.Scripts{Known: true, AboveMs: 1, Calls: []measure.Script{{Name: "claim", Longest: 7.25, Logged: 9, TooLong: 2}, {Name: "beat", Longest: 1.5, Logged: 1}}})
	require.Regexp(t, `claim +longest +7.25 ms, of 9   TOO LONG: 2 above 5ms`, text)
	require.Regexp(t, `(?m)beat +longest +1.50 ms, of 1$`, text)
}

func TestWrongFlagsAreErrorsThatSayWhatIsAllowed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ flags, says string }{
		{"--jobs=-1", "--jobs=-1: 0 to"},
		{"--jobs=many", "--jobs"},
		{"--payload=1", "--payload=1: 2 to 262144 are allowed"},
		{"--tokens=0", "--tokens=0: 1 to"},
		{"--weights=17", "--weights: 17: 1 to 16 are allowed"},
		{"--weights=13 --waiting=1", "--weights: 13: 1 to 12 are allowed"}, // the rest is reserved
		{"--weights=0", "--weights: 0"},
		{"--kinds=0", "--kinds=0"},
		{"--partitions=5000", "--partitions=5000: 1 to 4096"},
		{"--peers=-2", "--peers=-2"},
		{"--takes=-1s", "--takes=-1s"},
		{"--idle=1ms", "--idle=1ms: 1s to 1h are allowed"},
		{"--keep=some", "none, all or default are allowed"},
		{"--keep=12x", "none, all or default are allowed"},
		{"--rounds=0", "--rounds=0"},
		{"--figures=speed", `"speed" is none: enqueue, bulk`},
		{"--redis=localhost --embedded", "exclude each other"},
		{"--colour", "--colour"},
		{"fast", "fast"},
	} {
		status, stdout, stderr := try(t, append(slices.Clone(tiny), strings.Fields(c.flags)...)...)
		require.Equal(t, badUsage, status, c.flags)
		require.Empty(t, stdout, c.flags)
		require.Contains(t, stderr, c.says, c.flags)
	}
	status, _, stderr := try(t)
	require.Equal(t, badUsage, status)
	require.Contains(t, stderr, "bench")
	require.NotContains(t, stderr, "bench-peer", "it is nobody's to call")
}

func TestARedisThatCanNotBeMeasuredIsAnErrorThatSaysWhy(t *testing.T) {
	t.Parallel()
	cluster := redistest.Start(t, "--cluster-enabled", "yes")
	for _, c := range []struct{ redis, says string }{
		{"127.0.0.1:1", "no Redis at 127.0.0.1:1"},
		{"http://x", "--redis: "},
		{cluster.Addr(), "a node of a Cluster"},
	} {
		status, _, stderr := try(t, append(tiny, "--redis", c.redis)...)
		require.Equal(t, failed, status, c.redis)
		require.Contains(t, stderr, c.says)
	}
}

func TestTheNamespaceIsRemovedWhenSomethingGoesWrong(t *testing.T) {
	t.Parallel()
	server, rdb := guarded(t)
	used, err := measure.ReadServer(t.Context(), rdb)
	require.NoError(t, err)
	require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", strconv.FormatInt(used.Memory+4<<20, 10)).Err())
	defer rdb.ConfigSet(context.Background(), "maxmemory", "0")
	status, _, stderr := try(t, append(tiny, "--redis", server.Addr(), "--figures=bulk", "--jobs=100000")...)
	require.Equal(t, failed, status)
	require.Contains(t, stderr, "bulk and drain: ")
	require.Contains(t, stderr, "full")
}

// inNamespace waits until a bench has keys of a name.
func inNamespace(t *testing.T, rdb *redis.Client, name string) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		require.NoError(t, t.Context().Err())
		if len(rdb.Keys(t.Context(), "{dianemo-bench-??????????*}:"+name).Val()) > 0 {
			return
		}
	}
}

func TestCtrlCEndsItAndRemovesTheNamespace(t *testing.T) {
	t.Parallel()
	server, rdb := guarded(t)
	for _, peers := range []string{"0", "2"} {
		self, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.Command(self, append(tiny, "--redis", server.Addr(), "--jobs=1000", "--takes=1h", "--figures=drain", "--peers="+peers)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		inNamespace(t, rdb, "run:*") // jobs run, and would for an hour
		// A terminal sends it to all processes that it sees in the foreground.
		require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
		_ = cmd.Wait()
		require.Equal(t, interrupted, cmd.ProcessState.ExitCode(), stderr.String())
		require.Contains(t, stderr.String(), "interrupted")
		require.Empty(t, rdb.Keys(t.Context(), "{dianemo-bench-??????????*").Val())
	}
}

// It is not parallel: it looks for the process among this one's children.
func TestAPeersProcessThatDiesEndsTheBench(t *testing.T) {
	server, rdb := guarded(t)
	ended := make(chan string, 1)
	go func() {
		_, _, stderr := try(t, append(tiny, "--redis", server.Addr(), "--takes=1h", "--figures=drain", "--peers=1")...)
		ended <- stderr
	}()
	inNamespace(t, rdb, "run:*")
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(os.Getpid()), "-f", measure.ServeCommand).Output()
	require.NoError(t, err)
	pid := regexp.MustCompile(`\d+`).FindString(string(out))
	require.NoError(t, exec.Command("kill", "-9", pid).Run())
	require.Contains(t, <-ended, "a peer's process: it ended too early")
}

func TestAPeerIsNotStartedByHand(t *testing.T) {
	t.Parallel()
	status, _, stderr := try(t, measure.ServeCommand)
	require.Equal(t, failed, status)
	require.Contains(t, stderr, "a part of bench")
}

func TestTheBarGrowsWithTheShare(t *testing.T) {
	t.Parallel()
	require.Equal(t, strings.Repeat("░", barWidth)+"   0 % ", bar(0, ""))
	require.Equal(t, strings.Repeat("█", barWidth/2)+strings.Repeat("░", barWidth/2)+"  50 % drain", bar(0.5, "drain"))
	require.Equal(t, strings.Repeat("█", barWidth)+" 100 % idle", bar(1, "idle"))
}

func TestThePageOnPerformanceNamesEachField(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/performance.md")
	require.NoError(t, err)
	for _, f := range measure.Fields {
		require.Contains(t, string(page), "`"+f.Name+"`")
	}
	whole, err := json.Marshal(measure.Report{Redis: measure.Backend{Why: "x"}, Histograms: map[string][]measure.Bucket{"": {{}}},
		Figures: map[string]map[string]measure.Value{"": {"": {}}}, Scripts: measure.Scripts{Calls: []measure.Script{{}}}})
	require.NoError(t, err)
	for _, field := range regexp.MustCompile(`"(\w+)":`).FindAllStringSubmatch(string(whole), -1) {
		require.Contains(t, string(page), "`"+field[1]+"`")
	}
}
