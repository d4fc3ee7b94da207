package measure

import (
	"slices"
)

// A Report is what was measured. Its JSON is one object; Fields says what its
// figures are.
type Report struct {
	Dianemo  string   `json:"dianemo"` // version of the library
	Go       string   `json:"go"`
	CPUs     int      `json:"cpus"` // of this host
	Redis    Backend  `json:"redis"`
	Settings Settings `json:"settings"`
	Seconds  float64  `json:"seconds"` // that it all took
	// Figures has, for each figure that was taken, its values by name.
	Figures map[string]map[string]Value `json:"figures"`
	// Histograms has those of the figures that are latencies, of all rounds together.
	Histograms map[string][]Bucket `json:"histograms"`
	Scripts    Scripts             `json:"scripts"`
}

// A Value is what was measured in all rounds.
type Value struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

func valueOf(rounds []float64) Value {
	sorted := slices.Sorted(slices.Values(rounds))
	middle := sorted[len(sorted)/2]
	if len(sorted)%2 == 0 {
		middle = (middle + sorted[len(sorted)/2-1]) / 2
	}
	return Value{middle, sorted[0], sorted[len(sorted)-1]}
}

// A Field is one value of a figure.
type Field struct {
	Figure, Name string
	Text         string // for people
	Unit         string
}

// Values that several figures have.
const (
	JobsPerSecond     = "jobs_per_second"
	CPUPerJob         = "cpu_us_per_job"
	AllocationsPerJob = "allocations_per_job"
	RedisCPUPerJob    = "redis_cpu_us_per_job"
	P50               = "p50_us"
	P90               = "p90_us"
	P99               = "p99_us"
	P999              = "p999_us"
	Longest           = "max_us"
)

// Fields are all values that a report may have, in the order of the table.
var Fields = slices.Concat(
	work(Enqueue),
	work(Bulk),
	[]Field{{Bulk, "redis_bytes_per_job", "memory of Redis per waiting job", "bytes"}},
	work(Drain),
	[]Field{{Drain, "efficiency", "share of what the tokens allow", ""}},
	latency(PickUp),
	[]Field{{PickUp, "claims_per_job", "claims per job", ""}},
	latency(Schedule),
	[]Field{
		{Idle, "commands_per_second", "commands that a peer sends", "/s"},
		{Idle, "redis_commands_per_second", "commands that Redis runs, those in scripts too", "/s"},
		{Idle, "cpu_percent", "CPU of a peer", "% of a core"},
		{Idle, "redis_cpu_percent", "CPU of Redis", "% of a core"},
	},
)

func work(figure string) []Field {
	return []Field{
		{figure, JobsPerSecond, "rate", "jobs/s"},
		{figure, CPUPerJob, "CPU of the process per job", "µs"},
		{figure, AllocationsPerJob, "allocations per job", ""},
		{figure, RedisCPUPerJob, "CPU of Redis per job", "µs"},
	}
}

func latency(figure string) []Field {
	return []Field{
		{figure, P50, "p50", "µs"},
		{figure, P90, "p90", "µs"},
		{figure, P99, "p99", "µs"},
		{figure, P999, "p99.9", "µs"},
		{figure, Longest, "longest", "µs"},
	}
}
