package dianemo

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever a wake-up may ask for: with less room said than there is, the peer says more as soon as that lets it through.
func TestAPeerSaysThatItHasMoreRoomWhereThatMatters(t *testing.T) {
	t.Parallel()
	var s standing
	s.register(map[string]registered{"light": {}, "same": {policy: Policy{Weight: 7}}, "heavy": {policy: Policy{Weight: 100}}, "other": {policy: Policy{Weight: 7}}})
	weights := []int{1, 7, 100} // of kinds
	for weight := 1; weight <= MaxWeight; weight *= 2 {
		weights = append(weights, Lane{Weight: weight}.Lightest()) // of lanes
	}
	for said := range 600 {
		for room := range 600 {
			matters := false
			for _, weight := range weights {
				matters = matters || said < weight && weight <= room
			}
			if s.gained(said, room) != matters {
				require.Fail(t, "wrong", "%d, then %d: it matters: %t", said, room, matters)
			}
		}
	}
}
