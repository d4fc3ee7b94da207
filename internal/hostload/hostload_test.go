package hostload

import (
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/stretchr/testify/require"
)

// A fake host of four CPUs: files, and counters that tests move.
type fake struct {
	t     *testing.T
	files fstest.MapFS
	busy  [4]float64
	total float64 // of each CPU
	own   float64
	now   time.Time
	r     *Reader
}

func newFake(t *testing.T, files map[string]string) *fake {
	f := &fake{t: t, files: fstest.MapFS{}, total: 1000, now: time.Unix(1_000_000, 0)}
	f.write(files)
	f.r = &Reader{root: f.files, own: func(fs.FS) (float64, error) { return f.own, nil }, times: func() ([]cpu.TimesStat, error) {
		var all []cpu.TimesStat
		for i, busy := range f.busy {
			all = append(all, cpu.TimesStat{CPU: fmt.Sprintf("cpu%d", i), User: busy / 2, System: busy / 4, Steal: busy / 4, Guest: busy / 2,
				Idle: (f.total - busy) / 2, Iowait: (f.total - busy) / 2})
		}
		return all, nil
	}}
	return f
}

func (f *fake) write(files map[string]string) {
	for name, text := range files {
		f.files[name] = &fstest.MapFile{Data: []byte(text)}
	}
}

// pass moves the clocks on.
func (f *fake) pass(d time.Duration) {
	f.now = f.now.Add(d)
	f.total += d.Seconds()
}

// sample reads, and there must be one.
func (f *fake) sample() Sample {
	f.t.Helper()
	s, ok, err := f.r.Read(f.now)
	require.NoError(f.t, err)
	require.True(f.t, ok)
	return s
}

func (f *fake) begin() {
	f.t.Helper()
	_, ok, err := f.r.Read(f.now)
	require.NoError(f.t, err)
	require.False(f.t, ok, "the first reading has nothing to compare with")
}

func (f *fake) has(host, own, throttled float64) {
	f.t.Helper()
	s := f.sample()
	require.InDelta(f.t, host, s.Host, 1e-9)
	require.InDelta(f.t, own, s.Own, 1e-9)
	require.InDelta(f.t, throttled, s.Throttled, 1e-9)
}

func TestWithoutAQuotaTheSharesAreOfTheHost(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"no cgroups": {},
		"v2, max": {
			"proc/self/mountinfo":                "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			"proc/self/cgroup":                   "0::/user.slice/a\n",
			"sys/fs/cgroup/cpu.stat":             "usage_usec 1\n",
			"sys/fs/cgroup/user.slice/a/cpu.max": "max 100000\n",
		},
		"v2, as much as there is": {
			"proc/self/mountinfo":      "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			"proc/self/cgroup":         "0::/a\n",
			"sys/fs/cgroup/a/cpu.max":  "400000 100000\n",
			"sys/fs/cgroup/a/cpu.stat": "usage_usec 1\n",
		},
		"v1, -1": {
			"proc/self/mountinfo":                  "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
			"proc/self/cgroup":                     "1:cpu:/a\n0::/\n",
			"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, files)
			f.begin()
			_, ok, err := f.r.Read(f.now)
			require.NoError(t, err)
			require.False(t, ok, "no time has passed")
			f.pass(2 * time.Second)
			f.busy[0], f.busy[3], f.own = 2, 1, 1
			f.has(3.0/8, 1.0/8, 0)
			f.pass(time.Second)
			f.own -= 0.5 // a child went away
			f.has(0, 0, 0)
		})
	}
}

func TestOnlyTheCPUsCountThatTheProcessMayUse(t *testing.T) {
	t.Parallel()
	f := newFake(t, map[string]string{"proc/self/status": "Name:\tx\nCpus_allowed:\tb\nCpus_allowed_list:\t0-1,3\nMems_allowed:\t1\n"})
	f.begin()
	f.pass(time.Second)
	f.busy = [4]float64{1, 0.5, 1, 0}
	f.own = 0.75
	f.has(0.5, 0.25, 0)

	for _, bad := range []string{"x", "3-1", "0-", "-1", "0-999999999", "1,,2"} {
		f.write(map[string]string{"proc/self/status": "Cpus_allowed_list:\t" + bad + "\n"})
		_, _, err := f.r.Read(f.now)
		require.ErrorContains(t, err, "/proc/self/status", bad)
	}
	f.write(map[string]string{"proc/self/status": "Cpus_allowed_list:\t9\n"})
	_, _, err := f.r.Read(f.now)
	require.ErrorContains(t, err, "none of 4 CPUs")
}

// The quota is of two CPUs in each case, in the cgroup or one above it, and so
// are the shares, whatever the rest of the host does.
func TestTheSharesAreOfTheQuota(t *testing.T) {
	t.Parallel()
	type counters struct{ used, throttled float64 }
	v2 := func(dir string, c counters) map[string]string {
		return map[string]string{dir + "/cpu.max": "200000 100000\n",
			dir + "/cpu.stat": fmt.Sprintf("usage_usec %.0f\nuser_usec 1\nnr_periods 9\nnr_throttled 3\nthrottled_usec %.0f\n", c.used*1e6, c.throttled*1e6)}
	}
	v1 := func(dir, account string, c counters) map[string]string {
		return map[string]string{dir + "/cpu.cfs_quota_us": "100000\n", dir + "/cpu.cfs_period_us": "50000\n",
			dir + "/cpu.stat": fmt.Sprintf("nr_periods 9\nnr_throttled 3\nthrottled_time %.0f\n", c.throttled*1e9), account + "/cpuacct.usage": fmt.Sprintf("%.0f\n", c.used*1e9)}
	}
	const top = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
	for _, row := range []struct {
		name   string
		files  map[string]string
		moving func(counters) map[string]string
	}{
		{"v2, in a namespace of its own", map[string]string{"proc/self/mountinfo": top, "proc/self/cgroup": "0::/\n"},
			func(c counters) map[string]string { return v2("sys/fs/cgroup", c) }},
		{"v2, nested, with more above", map[string]string{"proc/self/mountinfo": top, "proc/self/cgroup": "0::/a.slice/b.service\n",
			"sys/fs/cgroup/a.slice/cpu.max": "350000 100000", "sys/fs/cgroup/a.slice/cpu.stat": "usage_usec 5\n"},
			func(c counters) map[string]string { return v2("sys/fs/cgroup/a.slice/b.service", c) }},
		{"v2, of the slice", map[string]string{"proc/self/mountinfo": top, "proc/self/cgroup": "0::/a.slice/b.service\n",
			"sys/fs/cgroup/a.slice/b.service/cpu.max": "max 100000\n"},
			func(c counters) map[string]string { return v2("sys/fs/cgroup/a.slice", c) }},
		{"v2, only a part is mounted", map[string]string{"proc/self/mountinfo": "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup ro\n", "proc/self/cgroup": "0::/docker/abc\n"},
			func(c counters) map[string]string { return v2("sys/fs/cgroup", c) }},
		{"v2, outside of what is mounted", map[string]string{"proc/self/mountinfo": "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup ro\n", "proc/self/cgroup": "0::/docker/abcdef\n"},
			func(c counters) map[string]string { return v2("sys/fs/cgroup", c) }},
		{"v2, above its namespace", map[string]string{"proc/self/mountinfo": top, "proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/x/cpu.max": "max 100000\n"},
			func(c counters) map[string]string { return v2("sys/fs/cgroup", c) }},
		{"v1, one hierarchy", map[string]string{"proc/self/mountinfo": "30 23 0:26 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n",
			"proc/self/cgroup": "12:pids:/\n4:cpu,cpuacct:/docker/abc\n0::/x\n"},
			func(c counters) map[string]string {
				return v1("sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpu,cpuacct", c)
			}},
		{"v1, two hierarchies, one above, beside v2", map[string]string{
			"proc/self/mountinfo": "1 2 0:1 / /proc rw - proc proc rw\n31 23 0:27 / /my\\040groups/unified rw - cgroup2 cgroup2 rw\n" +
				"32 23 0:28 / /my\\040groups/cpu rw - cgroup cgroup rw,cpu\n33 23 0:29 / /my\\040groups/acct rw - cgroup cgroup rw,cpuacct\n",
			"proc/self/cgroup":                       "2:cpuacct:/p/q\n1:cpu:/p/q\n0::/x\n",
			"my groups/cpu/p/q/cpu.cfs_quota_us":     "-1\n",
			"my groups/acct/p/q/cpuacct.usage":       "7\n",
			"my groups/unified/x/cgroup.controllers": "\n"},
			func(c counters) map[string]string { return v1("my groups/cpu/p", "my groups/acct/p", c) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, row.files)
			f.write(row.moving(counters{100, 10}))
			f.begin()
			f.pass(time.Second)
			f.busy = [4]float64{1, 1, 1, 1}
			f.own = 0.5
			f.write(row.moving(counters{101.5, 10.2}))
			f.has(0.75, 0.25, 0.1)
			f.pass(time.Second)
			f.write(row.moving(counters{104, 60}))
			f.has(1, 0, 1)
		})
	}
}

// Of several quotas the one counts of which others use most.
func TestTheTightestOfSeveralQuotasCounts(t *testing.T) {
	t.Parallel()
	files := func(inner, outer int) map[string]string {
		return map[string]string{"proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "proc/self/cgroup": "0::/pod/me\n",
			"sys/fs/cgroup/pod/me/cpu.max": "100000 100000\n", "sys/fs/cgroup/pod/me/cpu.stat": fmt.Sprintf("usage_usec %d\n", inner),
			"sys/fs/cgroup/pod/cpu.max": "300000 100000\n", "sys/fs/cgroup/pod/cpu.stat": fmt.Sprintf("usage_usec %d\n", outer)}
	}
	f := newFake(t, files(0, 0))
	f.begin()
	f.pass(time.Second)
	f.own = 0.5
	f.write(files(500_000, 2_900_000)) // its neighbours use 2.4 of the pod's 3
	f.has(2.9/3, 0.5/3, 0)
	f.pass(time.Second)
	f.own = 0.6
	f.write(files(1_300_000, 3_700_000)) // another process in its own cgroup uses 0.7 of 1
	f.has(0.8, 0.1, 0)
}

func TestWhatIsNotUnderstoodIsAnErrorThatNamesTheFile(t *testing.T) {
	t.Parallel()
	const v2 = "30 23 0:26 / /c rw - cgroup2 cgroup2 rw\n"
	const v1 = "30 23 0:26 / /c rw - cgroup cgroup rw,cpu,cpuacct\n"
	for _, row := range []struct{ mounts, file, text string }{
		{v2, "c/a/cpu.max", "lots"},
		{v2, "c/a/cpu.max", "lots 100000"},
		{v2, "c/a/cpu.max", "100000 0"},
		{v2, "c/a/cpu.max", "0 100000"},
		{v2, "c/a/cpu.max", "-5 100000"},
		{v2, "c/a/cpu.stat", "user_usec 5\n"},
		{v2, "c/a/cpu.stat", "usage_usec many\n"},
		{v2, "c/a/cpu.stat", "usage_usec 5\nthrottled_usec -1\n"},
		{v1, "c/a/cpu.cfs_quota_us", "-2"},
		{v1, "c/a/cpu.cfs_quota_us", "x"},
		{v1, "c/a/cpuacct.usage", ""},
		{v1, "c/a/cpu.stat", "throttled_time x\n"},
		{v1, "proc/pressure/cpu", "some average=3\n"},
		{v1, "proc/pressure/cpu", "some avg10=NaN total=3\n"},
		{v1, "proc/pressure/cpu", "some avg10=101 total=3\n"},
		{v1, "proc/pressure/cpu", "full avg10=1.00\n"},
	} {
		f := newFake(t, map[string]string{"proc/self/mountinfo": row.mounts, "proc/self/cgroup": "garbage\n4:cpu,cpuacct:/a\n0::/a\n",
			"c/a/cpu.max": "200000 100000\n", "c/a/cpu.stat": "usage_usec 1\nthrottled_usec 0\nthrottled_time 0\n",
			"c/a/cpu.cfs_quota_us": "200000\n", "c/a/cpu.cfs_period_us": "100000\n", "c/a/cpuacct.usage": "5\n"})
		f.begin()
		f.write(map[string]string{row.file: row.text})
		_, _, err := f.r.Read(f.now)
		require.ErrorContains(t, err, "/"+row.file, "%+v", row)
	}
	f := newFake(t, map[string]string{"proc/self/mountinfo": "garbage\n1 2 - cgroup2\n - \n" + v2, "proc/self/cgroup": "0::/a\n",
		"c/a/cpu.max": "200000 100000\n"})
	_, _, err := f.r.Read(f.now)
	require.ErrorIs(t, err, fs.ErrNotExist, "a quota without a count of what is used")
}

func TestPressureIsReadWhereItExists(t *testing.T) {
	t.Parallel()
	f := newFake(t, nil)
	f.begin()
	f.pass(time.Second)
	require.Nil(t, f.sample().Pressure)
	f.write(map[string]string{"proc/pressure/cpu": "some avg10=12.50 avg60=10.41 avg300=5.26 total=93067511\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"})
	f.pass(time.Second)
	require.InDelta(t, 0.125, *f.sample().Pressure, 1e-9)
}

// stat has a line of proc_pid_stat(5), of a program with a nasty name.
func stat(utime, stime, cutime, cstime int) string {
	return fmt.Sprintf("7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 %d %d %d %d 20 0 1 0 99\n", utime, stime, cutime, cstime)
}

func TestOwnTimeIncludesChildrenThatRunAndThoseThatHaveEnded(t *testing.T) {
	t.Parallel()
	f := newFake(t, map[string]string{
		"proc/self/stat":            stat(100, 50, 0, 0),
		"proc/self/task/7/children": "8 9 ", "proc/self/task/71/children": "", "proc/self/task/72/comm": "no children file",
		"proc/8/stat": stat(1000, 0, 200, 0), "proc/8/task/8/children": "10",
		"proc/10/stat": stat(0, 300, 0, 0),
		// 9 has just gone
	})
	seconds, err := treeSeconds(f.files, "self")
	require.NoError(t, err)
	require.InDelta(t, 1.5+12+3, seconds, 1e-9)

	// 8 waits for 10 and ends, and is waited for.
	delete(f.files, "proc/8/stat")
	delete(f.files, "proc/8/task/8/children")
	f.write(map[string]string{"proc/self/stat": stat(100, 50, 1200, 300)})
	again, err := treeSeconds(f.files, "self")
	require.NoError(t, err)
	require.InDelta(t, seconds, again, 1e-9, "nothing is lost or counted twice")

	for _, bad := range []string{"", "7 (a) S 1", strings.Replace(stat(1, 2, 3, 4), " 3 4 20", " x 4 20", 1)} {
		f.write(map[string]string{"proc/self/stat": bad})
		_, err = treeSeconds(f.files, "self")
		require.ErrorContains(t, err, "/proc/self/stat")
	}
}

// A child that is waited for while the files are read.
type racing struct {
	fstest.MapFS
	reads int
	race  func(fstest.MapFS)
}

func (r *racing) Open(name string) (fs.File, error) {
	if name == "proc/8/stat" {
		if r.reads++; r.reads == 2 { // the child is counted, and then gone
			defer r.race(r.MapFS)
		}
	}
	return r.MapFS.Open(name)
}

// ReadFile hides that of the MapFS, which would not call Open.
func (r *racing) ReadFile(name string) ([]byte, error) {
	f, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func TestAChildThatEndsMeanwhileIsCountedOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t, map[string]string{"proc/self/stat": stat(100, 0, 0, 0), "proc/self/task/7/children": "8", "proc/8/stat": stat(6000, 0, 0, 0)})
	files := &racing{MapFS: f.files, race: func(m fstest.MapFS) {
		delete(m, "proc/8/stat")
		m["proc/self/stat"] = &fstest.MapFile{Data: []byte(stat(100, 0, 6000, 0))}
		m["proc/self/task/7/children"] = &fstest.MapFile{}
	}}
	seconds, err := treeSeconds(files, "self")
	require.NoError(t, err)
	require.InDelta(t, 61, seconds, 1e-9)
	require.Equal(t, 2, files.reads)
}

// This host, whatever it is doing: its counters are understood, and what this
// process burns is its own.
func TestThisHostIsRead(t *testing.T) {
	t.Parallel()
	r := New()
	_, ok, err := r.Read(time.Now())
	require.NoError(t, err)
	require.False(t, ok)
	begun, err := ownSeconds(r.root)
	require.NoError(t, err)
	for burnt := begun; burnt < begun+0.2; { // as its own counter says, however long that takes
		for begin := time.Now(); time.Since(begin) < 10*time.Millisecond; {
		}
		burnt, err = ownSeconds(r.root)
		require.NoError(t, err)
	}
	s, ok, err := r.Read(time.Now())
	require.NoError(t, err)
	require.True(t, ok)
	require.Greater(t, s.Own, 0.0)
	require.GreaterOrEqual(t, s.Host, s.Own/2, "%+v", s)
	require.LessOrEqual(t, s.Host, 1.0)
}
