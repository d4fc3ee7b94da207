package hostload

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// A mount is where cgroups are seen. See proc_pid_mountinfo(5).
type mount struct {
	v2    bool
	names []string // controllers of a v1 hierarchy, among others
	root  string   // the cgroup that is seen at dir
	dir   string   // without the leading slash
}

// has reports whether it is the v1 hierarchy of the controller.
func (m mount) has(controller string) bool {
	for _, name := range m.names {
		if name == controller {
			return !m.v2
		}
	}
	return false
}

// readMounts returns an empty list, not nil, where there are none.
func readMounts(root fs.FS) ([]mount, error) {
	mounts := []mount{}
	text, err := optional(root, "proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 || r[0] != "cgroup" && r[0] != "cgroup2" {
			continue
		}
		mounts = append(mounts, mount{v2: r[0] == "cgroup2", names: strings.Split(r[2], ","), root: unescape.Replace(l[3]),
			dir: strings.TrimPrefix(path.Clean(unescape.Replace(l[4])), "/")})
	}
	return mounts, nil
}

// path is where a cgroup is seen. One outside of what is mounted is seen as
// the mount's own root: that is how containers without a cgroup namespace have
// it.
func (m mount) path(cgroup string) string {
	if m.root != "/" {
		inside, ok := strings.CutPrefix(cgroup, m.root)
		if !ok || inside != "" && inside[0] != '/' {
			return m.dir
		}
		cgroup = inside
	}
	// Clean("/../x") is "/x": nothing leads out of the mount.
	return path.Join(m.dir, path.Clean("/"+cgroup))
}

// A limit is a cgroup with a quota: how many CPUs that is, and the seconds of
// one CPU that all in it have used, and that it was kept from running.
type limit struct {
	name            string
	cpus            float64
	used, throttled float64
}

// readLimits reads those of this process's cgroup and of the ones above it, as
// far as they are seen.
func readLimits(root fs.FS, mounts []mount) ([]limit, error) {
	text, err := optional(root, "proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var limits []limit
	add := func(l limit, err error) error {
		if err == nil && l.cpus > 0 {
			limits = append(limits, l)
		}
		return err
	}
	accounts := "" // the v1 cgroup of the controller cpuacct
	for _, m := range mounts {
		if cgroup, ok := cgroupOf(text, "cpuacct"); ok && m.has("cpuacct") {
			accounts = m.path(cgroup)
		}
	}
	for _, m := range mounts {
		switch {
		case m.v2:
			cgroup, ok := cgroupOf(text, "")
			if !ok {
				continue
			}
			for dir := m.path(cgroup); ; dir = path.Dir(dir) {
				if err := add(limitV2(root, dir)); err != nil {
					return nil, err
				}
				if dir == m.dir {
					break
				}
			}
		case m.has("cpu"):
			cgroup, ok := cgroupOf(text, "cpu")
			if !ok {
				continue
			}
			account := accounts
			for dir := m.path(cgroup); ; dir, account = path.Dir(dir), path.Dir(account) {
				if err := add(limitV1(root, dir, account)); err != nil {
					return nil, err
				}
				if dir == m.dir {
					break
				}
			}
		}
	}
	return limits, nil
}

// cgroupOf finds the cgroup of a v1 controller in proc_pid_cgroup(5), or with
// "" the one of v2.
func cgroupOf(text, controller string) (string, bool) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for name := range strings.SplitSeq(f[1], ",") {
			if name == controller {
				return f[2], true
			}
		}
	}
	return "", false
}

// limitV2 reads a cgroup's quota and use. No quota: cpus is 0.
func limitV2(root fs.FS, dir string) (limit, error) {
	l := limit{name: dir}
	file := path.Join(dir, "cpu.max")
	text, err := optional(root, file)
	f := strings.Fields(text)
	if err != nil || len(f) == 0 || f[0] == "max" {
		return l, err
	}
	if len(f) != 2 {
		return l, malformed(file, text)
	}
	if l.cpus, err = quota(f[0], f[1], file, text); err != nil {
		return l, err
	}
	file = path.Join(dir, "cpu.stat")
	stat, err := fs.ReadFile(root, file)
	if err != nil {
		return l, fmt.Errorf("hostload: %w", err)
	}
	used, ok, err := counter(string(stat), "usage_usec", file)
	if err != nil || !ok {
		return l, orMalformed(err, file, string(stat))
	}
	throttled, _, err := counter(string(stat), "throttled_usec", file)
	l.used, l.throttled = used/1e6, throttled/1e6
	return l, err
}

// limitV1 is limitV2 for v1, where use is counted by another controller.
func limitV1(root fs.FS, dir, account string) (limit, error) {
	l := limit{name: dir}
	file := path.Join(dir, "cpu.cfs_quota_us")
	text, err := optional(root, file)
	most := strings.TrimSpace(text)
	if err != nil || most == "" || most == "-1" {
		return l, err
	}
	period, err := fs.ReadFile(root, path.Join(dir, "cpu.cfs_period_us"))
	if err != nil {
		return l, fmt.Errorf("hostload: %w", err)
	}
	if l.cpus, err = quota(most, strings.TrimSpace(string(period)), file, text); err != nil {
		return l, err
	}
	file = path.Join(account, "cpuacct.usage")
	usage, err := fs.ReadFile(root, file)
	if err != nil {
		return l, fmt.Errorf("hostload: %w", err)
	}
	ns, err := strconv.ParseUint(strings.TrimSpace(string(usage)), 10, 64)
	if err != nil {
		return l, malformed(file, string(usage))
	}
	file = path.Join(dir, "cpu.stat")
	stat, err := optional(root, file)
	if err != nil {
		return l, err
	}
	throttled, _, err := counter(stat, "throttled_time", file)
	l.used, l.throttled = float64(ns)/1e9, throttled/1e9
	return l, err
}

func quota(most, period, file, text string) (float64, error) {
	q, err1 := strconv.ParseUint(most, 10, 63)
	p, err2 := strconv.ParseUint(period, 10, 63)
	if err1 != nil || err2 != nil || q == 0 || p == 0 {
		return 0, malformed(file, text+" of "+period)
	}
	return float64(q) / float64(p), nil
}

// counter finds a line "name value".
func counter(text, name, file string) (float64, bool, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 2 || f[0] != name {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return 0, false, malformed(file, line)
		}
		return float64(n), true, nil
	}
	return 0, false, nil
}

func orMalformed(err error, file, text string) error {
	if err != nil {
		return err
	}
	return malformed(file, text)
}
