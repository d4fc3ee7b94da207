package main

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"sync"

	"github.com/dianemo/dianemo"
)

// File is what a job is about.
type File struct {
	// Path is not a string, because file names are bytes: JSON would replace
	// what is not UTF-8, and the file would not be found.
	Path []byte
}

// Result is what a job found out.
type Result struct {
	SHA256 []byte
	In     int64 // bytes read
	Out    int64 // bytes that they compress to
}

// Digest is the kind of all jobs here. One value says what the work is, to
// those who enqueue it and to those who run it.
var Digest = dianemo.NewKind[File]("quickstart.digest", dianemo.Policy{
	// By default a failed job is tried again half an hour later. A file that
	// can't be read is better reported now.
	Retries: dianemo.None,
	// Hashing a file twice does no harm. So a job may be given to another peer
	// when its own has died, at priority 1 too, where the default is None.
	Reruns: 3,
})

// digest compresses and hashes a file. The result goes to the store, so that
// whoever enqueued the job can read it, in whatever process that is.
func digest(ctx context.Context, job *dianemo.Job[File]) error {
	f, err := os.Open(string(job.Args.Path))
	if err != nil {
		return err
	}
	defer f.Close()

	hash := sha256.New()
	var packed counter
	zip := zippers.Get().(*gzip.Writer)
	defer zippers.Put(zip)
	zip.Reset(&packed)
	n, err := io.Copy(io.MultiWriter(hash, zip), stoppable{ctx, f})
	if err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	return job.SetResult(Result{SHA256: hash.Sum(nil), In: n, Out: int64(packed)})
}

// zippers are kept for the next job, as each has close to a MiB of buffers.
var zippers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// A counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// stoppable reads until ctx ends: a handler must return soon after that.
type stoppable struct {
	ctx context.Context
	io.Reader
}

func (s stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}
