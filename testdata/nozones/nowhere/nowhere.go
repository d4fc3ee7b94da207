// Package nowhere makes of this machine one that has no zone database: package
// time looks for it in a folder that does not exist. Link it with
// -ldflags=-checklinkname=0, and set GOROOT to such a folder, too.
package nowhere

import _ "unsafe" // for go:linkname

//go:linkname sources time.platformZoneSources
var sources []string

func init() {
	if len(sources) == 0 {
		panic("package time looks for zones elsewhere than when this was written")
	}
	for i := range sources {
		sources[i] = "/nowhere"
	}
}
