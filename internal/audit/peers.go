package audit

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

var (
	leaderForm  = regexp.MustCompile(`^([^|]+)\|(\d{1,16})\|(\d{1,16})$`)
	termForm    = regexp.MustCompile(`^\d{1,16}$`)
	kindForm    = regexp.MustCompile(`^1\|(?:[a-z]*:-?\d{1,19}:-?\d{1,19} )*$`)
	handlesForm = regexp.MustCompile(`^ (?:[0-9A-Za-z._/@+-]+=\d{1,9} )*$`)
	roomForm    = regexp.MustCompile(`^(?:-?\d{1,9} ){9}$`)
	unheardForm = regexp.MustCompile(`^ (?:\d{1,4}/[1-9] )+$`)
)

// checkPeers looks at what belongs to the whole namespace.
func (a *audit) checkPeers() {
	tell := func(key, format string, args ...any) {
		a.found("{%s}:%s: %s", a.namespace, key, fmt.Sprintf(format, args...))
	}
	layout := a.key("layout").hash
	if len(layout) != 3 || layout["layout"] != "1" || layout["min_peer"] != "1" || layout["partitions"] != fmt.Sprint(len(a.parts)) {
		tell("layout", "it is %v, with %d partitions", layout, len(a.parts))
	}
	for kind, keep := range a.key("kinds").hash {
		if !isName(kind) || !kindForm.MatchString(keep) {
			tell("kinds", "of %.200q is kept %.200q", kind, keep)
		}
	}
	leader, term := a.key("leader").text, a.key("term").text
	if f := leaderForm.FindStringSubmatch(leader); leader != "" && (f == nil || !isName(f[1]) || f[2] != term) {
		tell("leader", "%.200q leads, and the term is %.60q", leader, term)
	}
	if term != "" && !termForm.MatchString(term) {
		tell("term", "it is %.60q", term)
	}

	peers, seen := a.key("peers").hash, a.key("seen").zset
	for peer, shows := range peers {
		if _, ok := seen[peer]; !ok || !isName(peer) {
			tell("seen", "peer %.200s is not there", peer)
		}
		if json.Unmarshal([]byte(shows), &map[string]any{}) != nil {
			tell("peers", "%.200s shows itself as %.200q", peer, shows)
		}
	}
	for peer, at := range seen {
		if _, ok := peers[peer]; !ok {
			tell("peers", "%.200s was seen and is not there", peer)
		}
		if !isTime(at) {
			tell("seen", "%.200s at %v", peer, at)
		}
	}
	for peer := range a.key("drained").set {
		if _, ok := peers[peer]; !ok {
			tell("drained", "%.200s is no peer", peer)
		}
	}

	idle, handles, room := a.key("idle").zset, a.key("handles").hash, a.key("room").hash
	for peer, load := range idle {
		_, handled := handles[peer]
		if _, ok := room[peer]; !ok || !handled {
			tell("idle", "%.200s has no room, or no kinds", peer)
		}
		if load < 0 || load >= 9 {
			tell("idle", "the load of %.200s is %v", peer, load)
		}
	}
	for peer, tokens := range room {
		if _, ok := idle[peer]; !ok {
			tell("room", "%.200s is not idle", peer)
		}
		if !roomForm.MatchString(tokens) {
			tell("room", "that of %.200s is %.200q", peer, tokens)
		}
	}
	for peer, kinds := range handles {
		if !handlesForm.MatchString(kinds) {
			tell("handles", "%.200s handles %.200q", peer, kinds)
		}
		if _, ok := peers[peer]; !ok {
			a.left("{%s}:handles: %.200s is no peer", a.namespace, peer)
		}
	}
	for kind, places := range a.key("unheard").hash {
		if !isName(kind) || !unheardForm.MatchString(places) {
			tell("unheard", "of kind %.200q: %.200q", kind, places)
			continue
		}
		for _, word := range strings.Fields(places) {
			if number, _, _ := strings.Cut(word, "/"); int(whole(number)) >= len(a.parts) {
				tell("unheard", "of kind %s: there is no partition %s", kind, number)
			}
		}
	}
}
