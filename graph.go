package dianemo

import (
	"fmt"
	"strings"
)

// A Graph is a workflow's jobs and what they wait for, as readers see it. As JSON it can
// be written and read back.
type Graph struct {
	ID    string      `json:"id"`
	Name  string      `json:"name"`
	State State       `json:"state"`
	Jobs  []GraphJob  `json:"jobs"`  // sorted by name
	Edges []GraphEdge `json:"edges"` // sorted by child, then parent
}

// A GraphJob is one job of a workflow.
type GraphJob struct {
	Name   string `json:"name"` // within the workflow
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	State  State  `json:"state"`            // "": it is gone, retention has let go of it
	Reason string `json:"reason,omitempty"` // as that of a [JobInfo]
}

// A GraphEdge says that a job waits for another one.
type GraphEdge struct {
	Parent string    `json:"parent"` // a name, or the id of a job outside of the workflow
	Child  string    `json:"child"`  // a name
	On     Condition `json:"on"`
}

// fills are the colours of states: light, so that black text is legible on all of them.
// The comment of DOT lists them.
var fills = map[State]string{
	Blocked:     "#d9d9d9",
	Scheduled:   "#d9d2e9",
	Queued:      "#d0e0f7",
	Retrying:    "#ffe599",
	Running:     "#9fc5f8",
	Succeeded:   "#b6d7a8",
	Failed:      "#f4a6a0",
	Missed:      "#f9cb9c",
	Unreachable: "#d5a6bd",
	Cancelled:   "#cfc0ac",
	Skipped:     "#f3f3f3",
	"":          "#ffffff",
}

// DOT is the graph in the language of Graphviz; `dot -Tsvg` draws it. The same graph gives
// the same text. A job is a box with its name, kind and state, filled by its state:
//
//	blocked      #d9d9d9  grey
//	scheduled    #d9d2e9  lavender
//	queued       #d0e0f7  pale blue
//	retrying     #ffe599  yellow
//	running      #9fc5f8  blue
//	succeeded    #b6d7a8  green
//	failed       #f4a6a0  red
//	missed       #f9cb9c  orange
//	unreachable  #d5a6bd  mauve
//	cancelled    #cfc0ac  brown
//	skipped      #f3f3f3  pale grey
//	gone         #ffffff  white, with a dashed outline
//
// A parent outside of the workflow is its id without a box. Arrows go from parents to
// children: solid after success, dashed red after failure, dotted after any end, and
// dashed where a decision may leave the parent out.
func (g *Graph) DOT() string {
	var dot strings.Builder
	fmt.Fprintf(&dot, "digraph %s {\n", dotQuote(g.Name))
	dot.WriteString("\tnode [shape=box, style=\"rounded,filled\"];\n")
	drawn := make(map[string]bool, len(g.Jobs))
	for _, job := range g.Jobs {
		drawn[job.Name] = true
		lines, style := []string{job.Name}, ""
		if job.Kind != "" {
			lines = append(lines, job.Kind)
		}
		if job.State != "" {
			lines = append(lines, string(job.State))
		} else {
			lines, style = append(lines, "gone"), `, style="rounded,filled,dashed"`
		}
		fill, known := fills[job.State]
		if !known { // of a newer version
			fill = fills[""]
		}
		fmt.Fprintf(&dot, "\t%s [label=%s, fillcolor=%q%s];\n", dotQuote(job.Name), dotQuote(lines...), fill, style)
	}
	for _, edge := range g.Edges {
		if !drawn[edge.Parent] {
			drawn[edge.Parent] = true
			fmt.Fprintf(&dot, "\t%s [shape=plaintext, style=solid];\n", dotQuote(edge.Parent))
		}
	}
	for _, edge := range g.Edges {
		style := ""
		switch edge.On {
		case OnFailure:
			style = " [style=dashed, color=red]"
		case OnEnd:
			style = " [style=dotted]"
		case OnChosen:
			style = " [style=dashed]"
		}
		fmt.Fprintf(&dot, "\t%s -> %s%s;\n", dotQuote(edge.Parent), dotQuote(edge.Child), style)
	}
	dot.WriteString("}\n")
	return dot.String()
}

// dotEscape leaves nothing that would end a quoted string, and none of the escapes that
// labels have.
var dotEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// dotQuote is a quoted string of these lines. Unquoted, names as a-b or node would not be
// nodes.
func dotQuote(lines ...string) string {
	escaped := make([]string, len(lines))
	for i, line := range lines {
		escaped[i] = dotEscape.Replace(line)
	}
	return `"` + strings.Join(escaped, `\n`) + `"`
}
