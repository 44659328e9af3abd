package caddysnake

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	maxLabel = 63  // bytes of a label (RFC 1035, section 2.3.4)
	maxHost  = 253 // bytes of a host name, without the dot at its end
)

// isLabel tells whether s is letters, digits, hyphens and underscores, of which the first is a letter or a digit: one name
// in a path, however it is put together with others. No other value of a request becomes part of a path.
func isLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[0] == '_' {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// isHostName tells whether s is labels with single dots between them. It is never "." or "..", nor hidden.
func isHostName(s string) bool {
	if len(s) > maxHost {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

// confined is a folder or file that a request has chosen, and the folder that it must lie in. Both are real paths.
type confined struct{ Root, Path string }

var (
	errOutside = errors.New("it leads out of the folder that it must lie in")
	errMoved   = errors.New("what the request chose was moved or replaced meanwhile")
)

// below returns the real path of the folder at path, which must lie below root, symlinks resolved. root is a real path.
func below(root, path string) (string, error) {
	found, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", withoutPath(err)
	}
	info, err := os.Stat(found)
	switch {
	case !isBelow(root, found):
		return "", errOutside
	case err != nil:
		return "", withoutPath(err)
	case !info.IsDir():
		return "", errors.New("it is not a folder")
	}
	return found, nil
}

func isBelow(root, path string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimRight(root, "/")+"/")
	return ok && rest != ""
}

// sighting is what was there on the way from the root of each confined path to its end, at one time.
type sighting [][]fs.FileInfo

// sight looks. A path with a symlink on its way, which cannot have been there when it was resolved, is an error.
func sight(paths []confined) (sighting, error) {
	var s sighting
	for _, path := range paths {
		way, err := path.look()
		if err != nil {
			return nil, err
		}
		s = append(s, way)
	}
	return s, nil
}

func (c confined) look() ([]fs.FileInfo, error) {
	root, err := os.OpenRoot(c.Root)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", c.Root, withoutPath(err))
	}
	defer func() { _ = root.Close() }()
	rest, err := filepath.Rel(c.Root, c.Path)
	if err != nil {
		return nil, err
	}
	info, err := root.Lstat(".")
	way := []fs.FileInfo{info}
	name := ""
	for part := range strings.SplitSeq(rest, string(filepath.Separator)) {
		if err == nil {
			name = filepath.Join(name, part)
			info, err = root.Lstat(name)
			way = append(way, info)
		}
		if err == nil && info.Mode()&fs.ModeSymlink != 0 {
			err = errMoved
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", c.Path, withoutPath(err))
	}
	return way, nil
}

// check looks again, and fails unless the same has been there all the time. What was exchanged for something else and put
// back is found out by the times of change: to move a folder changes its own and its parent's. (One alone proves nothing.
// A folder's own changes with each file that Python caches in it, its parent's with each folder that is made beside it.)
func (s sighting) check(paths []confined) error {
	now, err := sight(paths)
	if err != nil {
		return err
	}
	for i, way := range now {
		for j := 1; j < len(way); j++ {
			moved := changed(s[i][j-1], way[j-1]) && changed(s[i][j], way[j])
			if moved || !os.SameFile(s[i][j], way[j]) {
				return fmt.Errorf("%q: %w", paths[i].Path, errMoved)
			}
		}
	}
	return nil
}
