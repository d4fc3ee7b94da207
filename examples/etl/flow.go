package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/dianemo/dianemo"
)

// A place is what a job works on.
type place struct {
	Dir  string
	Shop string `json:",omitempty"`
}

// rows is the result of the jobs that read and write orders.
type rows struct {
	Good int `json:"good"`
	Bad  int `json:"bad,omitempty"`
}

// once: what fails here fails again.
var once = dianemo.Policy{Retries: dianemo.None}

var (
	Extract = dianemo.NewKind[place]("etl.extract", once)
	Merge   = dianemo.NewKind[place]("etl.merge", once)
	Inspect = dianemo.NewKind[place]("etl.inspect", once)
	Load    = dianemo.NewKind[place]("etl.load", once)
	Unload  = dianemo.NewKind[place]("etl.unload", once)
	SetBy   = dianemo.NewKind[place]("etl.set-by", once)
	Report  = dianemo.NewKind[place]("etl.report", once)
)

var shops = []string{"berlin", "lagos", "lima"}

// workflow is the graph. It is plain data: nothing of it runs before it is submitted.
func workflow(dir string) *dianemo.Workflow {
	wf := dianemo.NewWorkflow("etl")
	merge := wf.Add("merge", Merge.New(place{Dir: dir}))
	for _, shop := range shops {
		wf.Add("extract-"+shop, Extract.New(place{dir, shop}))
		merge.After("extract-" + shop)
	}
	wf.Add("inspect", Inspect.New(place{Dir: dir})).After("merge")
	// Which of these two runs, the inspection says.
	wf.Add("load", Load.New(place{Dir: dir})).After("inspect")
	wf.Add("set-by", SetBy.New(place{Dir: dir})).After("inspect")
	wf.Add("unload", Unload.New(place{Dir: dir})).AfterFailure("load")
	wf.Add("report", Report.New(place{Dir: dir})).AfterChosen("load", "set-by")
	return wf
}

// handle gives a peer the handlers. All of them may be run twice: they write whole files,
// or begin anew.
func handle(peer *dianemo.Peer) error {
	return errors.Join(
		Extract.Handle(peer, func(ctx context.Context, job *dianemo.Job[place]) error {
			found, err := extract(job.Args.Dir, job.Args.Shop)
			return errors.Join(err, job.SetResult(found))
		}),
		Merge.Handle(peer, func(ctx context.Context, job *dianemo.Job[place]) error {
			var all rows
			for _, shop := range shops {
				one, err := dianemo.ParentResult[rows](ctx, job, "extract-"+shop)
				if err != nil {
					return err
				}
				all.Good, all.Bad = all.Good+one.Good, all.Bad+one.Bad
			}
			merged, err := merge(job.Args.Dir)
			if err == nil && merged != all.Good {
				err = fmt.Errorf("%d orders were extracted and %d merged", all.Good, merged)
			}
			return errors.Join(err, job.SetResult(all))
		}),
		Inspect.Handle(peer, func(ctx context.Context, job *dianemo.Job[place]) error {
			all, err := dianemo.ParentResult[rows](ctx, job, "merge")
			if err != nil {
				return err
			}
			next := "load"
			if all.Bad*20 > all.Good {
				next = "set-by"
			}
			return errors.Join(job.Choose(ctx, next), job.SetResult("to "+next))
		}),
		Load.Handle(peer, func(ctx context.Context, job *dianemo.Job[place]) error {
			loaded, err := load(job.Args.Dir)
			return errors.Join(err, job.SetResult(rows{Good: loaded}))
		}),
		Unload.Handle(peer, func(ctx context.Context, job *dianemo.Job[place]) error {
			return errors.Join(unload(job.Args.Dir), job.SetResult("the half-loaded orders are gone"))
		}),
		SetBy.Handle(peer, func(ctx context.Context, job *dianemo.Job[place]) error {
			return errors.Join(setBy(job.Args.Dir), job.SetResult("for a person to look at"))
		}),
		Report.Handle(peer, func(ctx context.Context, job *dianemo.Job[place]) error {
			text, err := report(job.Args.Dir)
			return errors.Join(err, job.SetResult(text))
		}),
	)
}
