package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dianemo/dianemo"
)

// A file that was found under DIR.
type file struct {
	path string
	size int64
}

// find lists the regular files under dir but for the one that the sums go to,
// and what it could not look into.
func find(ctx context.Context, dir string, sums *os.File) (files []file, unread []error, err error) {
	own, err := sums.Stat()
	if err != nil {
		return nil, nil, err
	}
	root := filepath.Clean(dir) + string(filepath.Separator) // so that a link to a directory will do
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			unread = append(unread, err)
			return nil
		case entry.IsDir() && entry.Name() == ".git" && path != root:
			return filepath.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		info, err := entry.Info()
		switch {
		case err != nil:
			unread = append(unread, err)
		case !os.SameFile(info, own):
			files = append(files, file{path, info.Size()})
		}
		return nil
	})
	return files, unread, err
}

// requests are the jobs, one for each file.
func requests(files []file) []dianemo.Request {
	requests := make([]dianemo.Request, len(files))
	for i, f := range files {
		var options dianemo.Options // a zero field means: as the kind says
		if w := weight(f.size); w > 1 {
			options.Weight = w // the kind says 1; to repeat it would only cost the store more
		}
		if filepath.Ext(f.path) == ".md" {
			options.Priority = 1 // texts first; and they may use the reserve
		}
		requests[i] = Digest.NewWith(File{Path: []byte(f.path)}, options)
	}
	return requests
}

// weight is one token for each MiB begun, and no more than a peer can carry: at
// priority 2 the reserve is out of reach, so a heavier job would wait for ever.
func weight(size int64) int {
	const mebibyte = 1 << 20
	return int(min((size+mebibyte-1)/mebibyte, tokens-reserve))
}
