package history

// records: records and indexes agree in the end, no job is listed twice, and nothing had to be put right: no
// fault is one that breaks what is stored.
func records(a *account, say sayer) {
	for _, text := range a.final.Audit {
		say(nil, "%s", text)
	}
	listed := map[string]int{}
	for i := range a.final.Jobs {
		id := a.final.Jobs[i].ID
		if listed[id]++; listed[id] == 2 {
			say(a.job(id), "is listed twice")
		}
	}
	for _, p := range a.processes {
		for _, e := range p.events {
			// What is left of a submission that the store refused half-way is nobody's, and repair takes it away.
			if e.What == Repair && (e.Job == "" || listed[e.Job] > 0) {
				say(nil, "%s put something right: %s %s", p.name, e.Job, e.Reason)
			}
		}
	}
}

// foreign: keys that are not the namespace's are as they were.
func foreign(a *account, say sayer) {
	for _, text := range a.final.Foreign {
		say(nil, "%s", text)
	}
}
