package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func moduleRoot(ctx context.Context) (string, error) {
	out, err := output(ctx, "", "go", "env", "GOMOD")
	mod := strings.TrimSpace(out)
	if err == nil && (mod == "" || mod == os.DevNull) {
		err = errors.New("it must be run within the module")
	}
	return filepath.Dir(mod), err
}

// plant makes a copy of the module with the bug, and builds the torture test of it. clean
// removes both.
func plant(ctx context.Context, root string, b bug) (program string, clean func(), err error) {
	dir, err := os.MkdirTemp("", "planted-")
	if err != nil {
		return "", nil, err
	}
	clean = func() { _ = os.RemoveAll(dir) } // what is left of it is the system's to remove
	if err = copyModule(ctx, root, dir); err == nil {
		if err = b.apply(dir); err == nil {
			program = filepath.Join(dir, "torture.test") // a name that no copy of a copy takes along
			// Without the paths in them, packages that no bug touches are built once for all copies.
			_, err = output(ctx, dir, "go", "build", "-trimpath", "-o", program, "./internal/torture")
		}
	}
	if err != nil {
		clean()
		return "", nil, err
	}
	return program, clean, nil
}

// copyModule copies what is in the repository or about to be, as it is now.
func copyModule(ctx context.Context, root, to string) error {
	names, err := output(ctx, root, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(names, "\x00"), "\x00") {
		if err := copyFile(filepath.Join(root, name), filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err // one that does not exist was removed, and the index does not know it yet
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// output runs a command, and puts what it complains about into the error.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, complaints.Bytes())
	}
	return out.String(), nil
}
