package audit

import (
	"regexp"
	"strconv"
	"strings"
)

// What each key is, by the first word of its name; those in families have more words.
var (
	partSorts = map[string]string{
		"spec": "hash", "meta": "hash", "result": "hash", "errors": "hash", "progress": "hash", "lanes": "zset", "beats": "zset",
		"counts": "hash", "unique": "hash", "schedules": "hash", "cursors": "hash", "fires": "zset", "kids": "hash", "edges": "zset",
		"outbox": "zset", "needs": "hash", "gates": "zset", "blocked": "zset", "info": "hash",
	}
	partFamilies = map[string]string{"lane": "zset", "run": "zset", "done": "zset", "call": "string"}
	spaceSorts   = map[string]string{
		"layout": "hash", "kinds": "hash", "peers": "hash", "seen": "zset", "drained": "set", "leader": "string", "term": "string",
		"idle": "zset", "handles": "hash", "room": "hash", "unheard": "hash",
	}
	// Those that expire, and no others do.
	mortal = map[string]bool{"call": true, "leader": true}
)

// A key that was moved out of the way.
var asideForm = regexp.MustCompile(`^(.+):aside:[0-9]{13}$`)

// sort puts each key where it belongs.
func (a *audit) sort(all map[string]*content) {
	for key, c := range all {
		tag, name, ok := strings.Cut(key, "}:")
		number, inPart := strings.CutPrefix(tag, "{"+a.namespace+":")
		place, err := strconv.Atoi(number)
		switch {
		case !ok || inPart && (err != nil || strconv.Itoa(place) != number):
			continue // another's, though it looks alike
		case inPart && place >= len(a.parts):
			a.found("%s: there is no such partition", key)
		case !a.named(key, name, inPart, c):
		case inPart:
			a.parts[place].keys[name] = c
		default:
			a.space[name] = c
		}
	}
}

// named checks a key's name, type and life, and reports whether its content is to be looked at.
func (a *audit) named(key, name string, inPart bool, c *content) bool {
	if original := asideForm.FindStringSubmatch(name); original != nil {
		if sortOf(original[1], inPart) == "" {
			a.found("%s: what was moved aside has no name of a key", key)
		}
		if !c.expires {
			a.found("%s: it is aside for ever", key)
		}
		return false
	}
	want := sortOf(name, inPart)
	word, _, _ := strings.Cut(name, ":")
	switch {
	case want == "":
		a.found("%s: no key has such a name", key)
		return false
	case c.sort != want:
		a.found("%s: it is a %s, not a %s", key, c.sort, want)
		return false
	case mortal[word] && !c.expires:
		a.found("%s: it never expires", key)
	case !mortal[word] && c.expires:
		a.found("%s: it expires", key)
	}
	return true
}

// sortOf is the type that a key of this name must have; "" if none has.
func sortOf(name string, inPart bool) string {
	word, rest, more := strings.Cut(name, ":")
	switch {
	case !inPart && !more:
		return spaceSorts[word]
	case inPart && !more:
		return partSorts[word]
	case inPart && rest != "":
		return partFamilies[word]
	}
	return ""
}
