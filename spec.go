package dianemo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Spec is the immutable part of a job, in the form in which it is stored: one
// byte of version, then fields of one byte of tag, the length as a uvarint, and
// the bytes. Numbers are varints. Tags that a reader doesn't know are skipped,
// so a field can join without a new version; a new version is one that old
// readers must leave alone.
type Spec struct {
	Kind     string
	Priority int
	Grace    time.Duration // Unlimited: no limit
	Weight   int           // 0: the kind's, as the claiming peer defines it
	Timeout  time.Duration // 0: the same
	Retries  int           // 0: the same
	Reruns   int           // 0: the same
	RunAt    time.Time     // to the ms; zero: Delay counts. With Delay only for a lane that was lost
	Delay    time.Duration // from when the store took the job
	Codec    int           // 0: JSON
	Key      string        // id of the key that args are encrypted with; "": none
	Headers  map[string]string
	// Schedule is the schedule whose occurrence this is, "" for none, and At its
	// instant, to the ms. Follow: its end makes another one due.
	Schedule string
	At       time.Time
	Follow   bool
	Parents  []Parent // as long as they fit: see specParents
	// Many is how many there are, where Parents does not name them, and ManyOn how they
	// must end, if that is the same of all.
	Many   int
	ManyOn Condition
	// Workflow is the workflow of which this is a job, "" for none, and Name its name there.
	Workflow string
	Name     string
	Ahead    time.Duration // how much earlier than others it is due when it is released
	// Plan has, in a workflow that a schedule makes, the specs of its jobs: with their
	// names, and those of their parents in place of ids.
	Plan [][]byte
	// Teller is who tells what that waits for: see Record. All who submit it are one.
	Teller uint64
	Args   []byte
}

// SpecVersion is the version that this program writes, and the newest that it
// reads.
const SpecVersion byte = '1'

// Errors of DecodeSpec.
var (
	errSpecNewer   = errors.New("written by a newer version")
	errSpecCorrupt = errors.New("corrupt spec")
)

const (
	tagKind     = 'k'
	tagPriority = 'p'
	tagGrace    = 'g'
	tagWeight   = 'w'
	tagTimeout  = 't'
	tagRetries  = 'r'
	tagReruns   = 'u'
	tagRunAt    = 'd'
	tagDelay    = 'l'
	tagCodec    = 'c'
	tagKey      = 'y'
	tagHeader   = 'h'
	tagSchedule = 's'
	tagAt       = 'i'
	tagFollow   = 'f'
	tagParent   = 'q'
	tagNear     = 'z' // of the parent before it
	tagWorkflow = 'o'
	tagName     = 'n'
	tagAhead    = 'e'
	tagMany     = 'm'
	tagManyOn   = 'v'
	tagPlan     = 'j'
	tagTeller   = 'x'
	tagArgs     = 'a'
)

var parentLetters = map[Condition]string{OnSuccess: "s", OnFailure: "f", OnEnd: "a", OnChosen: "c"}

// specParents is how many parents a spec names at most.
const specParents = 1000

// EncodeSpec returns the stored form.
func EncodeSpec(s *Spec) []byte {
	b := make([]byte, 0, 32+len(s.Kind)+len(s.Args))
	b = append(b, SpecVersion)
	b = appendText(b, tagKind, s.Kind)
	b = appendNumber(b, tagPriority, int64(s.Priority))
	b = appendNumber(b, tagGrace, int64(s.Grace))
	b = appendNumber(b, tagWeight, int64(s.Weight))
	b = appendNumber(b, tagTimeout, int64(s.Timeout))
	b = appendNumber(b, tagRetries, int64(s.Retries))
	b = appendNumber(b, tagReruns, int64(s.Reruns))
	if !s.RunAt.IsZero() {
		// At 0, which is also what is not written, any job is due.
		b = appendNumber(b, tagRunAt, s.RunAt.Add(time.Millisecond-1).UnixMilli())
	}
	b = appendNumber(b, tagDelay, int64(s.Delay))
	b = appendNumber(b, tagCodec, int64(s.Codec))
	if s.Key != "" {
		b = appendText(b, tagKey, s.Key)
	}
	if s.Schedule != "" {
		b = appendText(b, tagSchedule, s.Schedule)
	}
	if !s.At.IsZero() {
		b = appendNumber(b, tagAt, s.At.UnixMilli())
	}
	if s.Follow {
		b = appendNumber(b, tagFollow, 1)
	}
	if s.Workflow != "" {
		b = appendText(b, tagWorkflow, s.Workflow)
	}
	if s.Name != "" {
		b = appendText(b, tagName, s.Name)
	}
	b = appendNumber(b, tagAhead, int64(s.Ahead))
	if s.Many > 0 {
		b = appendNumber(b, tagMany, int64(s.Many))
		b = appendText(b, tagManyOn, s.ManyOn)
	}
	for _, p := range s.Parents {
		b = appendText(b, tagParent, parentLetters[p.On]+p.ID)
		b = appendNumber(b, tagNear, int64(p.Near))
	}
	if len(s.Headers) > 0 {
		for _, name := range slices.Sorted(maps.Keys(s.Headers)) { // so that equal specs are equal bytes
			value := s.Headers[name]
			b = append(b, tagHeader)
			b = binary.AppendUvarint(b, uint64(len(name)+len(value)+uvarintLen(len(name))))
			b = binary.AppendUvarint(b, uint64(len(name)))
			b = append(append(b, name...), value...)
		}
	}
	b = appendNumber(b, tagTeller, int64(s.Teller))
	for _, job := range s.Plan {
		b = appendText(b, tagPlan, job)
	}
	b = appendText(b, tagArgs, s.Args)
	return b
}

func appendText[T ~string | ~[]byte](b []byte, tag byte, v T) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// appendNumber leaves out 0.
func appendNumber(b []byte, tag byte, v int64) []byte {
	if v == 0 {
		return b
	}
	var n [binary.MaxVarintLen64]byte
	size := binary.PutVarint(n[:], v)
	return append(append(b, tag, byte(size)), n[:size]...)
}

func uvarintLen(n int) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutUvarint(b[:], uint64(n))
}

// DecodeSpec reads the stored form. Args and Plan share memory with b.
func DecodeSpec(b []byte) (*Spec, error) {
	s := &Spec{}
	if err := s.decode(b, ""); err != nil {
		return nil, err
	}
	return s, nil
}

// decode reads the stored form into an empty Spec. Its kind is likely this one, whose
// memory is then shared.
func (s *Spec) decode(b []byte, kind string) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: it is empty", errSpecCorrupt)
	}
	if b[0] > SpecVersion {
		return errSpecNewer
	}
	if b[0] != SpecVersion {
		return fmt.Errorf("%w: version byte %q", errSpecCorrupt, b[0])
	}
	for b = b[1:]; len(b) > 0; {
		tag := b[0]
		size, n := binary.Uvarint(b[1:])
		if n <= 0 || size > uint64(len(b)-1-n) {
			return fmt.Errorf("%w: field %q is cut short", errSpecCorrupt, tag)
		}
		v := b[1+n : 1+n+int(size)]
		b = b[1+n+int(size):]
		if tag == tagKind && string(v) == kind {
			s.Kind = kind
		} else if err := s.set(tag, v); err != nil {
			return err
		}
	}
	if CheckName("kind", s.Kind) != nil || s.Priority < 1 || s.Priority > 9 {
		return fmt.Errorf("%w: kind %.40q, priority %d", errSpecCorrupt, s.Kind, s.Priority)
	}
	// With more than these it would have a lane that nobody can read.
	if s.Weight < 0 || s.Weight > MaxWeight || s.Grace < Unlimited || s.Grace > maxGrace || s.Many < 0 {
		return fmt.Errorf("%w: weight %d, grace %v, %d parents", errSpecCorrupt, s.Weight, s.Grace, s.Many)
	}
	return nil
}

func (s *Spec) set(tag byte, v []byte) error {
	switch tag {
	case tagKind:
		s.Kind = string(v)
	case tagKey:
		s.Key = string(v)
	case tagSchedule:
		s.Schedule = string(v)
	case tagWorkflow:
		s.Workflow = string(v)
	case tagName:
		s.Name = string(v)
	case tagManyOn:
		s.ManyOn = Condition(v)
	case tagParent:
		for on, letter := range parentLetters {
			if id, ok := strings.CutPrefix(string(v), letter); ok {
				s.Parents = append(s.Parents, Parent{ID: id, On: on})
			}
		}
	case tagPlan:
		s.Plan = append(s.Plan, v)
	case tagArgs:
		s.Args = v
	case tagHeader:
		size, n := binary.Uvarint(v)
		if n <= 0 || size > uint64(len(v)-n) {
			return fmt.Errorf("%w: a header is cut short", errSpecCorrupt)
		}
		if s.Headers == nil {
			s.Headers = map[string]string{}
		}
		s.Headers[string(v[n:n+int(size)])] = string(v[n+int(size):])
	case tagPriority, tagGrace, tagWeight, tagTimeout, tagRetries, tagReruns, tagRunAt, tagDelay, tagCodec, tagAt, tagFollow, tagAhead, tagMany, tagNear, tagTeller:
		i, n := binary.Varint(v)
		if n != len(v) || n <= 0 {
			return fmt.Errorf("%w: field %q is no number", errSpecCorrupt, tag)
		}
		switch tag {
		case tagPriority:
			s.Priority = int(i)
		case tagGrace:
			s.Grace = time.Duration(i)
		case tagWeight:
			s.Weight = int(i)
		case tagTimeout:
			s.Timeout = time.Duration(i)
		case tagRetries:
			s.Retries = int(i)
		case tagReruns:
			s.Reruns = int(i)
		case tagRunAt:
			s.RunAt = time.UnixMilli(i)
		case tagDelay:
			s.Delay = time.Duration(i)
		case tagCodec:
			s.Codec = int(i)
		case tagAt:
			s.At = time.UnixMilli(i).UTC()
		case tagFollow:
			s.Follow = i != 0
		case tagMany:
			s.Many = int(i)
		case tagAhead:
			s.Ahead = time.Duration(i)
		case tagTeller:
			s.Teller = uint64(i)
		case tagNear:
			if n := len(s.Parents); n > 0 {
				s.Parents[n-1].Near = time.Duration(i)
			}
		}
	}
	return nil
}

// Lane is where a new job with this spec waits.
func (s *Spec) Lane() Lane {
	return Lane{Kind: s.Kind, Priority: s.Priority, Grace: s.Grace, Weight: laneWeight(s.Weight)}
}

// maxGrace is a bound of what laneGrace makes of a grace.
const maxGrace = MaxSpan + MaxSpan/20

// laneGrace rounds a grace override up, by at most 5 %, for the same reason;
// what people say, like 90 s or 36 h, stays as it is.
func laneGrace(d time.Duration) time.Duration {
	step := time.Millisecond
	for _, wider := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second, time.Minute,
		5 * time.Minute, 15 * time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour} {
		if wider <= d/20 {
			step = wider
		}
	}
	if d <= 0 || d > maxGrace {
		return d
	}
	return (d + step - 1) / step * step
}

// laneWeight rounds a weight override up to a power of two, so that the number
// of lanes stays bounded whatever weights producers choose.
func laneWeight(w int) int {
	if w <= 0 {
		return 0
	}
	lane := 1
	for lane < w {
		lane <<= 1
	}
	return lane
}
