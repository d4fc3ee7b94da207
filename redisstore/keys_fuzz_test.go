package redisstore

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// A keyName is what a key is made of.
type keyName struct {
	namespace string
	partition int    // -1: of the whole namespace
	form      string // of keyForms
	one, two  string
}

// keyForms make a key of one or two names; "" for the second where it has none.
var keyForms = map[string]func(t tag, one, two string) string{
	"run":     func(t tag, peer, _ string) string { return t.run(peer) },
	"lane":    func(t tag, lane, _ string) string { return t.lane(lane) },
	"done":    func(t tag, state, kind string) string { return t.done(dianemo.State(state), kind) },
	"call":    func(t tag, edge, caller string) string { return t.call(dianemo.Edge(edge), caller) },
	"channel": func(t tag, peer, _ string) string { return t.channel(peer) },
	"plain":   func(t tag, name, _ string) string { return t.key(name) },
}

var twoNames = []string{"done", "call"}

// fill puts names that can occur in place of any others, and tells whether that was possible.
func (k *keyName) fill() bool {
	forms := []string{"run", "lane", "done", "call", "channel", "plain"}
	k.form = forms[k.partition&0xff%len(forms)]
	k.partition = k.partition>>8&0x1fff%(maxPartitions+1) - 1
	if !slices.Contains(twoNames, k.form) {
		k.two = ""
	}
	valid := func(name string) bool { return dianemo.CheckName("", name) == nil }
	ok := valid(k.namespace)
	switch k.form {
	case "lane":
		_, good := parseLane(k.one)
		ok = ok && good
	case "plain":
		_, known := keyTypes[k.one]
		ok = ok && known && k.one != "lane" && k.one != "run" && k.one != "done" && k.one != "call"
	case "done":
		ok = ok && dianemo.State(k.one).Finished() && valid(k.two)
	case "call":
		ok = ok && valid(k.one) && valid(k.two)
	default:
		ok = ok && valid(k.one)
	}
	return ok
}

func (k *keyName) tag() (t tag, inBraces string) {
	if k.partition < 0 {
		return namespaceTag(k.namespace), k.namespace
	}
	return partitionTag(k.namespace, k.partition), k.namespace + ":" + strconv.Itoa(k.partition)
}

// hashTag is the part of a key that decides its slot, as Redis's documentation of clusters says it.
func hashTag(key string) string {
	if open := strings.IndexByte(key, '{'); open >= 0 {
		if end := strings.IndexByte(key[open+1:], '}'); end > 0 {
			return key[open+1 : open+1+end]
		}
	}
	return key
}

// Keys of different things are different, and all of a partition's are in the slot of its own tag, which no name can leave.
func FuzzKeys(f *testing.F) {
	f.Add("shop", 0x000, "peer-1", "", "shop", 0x100, "peer-1", "")
	f.Add("shop", 0x101, "k:2:-1:0:new", "", "shop", 0x101, "k:2:-1:0:again", "")
	f.Add("a", 0x102, "failed", "b/c@d", "a", 0x103, "settle", "peer@1")
	f.Add("a", 0x005, "peers", "", "a", 0x105, "meta", "")
	f.Add("a", 0x200, "meta", "", "a", 0x205, "meta", "")
	f.Add("a", 0x004, "p", "", "a", 0x000, "p", "")
	f.Add("a}", 0x100, "x", "", "{a", 0x100, "x:y", "")
	f.Add("a", 0x003, "enqueue", "b", "a", 0x004, "enqueue", "b")
	f.Fuzz(func(t *testing.T, namespace1 string, what1 int, one1, two1, namespace2 string, what2 int, one2, two2 string) {
		names := []keyName{{namespace1, what1, "", one1, two1}, {namespace2, what2, "", one2, two2}}
		var keys []string
		for i := range names {
			k := &names[i]
			if !k.fill() {
				return
			}
			tag, inBraces := k.tag()
			key := keyForms[k.form](tag, k.one, k.two)
			require.Equal(t, inBraces, hashTag(key), key)
			require.Equal(t, 1, strings.Count(key, "{"), key)
			require.True(t, strings.HasPrefix(key, string(tag)), key)
			keys = append(keys, key)
		}
		require.Equal(t, names[0] == names[1], keys[0] == keys[1], "%q, %q: %+v", keys[0], keys[1], names)
	})
}

// What stands in one key for different jobs, kinds or edges is different, and a job's edges are its own.
func FuzzMembers(f *testing.F) {
	f.Add("parent", "child", "parent@1", "child")
	f.Add("a", "b", "a", "b")
	f.Add("a", "a", "a", "aa")
	f.Add("a@b", "c", "a", "b@c")
	f.Add("w", "w@a", "w@a", "w")
	f.Add("a/b", "c", "a", "b/c")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		for _, name := range []string{a, b, c, d} {
			if dianemo.CheckName("", name) != nil {
				return
			}
		}
		type member struct{ form, one, two string }
		named := map[string]member{}
		for _, pair := range [][2]string{{a, b}, {c, d}} {
			for form, text := range map[string]string{"child": pair[0] + "|" + pair[1], "of": pair[0] + "||" + pair[1], "job": pair[0] + "#" + pair[1]} {
				m := member{form, pair[0], pair[1]}
				if had, ok := named[text]; ok {
					require.Equal(t, had, m, text)
				}
				named[text] = m
				parent, child, listed, ok := parseEdge(text)
				require.True(t, ok)
				require.Equal(t, []any{m.one, m.two, form == "job"}, []any{parent, child, listed})
				// The range in which heirs.lua, kin.lua and edgesOf look for an id's edges.
				for _, id := range []string{a, b, c, d} {
					require.Equal(t, form != "job" && id == m.one, id+"|" <= text && text < id+"}", "%s in the range of %s", text, id)
					require.Equal(t, form == "job" && id == m.one, id+"#" <= text && text < id+"$", "%s in the list of %s", text, id)
				}
			}
			require.Equal(t, pair[0] == c && pair[1] == d, slotName(pair[0], pair[1]) == slotName(c, d))
		}
		needs := map[string]member{}
		for _, pair := range [][2]string{{a, b}, {c, d}} {
			for form, field := range map[string]string{"parent": pair[0] + "|" + pair[1], "gate": pair[0] + "|", "numbers": pair[0] + "||"} {
				m := member{form, pair[0], pair[1]}
				if form != "parent" {
					m.two = ""
				}
				if had, ok := needs[field]; ok {
					require.Equal(t, had, m, field)
				}
				needs[field] = m
			}
		}
		for _, partitions := range []int{1, 8, maxPartitions} {
			at := partitionOf(a, partitions)
			require.True(t, 0 <= at && at < partitions)
			require.Equal(t, at, partitionOf(routingPart(a)+"@"+b, partitions), "what stands before the first @ decides")
		}
	})
}
